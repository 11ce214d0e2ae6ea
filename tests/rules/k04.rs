//! K04: AES-256 under a 256-bit data key, which the service key wraps; a disk's own, or one for the region.

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::keys::DiskKeys;

use crate::scene::{each, with_disk};

#[test]
fn rule_k04_data_keys_have_256_bits_and_the_profiles_scope() {
    let table = [
        ("tencent-cbs", true),
        ("alibaba-ecs-classic", false),
        ("alibaba-ecs", false),
        ("huawei-evs", false),
        ("sealblk", false),
    ];
    each(table, |kms, shared| {
        let disks = ["one", "two"].map(|disk| kms.create(disk, &[]));
        assert_eq!(disks[0]["key"], disks[1]["key"]);
        assert_ne!(disks[0]["lineage"], disks[1]["lineage"]);
        // Unwrapped as the format is documented, with AES-256-GCM.
        let [one, two] = ["one", "two"].map(|disk| DiskKeys::of(&kms.state(), disk));
        assert_eq!((one.data.len(), one.lineage.len(), one.xts.len()), (32, 32, 64));
        assert_eq!((one.master == two.master, one.data == two.data), (true, shared));
        assert!(
            one.salt != two.salt && one.lineage != two.lineage && one.xts != two.xts,
            "no two lineages share an XTS key"
        );
        let plain = kms.create("plain", &["--encrypted=false"]);
        assert!(plain["key"].is_null() && plain["lineage"].is_null());
    });
}

#[test]
fn rule_k04_a_wrapped_key_opens_for_its_own_disk_alone() {
    let mut kms = with_disk();
    kms.create("other", &[]);
    kms.stop();
    Catalogue::open(&kms.state()).execute(
        "CREATE TEMP TABLE swap AS SELECT id, wrapped_key, wrapped_salt FROM lineages;
         UPDATE lineages SET
            wrapped_key = (SELECT wrapped_key FROM swap WHERE swap.id <> lineages.id),
            wrapped_salt = (SELECT wrapped_salt FROM swap WHERE swap.id <> lineages.id)",
    );
    kms.serve();
    for disk in ["data", "other"] {
        kms.refused(&["attach", disk, "vm"], "WrappedKeyInvalid", None);
        assert_eq!(kms.disk(disk)["state"], "available");
        assert_eq!(kms.backend(disk), None);
    }
    kms.create("new", &[]);
    kms.ok(&["attach", "new", "vm"]);
}

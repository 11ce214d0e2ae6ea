//! D02: cloud disks are encrypted, of the profile's types, and never local ones.

use crate::scene::{Side, assert_side, each};

#[test]
fn rule_d02_only_cloud_disks_of_the_profiles_types_are_encrypted() {
    const REFUSED: Side = Err(("TypeNotEncryptable", "D02"));
    // The type that some profiles leave out.
    let table = [
        ("tencent-cbs", Ok(())),
        ("alibaba-ecs-classic", REFUSED),
        ("alibaba-ecs", REFUSED),
        ("huawei-evs", Ok(())),
        ("sealblk", Ok(())),
    ];
    each(table, |kms, essd| {
        for (wanted, side) in [
            ("basic", Ok(())),
            ("efficiency", Ok(())),
            ("ssd", Ok(())),
            ("essd", essd),
        ] {
            let create = ["disk", "create", wanted, "--size", "1MiB", "--type", wanted];
            assert_side(kms, &create, side);
        }
        kms.create("plain", &["--encrypted=false", "--type", "essd"]);
        let local = ["disk", "create", "local", "--size", "1MiB", "--kind", "local"];
        kms.refused(&local, "LocalDisk", Some("D02"));
        kms.ok(&[&local[..], &["--encrypted=false"]].concat());
    });
}

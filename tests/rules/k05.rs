//! K05: a disk, its snapshots and the disks made from them are one lineage under one data key.

use sealblk_e2e::keys::DiskKeys;

use crate::scene::{PROFILES, briefly, each, mark, marked};

#[test]
fn rule_k05_a_snapshot_and_a_disk_from_it_have_the_disks_lineage() {
    each(PROFILES.map(|profile| (profile, ())), |kms, ()| {
        kms.ok(&["instance", "register", "vm"]);
        let disk = kms.create("data", &[]);
        briefly(kms, "data", |guest| mark(guest, 5));
        let snapshot = kms.ok(&["snapshot", "create", "data", "one"]);
        let clone = kms.ok(&["disk", "create", "clone", "--snapshot", "one"]);
        assert_eq!(
            (&snapshot["lineage"], &clone["lineage"], &clone["key"]),
            (&disk["lineage"], &disk["lineage"], &disk["key"])
        );
        let [of_disk, of_clone] = ["data", "clone"].map(|disk| DiskKeys::of(&kms.state(), disk));
        assert_eq!(of_disk.xts, of_clone.xts);
        assert_eq!(kms.disk("data")["lineage"], disk["lineage"], "it stays the same");
        // It reads the source's ciphertext, which no other key opens.
        assert_eq!(briefly(kms, "clone", marked), 5);
        let with_key = ["disk", "create", "other", "--snapshot", "one", "--key", "other"];
        kms.refused(&with_key, "KeyInherited", Some("K09"));
        assert_ne!(kms.create("new", &[])["lineage"], disk["lineage"]);
    });
}

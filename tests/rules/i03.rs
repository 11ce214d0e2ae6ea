//! I03: a backup is encrypted as its disk is; a disk restored from it may choose either.

use crate::scene::{attach, briefly, mark, marked, with_disk};

#[test]
fn rule_i03_a_backup_outlives_its_disk_and_is_restored_encrypted_or_plain() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| mark(guest, 6));
    let backup = kms.ok(&["backup", "create", "data", "monday"]);
    assert_eq!(
        (&backup["encrypted"], &backup["lineage"]),
        (&true.into(), &kms.disk("data")["lineage"])
    );
    briefly(&kms, "data", |guest| mark(guest, 7));
    kms.ok(&["disk", "delete", "data", "--now"]);
    kms.ok(&["backup", "restore", "monday", "same"]);
    kms.ok(&["backup", "restore", "monday", "other", "--plain"]);
    for (disk, encrypted) in [("same", true), ("other", false)] {
        assert_eq!(kms.disk(disk)["encrypted"], encrypted);
        assert_eq!(briefly(&kms, disk, marked), 6);
    }
    let smaller = ["backup", "restore", "monday", "smaller", "--size", "512K"];
    kms.refused(&smaller, "SizeBelowSource", Some("I04"));
    kms.ok(&["backup", "delete", "monday"]);
    kms.refused(&["backup", "restore", "monday", "late"], "NotFound", None);
}

#[test]
fn rule_i03_a_backup_of_a_snapshot_is_as_the_disk_was_and_encrypted_as_it() {
    let kms = with_disk();
    let mut guest = attach(&kms, "data");
    mark(&mut guest, 6);
    kms.ok(&["snapshot", "create", "data", "before"]);
    mark(&mut guest, 7);
    // The disk is in use meanwhile.
    let backup = kms.ok(&["backup", "create", "monday", "--snapshot", "data/before"]);
    assert_eq!(
        (&backup["encrypted"], &backup["lineage"]),
        (&true.into(), &kms.disk("data")["lineage"])
    );
    assert_eq!(marked(&mut guest), 7);
    drop(guest);
    kms.ok(&["detach", "data", "--force"]);
    kms.ok(&["snapshot", "delete", "data/before"]);
    kms.ok(&["disk", "delete", "data", "--now"]);
    kms.ok(&["backup", "restore", "monday", "plain", "--plain"]);
    assert_eq!(briefly(&kms, "plain", marked), 6);
}

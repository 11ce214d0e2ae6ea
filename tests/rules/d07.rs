//! D07: a disk is made empty, and keeps its id and its snapshots.

use crate::scene::{attach, briefly, mark, marked, with_disk};

#[test]
fn rule_d07_a_reinitialised_disk_reads_zeros_and_keeps_id_and_snapshots() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| mark(guest, 4));
    kms.ok(&["snapshot", "create", "data", "one"]);
    let before = kms.disk("data");
    let after = kms.ok(&["disk", "reinit", "data"]);
    assert_eq!((&after["id"], &after["size"]), (&before["id"], &before["size"]));
    assert_eq!(briefly(&kms, "data", marked), 0);
    kms.ok(&["rollback", "data", "one"]);
    let mut guest = attach(&kms, "data");
    assert_eq!(marked(&mut guest), 4);
    kms.refused(&["disk", "reinit", "data"], "DiskInUse", Some("S05"));
    assert_eq!(marked(&mut guest), 4);
    kms.create("raw", &["--store", "raw"]);
    kms.refused(&["disk", "reinit", "raw"], "NotSupported", None);
}

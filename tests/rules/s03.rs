//! S03: a disk is rolled back to one of its snapshots.

use crate::scene::{briefly, mark, marked, with_disk};

#[test]
fn rule_s03_a_disk_goes_back_to_its_own_snapshots_alone() {
    let kms = with_disk();
    for (byte, snapshot) in [(1, "one"), (2, "two")] {
        briefly(&kms, "data", |guest| mark(guest, byte));
        kms.ok(&["snapshot", "create", "data", snapshot]);
    }
    for (byte, snapshot) in [(1, "one"), (2, "two"), (1, "one")] {
        kms.ok(&["rollback", "data", snapshot]);
        assert_eq!(briefly(&kms, "data", marked), byte);
    }
    kms.create("other", &[]);
    kms.ok(&["snapshot", "create", "other", "foreign"]);
    for snapshot in ["foreign", "nothing"] {
        kms.refused(&["rollback", "data", snapshot], "NotFound", None);
    }
    kms.create("raw", &["--store", "raw"]);
    kms.refused(&["rollback", "raw", "one"], "NotSupported", None);
}

//! S05: a disk in use is rolled back only by force.

use crate::scene::{attach, mark, marked, with_disk};

#[test]
fn rule_s05_a_rollback_under_a_guest_needs_force() {
    let kms = with_disk();
    let mut guest = attach(&kms, "data");
    mark(&mut guest, 1);
    kms.ok(&["snapshot", "create", "data", "one"]);
    mark(&mut guest, 2);
    let sentence = kms.refused(&["rollback", "data", "one"], "DiskInUse", Some("S05"));
    assert!(sentence.contains("--force"), "{sentence}");
    assert_eq!(marked(&mut guest), 2);
    kms.ok(&["rollback", "data", "one", "--force"]);
    assert_eq!(marked(&mut guest), 1);
    drop(guest);
    kms.ok(&["detach", "data", "--force"]);
    kms.ok(&["rollback", "data", "one"]);
}

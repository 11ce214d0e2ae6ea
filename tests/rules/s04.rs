//! S04: a snapshot of a disk in use holds what was written before it.

use crate::scene::{BLOCK, SECTOR, attach, briefly, mark, marked, with_disk};

#[test]
fn rule_s04_a_running_disk_is_snapshotted_under_its_guest() {
    let kms = with_disk();
    let mut guest = attach(&kms, "data");
    let pid = kms.backend("data");
    for byte in [1, 2] {
        // Not flushed: the snapshot has what has been answered.
        guest.write(SECTOR, &[byte; BLOCK]);
        kms.ok(&["snapshot", "create", "data", &format!("s{byte}")]);
    }
    mark(&mut guest, 3);
    assert_eq!((marked(&mut guest), kms.backend("data")), (3, pid));
    kms.refused(&["snapshot", "create", "data", "s1"], "NameTaken", None);
    drop(guest);
    kms.ok(&["detach", "data", "--force"]);
    for byte in [2, 1] {
        kms.ok(&["rollback", "data", &format!("s{byte}")]);
        assert_eq!(briefly(&kms, "data", marked), byte);
    }
}

//! A08: one process at a time serves a disk, by a lock on the store itself.

use std::fs::File;

use sealblk_e2e::kms;
use sealblk_e2e::locks::try_lock;

use crate::scene::with_disk;

#[test]
fn rule_a08_the_stores_lock_decides_who_serves() {
    let kms = with_disk();
    let disk = kms.disk("data");
    let open = || {
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .open(kms::path(&disk, "path"))
            .unwrap()
    };
    // The catalogue does not know of this one.
    let stranger = open();
    assert!(try_lock(&stranger));
    kms.refused(&["attach", "data", "vm"], "StoreInUse", Some("A08"));
    assert_eq!(kms.disk("data")["state"], "available");
    drop(stranger);
    kms.ok(&["attach", "data", "vm"]);
    assert!(!try_lock(&open()));
    kms.ok(&["detach", "data"]);
    assert!(try_lock(&open()));
}

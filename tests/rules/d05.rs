//! D05: the states of a disk, and what each permits.

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::kms;

use crate::scene::with_disk;

#[test]
fn rule_d05_a_new_disk_is_available_and_each_state_permits_its_calls() {
    let mut kms = with_disk();
    let state = |kms: &sealblk_e2e::Kms| kms.disk("data")["state"].clone();
    assert_eq!(state(&kms), "available");
    kms.ok(&["attach", "data", "vm"]);
    assert_eq!(state(&kms), "in-use");
    kms.refused(&["disk", "delete", "data"], "DiskAttached", None);
    kms.refused(&["attach", "data", "vm"], "AlreadyAttached", Some("D09"));
    kms.ok(&["detach", "data"]);
    assert_eq!(state(&kms), "available");
    for wanted in ["rolling-back", "resizing", "error", "error-resizing"] {
        kms.stop();
        Catalogue::open(&kms.state()).execute(&format!("UPDATE disks SET state = '{wanted}'"));
        kms.serve();
        assert_eq!(state(&kms), wanted);
        for call in [
            &["attach", "data", "vm"][..],
            &["snapshot", "create", "data", "one"],
        ] {
            kms.refused(call, "DiskNotAvailable", Some("D05"));
        }
    }
    // A resize that has failed is ended by one that succeeds.
    kms.ok(&["disk", "resize", "data", "--size", "2MiB"]);
    assert_eq!(state(&kms), "available");
    // From every state that lasts a disk can be deleted.
    let file = kms::path(&kms.disk("data"), "path").to_owned();
    kms.stop();
    Catalogue::open(&kms.state()).execute("UPDATE disks SET state = 'error'");
    kms.serve();
    kms.ok(&["disk", "delete", "data", "--now"]);
    assert!(!file.exists());
}

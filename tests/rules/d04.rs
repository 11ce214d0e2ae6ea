//! D04: who wants the other attribute copies the data to a new disk.

use sealblk_e2e::kms::text;

use crate::scene::{briefly, mark, marked, with_disk};

#[test]
fn rule_d04_data_is_copied_to_an_encrypted_disk_and_back() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| mark(guest, 4));
    kms.create("plain", &["--encrypted=false"]);
    kms.create("sealed", &[]);
    for (from, to) in [("data", "plain"), ("plain", "sealed")] {
        let copied = kms.ok(&["disk", "copy", from, to]);
        assert_eq!(text(&copied["copy"], "phase"), "done");
        assert_eq!(briefly(&kms, to, marked), 4);
    }
    assert_ne!(kms.disk("sealed")["lineage"], kms.disk("data")["lineage"]);
    assert_eq!(briefly(&kms, "data", marked), 4);
}

#[test]
fn rule_d04_a_disk_with_data_too_small_or_attached_is_not_copied_to() {
    let kms = with_disk();
    kms.create("other", &[]);
    briefly(&kms, "other", |guest| mark(guest, 5));
    kms.ok(&["disk", "create", "small", "--size", "512K"]);
    let copy = |to| ["disk", "copy", "data", to];
    kms.refused(&copy("other"), "DiskNotEmpty", Some("D04"));
    kms.refused(&copy("small"), "DestinationTooSmall", Some("D04"));
    kms.refused(&copy("data"), "SameDisk", Some("D04"));
    assert_eq!(briefly(&kms, "other", marked), 5);
    kms.ok(&[&copy("other")[..], &["--overwrite"]].concat());
    assert_eq!(briefly(&kms, "other", marked), 0);
    kms.ok(&["attach", "other", "vm"]);
    kms.refused(&copy("other"), "DiskAttached", None);
}

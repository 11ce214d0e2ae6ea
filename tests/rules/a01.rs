//! A01: instance and disk are in the same zone.

use sealblk_e2e::Kms;

#[test]
fn rule_a01_a_disk_goes_to_an_instance_of_its_zone() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "here"]);
    kms.ok(&["instance", "register", "there", "--zone", "other-zone"]);
    kms.create("near", &[]);
    kms.create("far", &["--zone", "other-zone"]);
    for (disk, same, other) in [("near", "here", "there"), ("far", "there", "here")] {
        kms.refused(&["attach", disk, other], "ZoneMismatch", Some("A01"));
        kms.ok(&["attach", disk, same]);
    }
}

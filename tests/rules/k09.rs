//! K09: the key of a disk or snapshot never changes.

use sealblk_e2e::kms::text;

use crate::scene::{PROFILES, each};

#[test]
fn rule_k09_no_other_key_for_a_disk_a_snapshot_or_a_disk_from_it() {
    each(PROFILES.map(|profile| (profile, ())), |kms, ()| {
        let disk = kms.create("data", &[]);
        kms.ok(&["snapshot", "create", "data", "one"]);
        let key = text(&disk, "key");
        for set in [
            ["disk", "set", "data", "--key", "other"],
            ["snapshot", "set", "one", "--key", "other"],
        ] {
            kms.refused(&set, "KeyFixed", Some("K09"));
        }
        let clone = ["disk", "create", "clone", "--snapshot", "one"];
        // Not even the key that it has anyway.
        kms.refused(
            &[&clone[..], &["--key", key]].concat(),
            "KeyInherited",
            Some("K09"),
        );
        assert_eq!(kms.ok(&clone)["key"], disk["key"]);
        // To ask for what it is changes nothing.
        assert_eq!(kms.ok(&["disk", "set", "data", "--key", key])["key"], disk["key"]);
    });
}

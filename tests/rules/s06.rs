//! S06: encrypted snapshots do not leave their region.

use crate::scene::{PROFILES, Side, assert_side, each};

#[test]
fn rule_s06_an_encrypted_snapshot_stays_in_its_region() {
    // As safe where the service says nothing as where it refuses.
    const STAYS: Side = Err(("EncryptedSnapshotStays", "S06"));
    each(PROFILES.map(|profile| (profile, STAYS)), |kms, side| {
        kms.create("data", &[]);
        kms.create("plain", &["--encrypted=false"]);
        kms.ok(&["snapshot", "create", "data", "one"]);
        kms.ok(&["snapshot", "create", "plain", "two"]);
        assert_side(
            kms,
            &["snapshot", "copy", "one", "--to-region", "elsewhere"],
            side,
        );
        // A plain one may, if a service were known there.
        let plain = ["snapshot", "copy", "two", "--to-region", "elsewhere"];
        kms.refused(&plain, "UnknownRegion", None);
        kms.ok(&["disk", "create", "clone", "--snapshot", "one"]);
    });
}

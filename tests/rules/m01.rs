//! M01: which calls on encrypted disks count, once each.

use sealblk_e2e::kms::{self, Kms, text};

use crate::scene::{briefly, each, mark};

/// A disk's life, in which each metered call has its place.
fn live(kms: &Kms, disk: &str, encrypted: &str) {
    kms.create(disk, &[encrypted]);
    let snapshot = format!("of-{disk}");
    briefly(kms, disk, |guest| mark(guest, 1));
    kms.ok(&["snapshot", "create", disk, &snapshot]);
    kms.ok(&["rollback", disk, &snapshot]);
    kms.ok(&["disk", "reinit", disk]);
    kms.ok(&["disk", "resize", disk, "--size", "2MiB"]);
    kms.ok(&["disk", "check", disk]);
    kms.ok(&["snapshot", "delete", &snapshot]);
    kms.ok(&["disk", "show", disk]);
    kms.ok(&["disk", "delete", disk, "--now"]);
}

#[test]
fn rule_m01_calls_on_encrypted_disks_count_and_nothing_else_does() {
    let all = [1, 1, 1, 1, 1, 1];
    let without_reinit = [1, 1, 1, 1, 1, 0];
    let table = [
        ("tencent-cbs", without_reinit),
        ("alibaba-ecs-classic", all),
        ("alibaba-ecs", all),
        ("huawei-evs", all),
        ("sealblk", all),
    ];
    each(table, |kms, expected| {
        let kinds = ["create", "attach", "detach", "snapshot", "rollback", "reinit"];
        let counts = || kinds.map(|kind| kms.metered(kind));
        kms.ok(&["instance", "register", "vm"]);
        live(kms, "plain", "--encrypted=false");
        assert_eq!(counts(), [0; 6]);
        live(kms, "data", "--encrypted=true");
        assert_eq!(counts(), expected);
        // Nor do refused calls.
        kms.ok(&["instance", "register", "far", "--zone", "other-zone"]);
        kms.create("more", &[]);
        let expected = counts();
        kms.refused(&["disk", "create", "more", "--size", "1MiB"], "NameTaken", None);
        kms.refused(&["rollback", "more", "nothing"], "NotFound", None);
        kms.refused(&["attach", "more", "far"], "ZoneMismatch", Some("A01"));
        assert_eq!(counts(), expected);
        let usage = &kms.ok(&["usage"])["usage"][0];
        assert_eq!(
            (text(usage, "region"), text(usage, "month").len()),
            (kms::REGION, 7)
        );
    });
}

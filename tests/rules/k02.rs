//! K02: the disk service is granted the use of the KMS, by a Security Administrator alone.

use sealblk_e2e::Kms;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms;

use crate::scene::{is_root, mark, marked, serve_users};

const CREATE: [&str; 5] = ["disk", "create", "data", "--size", "1MiB"];
/// Users of one account.
const OPERATOR: u32 = 1_900_000_001;
const SECURITY: u32 = 1_900_000_002;

#[test]
fn rule_k02_only_a_security_administrator_grants_and_others_are_told_to_ask_one() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::of_profile("huawei-evs", 0);
    let users = [
        (OPERATOR, "acme", "operator"),
        (SECURITY, "acme", "security-administrator"),
    ];
    serve_users(&mut kms, &users);
    let refused = |words: &[&str], code: &str| kms.sealctl_as(OPERATOR, words).refusal(code, Some("K02"));
    for verb in ["grant", "revoke"] {
        let sentence = refused(&["kms", verb], "NotSecurityAdministrator");
        assert!(sentence.contains("ask somebody"), "{sentence}");
    }
    let sentence = refused(&CREATE, "KmsNotGranted");
    assert!(sentence.contains("Security Administrator"), "{sentence}");
    kms.sealctl_as(SECURITY, &["kms", "grant"]).text();
    kms.sealctl_as(OPERATOR, &CREATE).text();
}

#[test]
fn rule_k02_what_is_attached_outlives_the_grant() {
    let kms = Kms::of_profile("huawei-evs", 0);
    kms.ok(&["kms", "grant"]);
    kms.attached();
    kms.ok(&["kms", "revoke"]);
    kms.refused(
        &["disk", "create", "more", "--size", "1MiB"],
        "KmsNotGranted",
        Some("K02"),
    );
    assert!(kms.backend("data").is_some());
    kms.ok(&["detach", "data", "--force"]);
    kms.refused(&["attach", "data", "vm"], "KmsNotGranted", Some("K02"));
    kms.ok(&["kms", "grant"]);
    kms.ok(&["attach", "data", "vm"]);
}

/// What is said of it in `sealctl kms revoke --help` and docs/operating.md.
#[test]
fn rule_k02_a_revoked_grant_stops_what_uses_keys_anew_and_nothing_else() {
    let kms = Kms::of_profile("huawei-evs", 0);
    kms.ok(&["kms", "grant"]);
    let attachment = kms.attached();
    kms.create("idle", &[]);
    kms.create("other", &[]);
    kms.create("plain", &["--encrypted=false"]);
    kms.create("raw", &["--store", "raw"]);
    kms.ok(&["snapshot", "create", "data", "one"]);
    kms.ok(&["image", "create", "sealed", "--snapshot", "data/one"]);
    kms.ok(&["image", "create", "open", "--disk", "plain"]);
    kms.ok(&["backup", "create", "idle", "kept"]);
    kms.ok(&["kms", "revoke"]);
    let file = kms.path_text("export.img");
    for stopped in [
        &["disk", "create", "new", "--size", "1MiB"][..],
        &["disk", "create", "new", "--snapshot", "data/one"],
        &["disk", "create", "new", "--image", "sealed"],
        &["disk", "reinit", "raw"],
        &["attach", "idle", "vm"],
        &["disk", "copy", "idle", "other"],
        &["disk", "copy", "plain", "other"],
        &["disk", "export", "idle", &file, "--decrypt"],
        &["image", "copy", "open", "sealed-anew", "--encrypt"],
        &["backup", "create", "idle", "more"],
        &["backup", "create", "more", "--snapshot", "data/one"],
        &["backup", "restore", "kept", "new"],
    ] {
        kms.refused(stopped, "KmsNotGranted", Some("K02"));
    }
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    mark(&mut guest, 3);
    kms.ok(&["snapshot", "create", "data", "two"]);
    kms.ok(&["disk", "resize", "idle", "--size", "2MiB"]);
    kms.ok(&["snapshot", "create", "idle", "three"]);
    kms.ok(&["rollback", "idle", "three"]);
    kms.ok(&["disk", "reinit", "idle"]);
    kms.ok(&["disk", "check", "idle"]);
    kms.ok(&["backend", "restart", "data"]);
    assert_eq!(marked(&mut guest), 3);
    drop(guest);
    kms.ok(&["detach", "data", "--force"]);
    kms.ok(&["key", "create", "mine"]);
    kms.ok(&["image", "delete", "sealed"]);
    kms.ok(&["backup", "delete", "kept"]);
    kms.ok(&["snapshot", "delete", "data/two"]);
    for disk in ["data", "idle", "other"] {
        kms.ok(&["disk", "delete", disk]);
    }
    kms.create("nothing", &["--encrypted=false"]);
}

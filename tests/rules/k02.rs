//! K02: the disk service is granted the use of the KMS, by a Security Administrator alone.

use sealblk_e2e::Kms;

use crate::scene::{is_root, serve_users};

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
    kms.ok(&["detach", "data"]);
    kms.refused(&["attach", "data", "vm"], "KmsNotGranted", Some("K02"));
    kms.ok(&["kms", "grant"]);
    kms.ok(&["attach", "data", "vm"]);
}

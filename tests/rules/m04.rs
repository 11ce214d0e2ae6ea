//! M04: every decision is in an append-only, hash-chained log, or is not made.

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::kms::{Kms, text};

use serde_json::json;

use crate::scene::{audited, is_root, serve_users};

const CREATE: [&str; 5] = ["disk", "create", "data", "--size", "1MiB"];

#[test]
fn rule_m04_every_decision_is_recorded_and_the_log_verifies() {
    let mut kms = Kms::inactive();
    kms.refused(&CREATE, "KmsNotActivated", Some("K01"));
    kms.ok(&["kms", "activate"]);
    kms.ok(&CREATE);
    assert_eq!(
        ["allowed", "refused"].map(|decision| audited(&kms, "disk.create", decision)),
        [1, 1]
    );
    let records = kms.ok(&["audit"])["audit"].as_array().unwrap().clone();
    let refused = records.iter().find(|record| record["decision"] == "refused");
    let words = ["call", "code", "rule"].map(|field| text(refused.unwrap(), field));
    assert_eq!(words, ["disk.create", "KmsNotActivated", "K01"]);
    for (number, record) in (1..).zip(&records) {
        let uid = rustix::process::getuid().as_raw();
        assert_eq!((&record["seq"], &record["uid"]), (&json!(number), &json!(uid)));
        assert_eq!(text(record, "hash").len(), 64);
    }
    assert_eq!(kms.ok(&["audit", "--after", "1"])["audit"], json!(records[1..]));
    let head = kms.ok(&["audit", "verify"]);
    let newest = &kms.ok(&["audit", "--limit", "1"])["audit"][0];
    assert_eq!((&head["seq"], &head["hash"]), (&newest["seq"], &newest["hash"]));
    let head = format!("{}:{}", head["seq"], text(&head, "hash"));
    kms.ok(&["disk", "delete", "data", "--now"]);
    kms.ok(&["audit", "verify", "--head", &head]);
    let other = format!("1:{}", "0".repeat(64));
    kms.refused(&["audit", "verify", "--head", &other], "AuditBroken", Some("M04"));
    kms.stop();
    let mut catalogue = Catalogue::open(&kms.state());
    for change in ["DELETE FROM audit", "UPDATE audit SET decision = 'allowed'"] {
        assert!(catalogue.try_execute(change).unwrap_err().contains("M04"));
    }
}

#[test]
fn rule_m04_what_cannot_be_recorded_is_not_done() {
    let mut kms = Kms::start();
    kms.stop();
    let full = "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END";
    Catalogue::open(&kms.state()).execute(full);
    kms.serve();
    kms.refused(&CREATE, "AuditFailed", Some("M04"));
    // Nor is a refusal told that cannot be recorded.
    let too_small = ["disk", "create", "data", "--size", "1"];
    kms.refused(&too_small, "AuditFailed", Some("M04"));
    kms.refused(&["instance", "register", "more"], "AuditFailed", Some("M04"));
    kms.stop();
    Catalogue::open(&kms.state()).execute("DROP TRIGGER no_more");
    kms.serve();
    kms.ok(&CREATE);
}

#[test]
fn rule_m04_how_many_records_other_accounts_have_is_theirs() {
    const AUDITOR: u32 = 1_900_000_011;
    if !is_root() {
        return;
    }
    let mut kms = Kms::start();
    serve_users(&mut kms, &[(AUDITOR, "acme", "auditor")]);
    let verify = || kms.sealctl_as(AUDITOR, &["-o", "json", "audit", "verify"]).json();
    kms.sealctl_as(AUDITOR, &CREATE).refusal("NotAuthorized", None);
    let records = kms
        .sealctl_as(AUDITOR, &["-o", "json", "audit", "--limit", "1"])
        .json();
    let own = &records["audit"][0];
    for disk in ["one", "two"] {
        kms.create(disk, &[]);
        let head = verify();
        assert_eq!((&head["seq"], &head["hash"]), (&own["seq"], &own["hash"]));
    }
    let whole = kms.ok(&["audit", "verify"]);
    assert!(whole["seq"].as_u64() > own["seq"].as_u64());
    // It covers all that came before it.
    let noted = format!("{}:{}", own["seq"], text(own, "hash"));
    kms.sealctl_as(AUDITOR, &["audit", "verify", "--head", &noted])
        .text();
}

//! A07: who detaches a disk whose key is unusable is warned, and needs to insist.

use sealblk_e2e::Kms;
use sealblk_e2e::catalogue::Catalogue;

use crate::scene::{open_gate, with_customer_key};

#[test]
fn rule_a07_a_detach_that_cannot_be_undone_needs_force() {
    let kms = with_customer_key();
    kms.ok(&["attach", "data", "vm"]);
    kms.ok(&["key", "disable", "mine"]);
    let sentence = kms.refused(&["detach", "data"], "DetachNeedsForce", Some("A07"));
    let key = kms.disk("data")["key"].as_str().unwrap().to_owned();
    assert!(
        sentence.contains("--force") && sentence.contains(&key),
        "{sentence}"
    );
    assert!(kms.backend("data").is_some());
    kms.ok(&["detach", "data", "--force"]);
    kms.refused(&["attach", "data", "vm"], "KeyNotUsable", Some("A05"));
    kms.ok(&["key", "enable", "mine"]);
    kms.ok(&["attach", "data", "vm"]);
    kms.ok(&["detach", "data"]);
}

/// Two months of the key's fee are owed, and the balance is for none.
fn owe(kms: &mut Kms) {
    kms.stop();
    Catalogue::open(&kms.state()).execute(
        "UPDATE keys SET fee_month = strftime('%Y-%m', 'now', 'start of month', '-2 months') WHERE origin <> 'service';
         UPDATE accounts SET balance = 0;",
    );
    kms.serve();
}

#[test]
fn rule_a07_an_unpaid_fee_and_a_revoked_grant_count_like_a_disabled_key() {
    for (profile, code, rule, words) in [
        ("alibaba-ecs", "KeyFeeUnpaid", "M03", "fee"),
        ("huawei-evs", "KmsNotGranted", "K02", "grant"),
    ] {
        let mut kms = Kms::of_profile(profile, 100_000_000);
        open_gate(&kms);
        kms.ok(&["instance", "register", "vm"]);
        kms.ok(&["key", "create", "mine"]);
        kms.create("data", &["--key", "mine"]);
        kms.ok(&["attach", "data", "vm"]);
        assert_eq!(kms.disk("data")["warnings"].as_array().unwrap().len(), 0);
        match rule {
            "M03" => owe(&mut kms),
            _ => drop(kms.ok(&["kms", "revoke"])),
        }
        let warnings = kms.disk("data")["warnings"].to_string();
        assert!(warnings.contains("A06") && warnings.contains(words), "{warnings}");
        let status = kms.ok(&["kms", "status"])["warnings"].to_string();
        assert!(status.contains("A06"), "{status}");
        let sentence = kms.refused(&["detach", "data"], "DetachNeedsForce", Some("A07"));
        assert!(
            sentence.contains("--force") && sentence.contains(words),
            "{sentence}"
        );
        assert!(kms.backend("data").is_some());
        kms.ok(&["detach", "data", "--force"]);
        kms.refused(&["attach", "data", "vm"], code, Some(rule));
        match rule {
            "M03" => kms.ok(&["account", "credit", "default", "100000000"]),
            _ => kms.ok(&["kms", "grant"]),
        };
        kms.ok(&["attach", "data", "vm"]);
        kms.ok(&["detach", "data"]);
    }
}

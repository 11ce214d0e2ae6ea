//! A07: who detaches a disk whose key is unusable is warned, and needs to insist.

use crate::scene::with_customer_key;

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

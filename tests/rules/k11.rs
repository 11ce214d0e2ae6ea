//! K11: the states of a key, and its deletion after some days.

use sealblk_e2e::eventually;
use sealblk_e2e::kms::text;

use crate::scene::{audited, key_state, with_customer_key};

#[test]
fn rule_k11_a_deletion_waits_is_acknowledged_and_can_be_cancelled() {
    let kms = with_customer_key();
    let schedule = |days| ["key", "schedule-deletion", "mine", "--days", days];
    for days in ["6", "31", "1096"] {
        kms.refused(&schedule(days), "InvalidDays", Some("K11"));
    }
    kms.refused(&schedule("7"), "KeyInUse", Some("K11"));
    let resources = kms.ok(&["key", "resources", "mine"]);
    assert_eq!(text(&resources["resources"][0], "name"), "data");
    kms.ok(&[&schedule("7")[..], &["--acknowledge"]].concat());
    assert_eq!(key_state(&kms, "mine"), "PendingDeletion");
    for verb in ["enable", "disable", "rotate"] {
        kms.refused(&["key", verb, "mine"], "KeyStateInvalid", Some("K11"));
    }
    assert_eq!(kms.ok(&["key", "cancel-deletion", "mine"])["state"], "Disabled");
    kms.refused(
        &["key", "cancel-deletion", "mine"],
        "KeyStateInvalid",
        Some("K11"),
    );
    kms.ok(&["key", "enable", "mine"]);
    kms.ok(&["attach", "data", "vm"]);
}

#[test]
fn rule_k11_longer_waits_are_the_operators_choice() {
    let mut kms = with_customer_key();
    kms.stop();
    kms.serve_with(&["--deletion-days-most", "1096"]);
    kms.ok(&[
        "key",
        "schedule-deletion",
        "mine",
        "--days",
        "1096",
        "--acknowledge",
    ]);
}

#[test]
fn rule_k11_a_use_before_the_deletion_day_raises_an_alarm() {
    let kms = with_customer_key();
    kms.ok(&["key", "schedule-deletion", "mine", "--acknowledge"]);
    let alarms = || audited(&kms, "key.alarm", "allowed");
    eventually("the day's alarm", || (alarms() == 1).then_some(()));
    kms.refused(&["attach", "data", "vm"], "KeyNotUsable", Some("A05"));
    assert_eq!(alarms(), 2);
}

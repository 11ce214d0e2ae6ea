//! A05: to attach is to need a key that is Enabled.

use sealblk_e2e::kms::text;

use crate::scene::with_customer_key;

#[test]
fn rule_a05_nothing_is_attached_or_made_under_a_key_that_is_not_enabled() {
    let kms = with_customer_key();
    kms.ok(&["snapshot", "create", "data", "one"]);
    let key = kms.ok(&["key", "show", "mine"]);
    let calls = [
        &["attach", "data", "vm"][..],
        &["disk", "create", "clone", "--snapshot", "one"],
        &["disk", "create", "new", "--size", "1MiB", "--key", "mine"],
    ];
    for (change, state) in [("disable", "Disabled"), ("schedule-deletion", "PendingDeletion")] {
        let acknowledged = &["--acknowledge"][..usize::from(change == "schedule-deletion")];
        kms.ok(&[&["key", change, "mine"], acknowledged].concat());
        for call in calls {
            let sentence = kms.refused(call, "KeyNotUsable", Some("A05"));
            assert!(
                sentence.contains(text(&key, "id")) && sentence.contains(state),
                "{sentence}"
            );
        }
    }
    kms.create("unconcerned", &[]);
    kms.ok(&["key", "cancel-deletion", "mine"]);
    kms.ok(&["key", "enable", "mine"]);
    for call in calls {
        kms.ok(call);
    }
}

//! K08: keys of the customer's own, where the profile has them.

use sealblk_e2e::kms::text;
use serde_json::json;

use crate::scene::{Side, assert_side, each, key_state, with_customer_key};

const NOT_OFFERED: Side = Err(("CustomerKeysNotOffered", "K08"));

#[test]
fn rule_k08_customer_keys_are_the_profiles_choice() {
    let table = [
        ("tencent-cbs", NOT_OFFERED),
        ("alibaba-ecs-classic", NOT_OFFERED),
        ("alibaba-ecs", Ok(())),
        ("huawei-evs", Ok(())),
        ("sealblk", Ok(())),
    ];
    each(table, |kms, side| {
        assert_side(kms, &["key", "create", "mine"], side);
        // Where there are no keys of the customer's, none is named.
        let create = ["disk", "create", "data", "--size", "1MiB", "--key", "mine"];
        assert_side(kms, &create, side.or(Err(("KeyNotAllowed", "K03"))));
    });
}

#[test]
fn rule_k08_a_customer_key_is_described_named_tagged_disabled_and_kept() {
    let kms = with_customer_key();
    let key = kms.ok(&["key", "show", "mine"]);
    assert_eq!(
        (text(&key, "origin"), text(&key, "state")),
        ("customer", "Enabled")
    );
    assert_eq!(kms.disk("data")["key"], key["id"]);
    assert_eq!(
        kms.ok(&["key", "list"])["keys"],
        json!([key]),
        "no service key is made for it"
    );
    kms.ok(&["key", "alias", "mine", "current"]);
    kms.ok(&["key", "tag", "mine", "owner=finance"]);
    let shown = kms.ok(&["key", "show", "current"]);
    assert_eq!(shown["tags"], json!({"owner": "finance"}));
    assert_eq!(kms.create("more", &["--key", "current"])["key"], key["id"]);
    for (verb, state) in [
        ("disable", "Disabled"),
        ("enable", "Enabled"),
        ("disable", "Disabled"),
    ] {
        kms.ok(&["key", verb, "mine"]);
        assert_eq!(key_state(&kms, "mine"), state);
    }
    let create = ["disk", "create", "new", "--size", "1MiB", "--key", "mine"];
    kms.refused(&create, "KeyNotUsable", Some("A05"));
    kms.refused(&["key", "create", "mine"], "NameTaken", None);
    kms.ok(&["key", "schedule-deletion", "mine", "--acknowledge"]);
    kms.ok(&["key", "cancel-deletion", "mine"]);
    kms.ok(&["key", "enable", "mine"]);
    kms.ok(&create);
}

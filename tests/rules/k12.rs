//! K12: a rotation gives a key a new version at once; data keys follow in the background, and data stays as it is.

use sealblk_e2e::keys::DiskKeys;

use crate::k10::import;
use crate::scene::{attach, briefly, mark, marked, with_customer_key};

#[test]
fn rule_k12_a_guest_goes_on_while_its_key_is_rotated() {
    let kms = with_customer_key();
    let before = DiskKeys::of(&kms.state(), "data");
    let mut guest = attach(&kms, "data");
    mark(&mut guest, 3);
    let pid = kms.backend("data");
    assert_eq!(kms.ok(&["key", "rotate", "mine"])["version"], 2);
    let state = kms.ok(&["key", "rewrap", "mine"]);
    assert_eq!(
        (&state["done"], &state["versions"]),
        (&state["total"], &serde_json::json!([2])),
        "it waits until the older version is retired"
    );
    assert_eq!((marked(&mut guest), kms.backend("data")), (3, pid));
    drop(guest);
    kms.ok(&["detach", "data", "--force"]);
    assert_eq!(kms.disk("data")["key_version"], 2);
    assert_eq!(briefly(&kms, "data", marked), 3);
    let after = DiskKeys::of(&kms.state(), "data");
    assert_ne!(before.master, after.master);
    assert_eq!(
        (before.data, before.xts),
        (after.data, after.xts),
        "data is not re-encrypted"
    );
}

#[test]
fn rule_k12_keys_that_are_not_enabled_or_were_imported_are_not_rotated() {
    let kms = with_customer_key();
    kms.ok(&["key", "disable", "mine"]);
    kms.refused(&["key", "rotate", "mine"], "KeyStateInvalid", Some("K11"));
    kms.ok(&["key", "create", "theirs", "--import"]);
    import(&kms, "theirs", &[1; 32]).text();
    kms.refused(&["key", "rotate", "theirs"], "KeyImported", Some("K12"));
}

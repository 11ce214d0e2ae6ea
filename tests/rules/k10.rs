//! K10: key material of one's own is imported, wrapped for transport.

use std::fs;

use sealblk_e2e::Outcome;
use sealblk_e2e::import::wrapped;
use sealblk_e2e::keys::DiskKeys;
use sealblk_e2e::kms::{Kms, text};

use crate::scene::{attach, key_state, mark};

/// Wraps the material and imports it into the key.
pub(crate) fn import(kms: &Kms, key: &str, material: &[u8]) -> Outcome {
    let [token, blob] = ["token", "blob"].map(|name| kms.path_text(name));
    let params = kms.ok(&["key", "import-params", key, "--token", &token]);
    fs::write(&blob, wrapped(text(&params, "public_key"), &[7; 32], material)).unwrap();
    kms.sealctl(&["key", "import", key, &blob, "--token", &token])
}

#[test]
fn rule_k10_a_key_waits_for_its_material_and_encrypts_with_it() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["key", "create", "mine", "--import"]);
    assert_eq!(key_state(&kms, "mine"), "PendingImport");
    let create = ["disk", "create", "data", "--size", "1MiB", "--key", "mine"];
    kms.refused(&create, "KeyNotUsable", Some("A05"));
    import(&kms, "mine", &[0x5a; 32]).text();
    assert_eq!(key_state(&kms, "mine"), "Enabled");
    kms.ok(&create);
    mark(&mut attach(&kms, "data"), 1);
    assert_eq!(DiskKeys::of(&kms.state(), "data").master, [0x5a; 32]);
}

#[test]
fn rule_k10_other_material_no_key_and_used_tokens_are_refused() {
    let kms = Kms::start();
    kms.ok(&["key", "create", "mine", "--import"]);
    kms.ok(&["key", "create", "made"]);
    kms.refused(&["key", "import-params", "made"], "KeyNotImported", Some("K10"));
    import(&kms, "mine", &[1; 16]).refusal("ImportInvalid", Some("K10"));
    assert_eq!(key_state(&kms, "mine"), "PendingImport");
    import(&kms, "mine", &[1; 32]).text();
    import(&kms, "mine", &[2; 32]).refusal("ImportDiffers", Some("K10"));
    import(&kms, "mine", &[1; 32]).text();
    let [token, blob] = ["token", "blob"].map(|name| kms.path_text(name));
    let again = ["key", "import", "mine", &blob, "--token", &token];
    kms.refused(&again, "ImportTokenInvalid", Some("K10"));
}

//! K13: approved algorithms alone; the one exception is named.

use std::fs;

use sealblk_e2e::Kms;
use sealblk_e2e::kms::text;

use crate::scene::with_customer_key;

#[test]
fn rule_k13_keys_are_for_aes_256_gcm_and_no_other_algorithm_can_be_asked_for() {
    let kms = with_customer_key();
    assert_eq!(
        text(&kms.ok(&["key", "show", "mine"]), "algorithm"),
        "AES-256-GCM"
    );
    assert!(kms.ok(&["kms", "status"])["root_key_note"].is_null());
    for words in [
        ["key", "create", "weak", "--algorithm", "AES-128-GCM"],
        ["disk", "create", "weak", "--cipher", "aes-128-xts"],
    ] {
        kms.sealctl(&words).usage_error();
    }
}

#[test]
fn rule_k13_a_root_key_under_a_passphrase_is_named_as_the_exception() {
    let mut kms = Kms::empty();
    let [right, wrong] = ["right", "wrong"].map(|name| kms.path_text(name));
    fs::write(&right, "correct horse battery staple").unwrap();
    fs::write(&wrong, "another passphrase").unwrap();
    let passphrase = ["--root-key", "passphrase", "--passphrase-file", &right];
    kms.daemon_command(&[&["init", "--region", "r"], &passphrase[..]].concat())
        .text();
    kms.serve_refused_with(&["--passphrase-file", &wrong])
        .refusal("WrongPassphrase", None);
    kms.serve_with(&["--passphrase-file", &right]);
    let status = kms.ok(&["kms", "status"]);
    let note = text(&status, "root_key_note");
    assert!(note.contains("Argon2id") && note.contains("K13"), "{note}");
}

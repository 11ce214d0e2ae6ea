//! K03: the first use makes exactly one service key, which is the service's alone.

use std::process::Stdio;

use sealblk_e2e::Outcome;
use sealblk_e2e::kms::{Kms, text};
use serde_json::Value;

use crate::scene::{PROFILES, each};

fn keys(kms: &Kms) -> Vec<Value> {
    kms.ok(&["key", "list"])["keys"].as_array().unwrap().clone()
}

/// Three callers at once.
fn create_at_once(kms: &Kms) {
    let children = ["one", "two", "three"].map(|name| {
        let mut program = kms.sealctl_program(&["disk", "create", name, "--size", "1MiB"]);
        program
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    for child in children {
        Outcome::from(child.wait_with_output().unwrap()).text();
    }
}

#[test]
fn rule_k03_first_uses_at_once_make_one_service_key_that_nobody_changes() {
    each(PROFILES.map(|profile| (profile, ())), |kms, ()| {
        assert_eq!(keys(kms), Vec::<Value>::new());
        create_at_once(kms);
        let keys = keys(kms);
        assert_eq!((keys.len(), &keys[0]["disks"]), (1, &3.into()));
        assert_eq!(text(&keys[0], "origin"), "service");
        let id = text(&keys[0], "id");
        assert_eq!(kms.ok(&["key", "show", id]), keys[0]);
        for verb in [
            "enable",
            "disable",
            "schedule-deletion",
            "cancel-deletion",
            "rotate",
        ] {
            kms.refused(&["key", verb, id], "ServiceKeyFixed", Some("K03"));
        }
        kms.refused(&["key", "tag", id, "a=b"], "ServiceKeyFixed", Some("K03"));
        // To name it is to name none.
        assert_eq!(kms.create("named", &["--key", id])["key"], keys[0]["id"]);
    });
}

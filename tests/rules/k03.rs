//! K03: the first use makes exactly one service key, which is the service's alone.

use std::process::Stdio;

use sealblk_e2e::Outcome;
use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::kms::{Kms, text};
use serde_json::Value;

use crate::scene::{PROFILES, Side, assert_side, each, open_gate};

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
        let words = ["origin", "state"].map(|field| text(&keys[0], field));
        assert_eq!(words, ["service", "Enabled"]);
        let id = text(&keys[0], "id");
        for disk in ["one", "two", "three"] {
            assert_eq!(kms.disk(disk)["key"], keys[0]["id"]);
        }
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
        kms.sealctl(&["key", "delete", id]).usage_error();
        kms.refused(&["disk", "delete", id], "NotFound", None);
        kms.refused(&["instance", "remove", id], "NotFound", None);
    });
}

#[test]
fn rule_k03_the_service_key_is_named_only_where_customers_have_keys() {
    const FIXED: Side = Err(("KeyNotAllowed", "K03"));
    let table = [
        ("tencent-cbs", FIXED),
        ("alibaba-ecs-classic", FIXED),
        ("alibaba-ecs", Ok(())),
        ("huawei-evs", Ok(())),
        ("sealblk", Ok(())),
    ];
    each(table, |kms, side| {
        let key = kms.create("first", &[])["key"].clone();
        let name = kms.ok(&["key", "show", text_of(&key)])["name"].clone();
        for (disk, wanted) in [("by-id", &key), ("by-name", &name)] {
            let create = ["disk", "create", disk, "--size", "1MiB", "--key", text_of(wanted)];
            assert_side(kms, &create, side);
            if side.is_ok() {
                // To name it is to name none.
                assert_eq!(kms.disk(disk)["key"], key);
            }
        }
        assert_eq!(keys(kms).len(), 1);
        // What is not named is given.
        assert_eq!(kms.create("more", &[])["key"], key);
    });
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn rule_k03_a_refused_first_use_makes_no_key() {
    let kms = Kms::start();
    let foreign = kms.path_text("foreign.img");
    std::fs::write(&foreign, b"precious").unwrap();
    let missing = kms.path_text("missing/disk.img");
    for (path, code) in [
        (&*foreign, "FileNotEmpty"),
        (&missing, "InvalidPath"),
        ("/dev/null", "NotAFileOrBlockDevice"),
        ("/proc", "InvalidPath"),
    ] {
        let create = ["disk", "create", "data", "--size", "1MiB", "--path", path];
        kms.refused(&create, code, None);
        assert_eq!(keys(&kms), Vec::<Value>::new(), "{code}");
    }
    kms.create("data", &["--path", &kms.path_text("data.img")]);
}

#[test]
fn rule_k03_no_other_key_is_chosen_where_the_profile_has_none_of_the_customers() {
    for profile in ["tencent-cbs", "alibaba-ecs-classic"] {
        let mut kms = Kms::of_profile(profile, 100_000);
        open_gate(&kms);
        kms.create("first", &[]);
        // One that no call has made.
        kms.stop();
        Catalogue::open(&kms.state()).execute(
            "INSERT INTO keys (id, account, region, name, origin, state, created)
                 SELECT 'key-customer', account, region, 'mine', 'customer', state, created FROM keys",
        );
        kms.serve();
        let create = ["disk", "create", "data", "--size", "1MiB", "--key", "mine"];
        kms.refused(&create, "KeyNotAllowed", Some("K03"));
    }
}

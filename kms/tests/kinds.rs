//! Kinds and types of disks, and what of disks and snapshots never changes: the rules, each by its number.

mod common;

use common::{Kms, MIB, json};

#[test]
fn rule_d02_local_disks_are_never_encrypted() {
    let kms = Kms::active();
    let local = |encrypted: Option<bool>| {
        json!({"name": "local", "size": MIB, "store": "raw", "kind": "local", "encrypted": encrypted})
    };
    for encrypted in [None, Some(true)] {
        let answer = kms.refuses("/v1/disks", local(encrypted), "LocalDisk", Some("D02"));
        assert!(answer["message"].to_string().contains("plain"), "{answer}");
    }
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
    assert_eq!(kms.get("/v1/keys")["keys"], json!([]), "no key was made for it");
    assert_eq!(kms.usage("create"), 0);
    let disk = kms.make("/v1/disks", local(Some(false)));
    assert_eq!((&disk["kind"], &disk["encrypted"]), (&json!("local"), &json!(false)));
    assert_eq!(
        kms.audit("disk.create"),
        [
            ("refused".to_owned(), "LocalDisk".to_owned()),
            ("refused".to_owned(), "LocalDisk".to_owned()),
            ("allowed".to_owned(), String::new())
        ]
    );
}

#[test]
#[should_panic(expected = "CHECK")]
fn rule_d02_not_even_in_the_catalogue() {
    let mut kms = Kms::active();
    kms.disk("data");
    kms.kill();
    kms.tamper("UPDATE volumes SET kind = 'local'");
}

/// Which types a profile permits is shown beside the check; this one permits all.
#[test]
fn rule_d02_every_type_of_cloud_disks_can_be_encrypted() {
    let kms = Kms::active();
    for wanted in ["basic", "efficiency", "ssd", "essd"] {
        let disk = kms.make(
            "/v1/disks",
            json!({"name": wanted, "size": MIB, "store": "raw", "type": wanted}),
        );
        assert_eq!(
            (&disk["kind"], &disk["type"], &disk["encrypted"]),
            (&json!("cloud"), &json!(wanted), &json!(true))
        );
        assert_eq!(kms.get(&format!("/v1/disks/{wanted}"))["type"], wanted);
    }
    let listed = kms.get("/v1/disks")["disks"].as_array().unwrap().clone();
    assert!(listed.iter().all(|disk| disk["type"] == disk["name"]), "{listed:?}");
    let disk = kms.disk("default");
    assert_eq!((&disk["kind"], &disk["type"]), (&json!("cloud"), &json!("ssd")));
    for (field, value) in [("type", "tape"), ("type", ""), ("kind", "remote")] {
        let body = json!({"name": "other", "size": MIB, field: value});
        kms.refuses("/v1/disks", body, "InvalidRequest", None);
    }
}

#[test]
fn rule_d02_a_disk_from_a_snapshot_has_its_kind_and_type() {
    let kms = Kms::active();
    let body = json!({"name": "data", "size": MIB, "encrypted": false, "kind": "local", "type": "essd"});
    kms.make("/v1/disks", body);
    kms.snapshot("data", "one");
    let disk = kms.make("/v1/disks", json!({"name": "clone", "snapshot": "one"}));
    assert_eq!((&disk["kind"], &disk["type"]), (&json!("local"), &json!("essd")));
    for (field, value) in [("kind", "cloud"), ("type", "ssd")] {
        let body = json!({"name": "other", "snapshot": "one", field: value});
        kms.refuses("/v1/disks", body, "InvalidRequest", None);
    }
    let same = json!({"name": "same", "snapshot": "one", "kind": "local", "type": "essd"});
    kms.make("/v1/disks", same);
}

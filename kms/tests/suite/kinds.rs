//! Kinds and types of disks, and what of disks and snapshots never changes: the rules, each by its number.

use crate::common::{Kms, MIB, Value, json, refused};

#[test]
fn rule_d02_local_disks_are_never_encrypted() {
    let kms = Kms::active();
    let local = |encrypted: Option<bool>| json!({"name": "local", "size": MIB, "store": "raw", "kind": "local", "encrypted": encrypted});
    for encrypted in [None, Some(true)] {
        let answer = kms.refuses("/v1/disks", local(encrypted), "LocalDisk", Some("D02"));
        assert!(answer["message"].to_string().contains("plain"), "{answer}");
    }
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
    assert_eq!(kms.get("/v1/keys")["keys"], json!([]), "no key was made for it");
    assert_eq!(kms.usage("create"), 0);
    let disk = kms.make("/v1/disks", local(Some(false)));
    assert_eq!(
        (&disk["kind"], &disk["encrypted"]),
        (&json!("local"), &json!(false))
    );
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
    assert!(
        listed.iter().all(|disk| disk["type"] == disk["name"]),
        "{listed:?}"
    );
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

fn refuses(kms: &Kms, path: &str, body: Value, code: &str, rule: Option<&str>) {
    let (status, answer) = kms.patch(path, body);
    refused(status, &answer, code, rule);
}

fn refusals(kms: &Kms, call: &str) -> Vec<String> {
    let decisions = kms.audit(call).into_iter();
    decisions
        .filter(|(decision, _)| decision == "refused")
        .map(|(_, code)| code)
        .collect()
}

#[test]
fn rule_d03_k09_encryption_and_key_of_a_disk_are_not_changed() {
    let kms = Kms::active();
    let data = kms.disk("data");
    let other = kms.plain("plain");
    let path = "/v1/disks/data";
    for (name, body, code, rule) in [
        ("data", json!({"encrypted": false}), "EncryptionFixed", "D03"),
        // Not even beside what could be done.
        (
            "data",
            json!({"name": "new", "encrypted": false}),
            "EncryptionFixed",
            "D03",
        ),
        ("plain", json!({"encrypted": true}), "EncryptionFixed", "D03"),
        ("plain", json!({"key": data["key"]}), "EncryptionFixed", "D03"),
        (
            "data",
            json!({"name": "new", "key": "another"}),
            "KeyFixed",
            "K09",
        ),
    ] {
        refuses(&kms, &format!("/v1/disks/{name}"), body, code, Some(rule));
    }
    for method in ["PUT", "POST"] {
        let (status, answer) = kms.call(method, path, Some(br#"{"encrypted": false}"#));
        refused(status, &answer, "MethodNotAllowed", None);
    }
    assert_eq!(
        refusals(&kms, "disk.set"),
        [
            "EncryptionFixed",
            "EncryptionFixed",
            "EncryptionFixed",
            "EncryptionFixed",
            "KeyFixed"
        ]
    );
    assert_eq!(kms.get(path), data);
    assert_eq!(kms.get("/v1/disks/plain")["encrypted"], other["encrypted"]);
    // To ask for what it is changes nothing.
    let same = json!({"encrypted": true, "key": data["key"]});
    assert_eq!(kms.patch(path, same), (200, data));
    refuses(&kms, path, json!({}), "InvalidRequest", None);
    refuses(&kms, path, json!({"size": MIB}), "InvalidRequest", None);
}

#[test]
fn rule_s01_k09_encryption_and_key_of_a_snapshot_are_not_changed() {
    let kms = Kms::active();
    let key = kms.layered("data")["key"].clone();
    kms.snapshot("data", "one");
    kms.plain("plain");
    kms.snapshot("plain", "two");
    let before = kms.get("/v1/snapshots");
    for (name, body, code, rule) in [
        (
            "one",
            json!({"encrypted": false}),
            "SnapshotEncryptionFixed",
            "S01",
        ),
        (
            "two",
            json!({"name": "new", "encrypted": true}),
            "SnapshotEncryptionFixed",
            "S01",
        ),
        ("two", json!({"key": key}), "SnapshotEncryptionFixed", "S01"),
        ("one", json!({"key": "another"}), "KeyFixed", "K09"),
    ] {
        refuses(&kms, &format!("/v1/snapshots/{name}"), body, code, Some(rule));
    }
    assert_eq!(
        refusals(&kms, "snapshot.set"),
        [
            "SnapshotEncryptionFixed",
            "SnapshotEncryptionFixed",
            "SnapshotEncryptionFixed",
            "KeyFixed"
        ]
    );
    assert_eq!(kms.get("/v1/snapshots"), before);
    let (status, answer) = kms.patch("/v1/snapshots/one", json!({"encrypted": true, "key": key}));
    assert_eq!((status, &answer["name"]), (200, &json!("one")));
    refuses(&kms, "/v1/snapshots/one", json!({}), "InvalidRequest", None);
}

#[test]
fn disks_and_snapshots_are_renamed() {
    let mut kms = Kms::active();
    let disk = kms.layered("data");
    kms.snapshot("data", "one");
    kms.snapshot("data", "two");
    kms.layered("other");
    kms.instance("vm");
    kms.attach("data", "vm");
    let (status, renamed) = kms.patch("/v1/disks/data", json!({"name": "new"}));
    assert_eq!(status, 200, "{renamed}");
    assert_eq!((&renamed["id"], &renamed["name"]), (&disk["id"], &json!("new")));
    assert_eq!(kms.call("GET", "/v1/disks/data", None).0, 404);
    assert_eq!(kms.get("/v1/disks/new")["id"], disk["id"]);
    let (status, renamed) = kms.patch("/v1/snapshots/one", json!({"name": "first"}));
    assert_eq!(status, 200, "{renamed}");
    assert_eq!(kms.get("/v1/snapshots/new%2Ffirst")["id"], renamed["id"]);
    for (path, name, code) in [
        ("/v1/disks/new", "other", "NameTaken"),
        ("/v1/disks/new", "-x", "InvalidName"),
        ("/v1/disks/no", "x", "NotFound"),
        ("/v1/snapshots/first", "two", "NameTaken"),
        ("/v1/snapshots/first", "a/b", "InvalidName"),
        ("/v1/snapshots/no", "x", "NotFound"),
    ] {
        refuses(&kms, path, json!({"name": name}), code, None);
    }
    kms.restart();
    assert_eq!(kms.get("/v1/disks/new")["id"], disk["id"]);
    assert_eq!(kms.usage("create"), 2, "a new name is no metered call");
}

#[test]
fn rule_s06_snapshots_do_not_leave_their_region() {
    let kms = Kms::active();
    kms.layered("data");
    kms.snapshot("data", "one");
    kms.plain("plain");
    kms.snapshot("plain", "two");
    for (snapshot, region, code, rule) in [
        ("one", "eu-2", "EncryptedSnapshotStays", Some("S06")),
        ("two", "eu-2", "UnknownRegion", None),
        ("one", "eu-1", "SameRegion", None),
        ("two", "eu-1", "SameRegion", None),
        ("two", "", "InvalidName", None),
        ("no", "eu-2", "NotFound", None),
    ] {
        let path = format!("/v1/snapshots/{snapshot}/copy");
        let answer = kms.refuses(&path, json!({"to_region": region}), code, rule);
        if code == "SameRegion" {
            assert!(answer["message"].to_string().contains("disk create"), "{answer}");
        }
    }
    assert_eq!(
        refusals(&kms, "snapshot.copy"),
        [
            "EncryptedSnapshotStays",
            "UnknownRegion",
            "SameRegion",
            "SameRegion",
            "InvalidName",
            "NotFound"
        ]
    );
    assert_eq!(kms.get("/v1/snapshots")["snapshots"].as_array().unwrap().len(), 2);
}

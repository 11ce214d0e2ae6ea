//! Backups: what is decided, and what they keep.

use crate::common;

use crate::common::{Kms, MIB, Value, json};

fn backup(kms: &Kms, disk: &str, name: &str) -> Value {
    kms.make("/v1/backups", json!({"disk": disk, "name": name}));
    until_state(kms, name, "available")
}

fn shown(kms: &Kms, name: &str) -> Value {
    kms.get(&format!("/v1/backups/{name}"))
}

fn until_state(kms: &Kms, name: &str, state: &str) -> Value {
    kms.until(state, || shown(kms, name)["state"] == state);
    shown(kms, name)
}

fn restore(kms: &Kms, backup: &str, disk: Value) -> Value {
    let disk = kms.make(&format!("/v1/backups/{backup}/restore"), json!({"disk": disk}));
    let path = format!("/v1/disks/{}", disk["id"].as_str().unwrap());
    kms.until("done", || kms.get(&path)["copy"]["phase"] == "done");
    kms.get(&path)
}

/// Disks `sealed` and `plain`.
fn with_disks(backend: &str) -> Kms {
    let kms = Kms::active_with_backend(backend);
    kms.layered("sealed");
    kms.plain("plain");
    kms
}

#[test]
fn rule_i03_a_backup_has_the_disk_s_attribute_and_is_restored_with_either() {
    let kms = with_disks("sealblk");
    let sealed = backup(&kms, "sealed", "b");
    let disk = kms.get("/v1/disks/sealed");
    assert_eq!(
        (&sealed["encrypted"], &sealed["lineage"], &sealed["key"]),
        (&json!(true), &disk["lineage"], &disk["key"])
    );
    let plain = backup(&kms, "plain", "p");
    assert_eq!(
        (&plain["encrypted"], &plain["key"]),
        (&json!(false), &Value::Null)
    );
    for (name, from, chosen, encrypted) in [
        ("r1", "b", Value::Null, true),
        ("r2", "b", json!(false), false),
        ("r3", "p", Value::Null, false),
        ("r4", "p", json!(true), true),
    ] {
        let restored = restore(&kms, from, json!({"name": name, "encrypted": chosen}));
        assert_eq!(restored["encrypted"], encrypted, "{name}");
        assert_eq!(restored["state"], "available");
        assert_ne!(restored["lineage"], disk["lineage"], "a disk of its own");
        // Which holds data.
        let copy = format!("/v1/disks/{name}/copy");
        kms.refuses(&copy, json!({"source": "plain"}), "DiskNotEmpty", Some("D04"));
    }
    assert_eq!(kms.get("/v1/backups")["backups"].as_array().unwrap().len(), 2);
    assert_eq!(kms.audit("backup.create").len(), 2);
    assert_eq!(kms.audit("backup.restore").len(), 4);
    assert_eq!(
        kms.usage("create"),
        3,
        "a backup is no metered call, a restored encrypted disk is a create"
    );
}

#[test]
fn rule_i04_a_restored_disk_has_the_backup_s_size_or_a_larger_one() {
    let kms = with_disks("sealblk");
    backup(&kms, "sealed", "b");
    assert_eq!(restore(&kms, "b", json!({"name": "same"}))["size"], MIB);
    assert_eq!(
        restore(&kms, "b", json!({"name": "larger", "size": 2 * MIB}))["size"],
        2 * MIB
    );
    let smaller = json!({"disk": {"name": "smaller", "size": MIB - 512}});
    kms.refuses("/v1/backups/b/restore", smaller, "SizeBelowSource", Some("I04"));
    kms.refuses(
        "/v1/backups/b/restore",
        json!({"disk": {"name": "same"}}),
        "NameTaken",
        None,
    );
    kms.refuses(
        "/v1/backups/none/restore",
        json!({"disk": {"name": "x"}}),
        "NotFound",
        None,
    );
    let (status, _) = kms.call("GET", "/v1/disks/smaller", None);
    assert_eq!(status, 404);
}

#[test]
fn rule_k14_the_key_lasts_until_the_last_backup_is_deleted() {
    let kms = with_disks("sealblk");
    let lineages = |kms: &Kms| kms.query("SELECT count(*) FROM lineages");
    let key = kms.get("/v1/disks/sealed")["key"].as_str().unwrap().to_owned();
    let made = backup(&kms, "sealed", "b");
    let resources = kms.get(&format!("/v1/keys/{key}/resources"));
    let kinds: Vec<_> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["kind"])
        .collect();
    assert!(
        kinds.contains(&&json!("backup")) && kinds.contains(&&json!("disk")),
        "{resources}"
    );
    kms.delete("/v1/disks/sealed?retention_days=0");
    assert_eq!(lineages(&kms), 1);
    let again = restore(&kms, "b", json!({"name": "again", "encrypted": false}));
    assert_eq!(again["state"], "available");
    let path = made["path"].as_str().unwrap().to_owned();
    assert!(path.contains("/backups/") && std::path::Path::new(&path).exists());
    kms.delete("/v1/backups/b");
    kms.until("its end", || lineages(&kms) == 0);
    assert!(!std::path::Path::new(&path).exists());
    assert_eq!(
        kms.query("SELECT count(*) FROM backups")
            + kms.query("SELECT count(*) FROM copies WHERE call = 'backup.create'"),
        0
    );
}

#[test]
fn rule_k11_what_a_running_copy_reads_is_among_what_the_key_protects() {
    let kms = with_disks("halts");
    let key = kms.get("/v1/disks/sealed")["key"].as_str().unwrap().to_owned();
    kms.snapshot("sealed", "one");
    kms.make("/v1/backups", json!({"snapshot": "sealed/one", "name": "b"}));
    kms.until("it goes on", || shown(&kms, "b")["copy"]["done"] == 4096);
    let protected = || {
        let listed = kms.get(&format!("/v1/keys/{key}/resources"));
        let rows = listed["resources"].as_array().unwrap().iter();
        let mut kinds: Vec<_> = rows
            .map(|row| (row["kind"].clone(), row["name"].clone(), row["state"].clone()))
            .collect();
        kinds.sort_by_key(|(kind, ..)| kind.to_string());
        let counted = kms.query("SELECT sum(protected) FROM keys");
        assert_eq!(counted, i64::try_from(kinds.len()).unwrap());
        kinds
    };
    kms.delete("/v1/snapshots/one");
    kms.delete("/v1/disks/sealed?retention_days=0");
    let row = |kind: &str, name: &str, state: &str| (json!(kind), json!(name), json!(state));
    let expected = [
        row("backup", "b", "creating"),
        row("copy", "backup.create", "copy"),
    ];
    assert_eq!(protected(), expected);
    kms.delete("/v1/backups/b");
    kms.until("the copy's end", || protected().is_empty());
}

#[test]
fn rule_d05_while_a_backup_is_made_neither_it_nor_the_disk_can_be_used() {
    let mut kms = with_disks("halts");
    kms.instance("vm");
    kms.attach("plain", "vm");
    kms.refuses(
        "/v1/backups",
        json!({"disk": "plain", "name": "p"}),
        "DiskAttached",
        None,
    );
    let body = json!({"disk": "sealed", "name": "b", "path": kms.path("elsewhere")});
    kms.make("/v1/backups", body);
    kms.until("it goes on", || shown(&kms, "b")["copy"]["done"] == 4096);
    assert_eq!(shown(&kms, "b")["state"], "creating");
    let attach = json!({"disk": "sealed", "instance": "vm"});
    kms.refuses("/v1/attachments", attach.clone(), "DiskNotAvailable", Some("D05"));
    let disk = json!({"disk": {"name": "x"}});
    kms.refuses("/v1/backups/b/restore", disk, "DiskNotAvailable", Some("D05"));
    kms.refuses(
        "/v1/backups",
        json!({"disk": "sealed", "name": "c"}),
        "DiskNotAvailable",
        Some("D05"),
    );
    // It goes on after a crash.
    kms.restart();
    kms.until("it goes on again", || shown(&kms, "b")["copy"]["done"] == 8192);
    kms.delete("/v1/backups/b");
    kms.until("its file's end", || {
        !std::path::Path::new(&kms.path("elsewhere")).exists()
    });
    kms.make("/v1/attachments", attach);
    kms.refuses(
        "/v1/backups",
        json!({"disk": "sealed", "name": "/"}),
        "InvalidName",
        None,
    );
}

#[test]
fn rule_a05_backups_are_made_and_restored_with_usable_keys_only() {
    let mut kms = with_disks("sealblk");
    backup(&kms, "sealed", "b");
    kms.refuses(
        "/v1/backups",
        json!({"disk": "plain", "name": "b"}),
        "NameTaken",
        None,
    );
    assert_eq!(kms.stop(), Some(0));
    kms.tamper("UPDATE keys SET state = 'Disabled'");
    kms.serve();
    kms.refuses(
        "/v1/backups",
        json!({"disk": "sealed", "name": "c"}),
        "KeyNotUsable",
        Some("A05"),
    );
    let disk = json!({"disk": {"name": "x", "encrypted": false}});
    kms.refuses("/v1/backups/b/restore", disk, "KeyNotUsable", Some("A05"));
    assert_eq!(kms.get("/v1/disks")["disks"].as_array().unwrap().len(), 2);
}

#[test]
fn rule_i03_a_backup_is_of_a_disk_or_of_a_snapshot() {
    let kms = with_disks("sealblk");
    kms.make("/v1/snapshots", json!({"disk": "sealed", "name": "s"}));
    for named in [
        json!({"name": "b"}),
        json!({"name": "b", "disk": "sealed", "snapshot": "s"}),
    ] {
        kms.refuses("/v1/backups", named, "InvalidRequest", None);
    }
    kms.refuses(
        "/v1/backups",
        json!({"name": "b", "snapshot": "no"}),
        "NotFound",
        None,
    );
    kms.make("/v1/backups", json!({"name": "b", "snapshot": "sealed/s"}));
    let backup = until_state(&kms, "b", "available");
    let disk = kms.get("/v1/disks/sealed");
    assert_eq!(
        (&backup["encrypted"], &backup["lineage"], &backup["disk"]),
        (&json!(true), &disk["lineage"], &disk["id"])
    );
}

#[test]
fn rule_d05_a_backup_that_is_being_restored_is_not_deleted() {
    let mut kms = with_disks("sealblk");
    let made = backup(&kms, "sealed", "b");
    assert_eq!(kms.stop(), Some(0));
    kms.behave("halts");
    kms.serve();
    kms.make("/v1/backups/b/restore", json!({"disk": {"name": "r"}}));
    kms.until("it goes on", || kms.get("/v1/disks/r")["copy"]["done"] == 4096);
    let (status, answer) = kms.call("DELETE", "/v1/backups/b", None);
    common::refused(status, &answer, "DiskNotAvailable", Some("D05"));
    assert!(std::path::Path::new(made["path"].as_str().unwrap()).exists());
    let again = json!({"disk": {"name": "again"}});
    kms.refuses("/v1/backups/b/restore", again, "DiskNotAvailable", Some("D05"));
    kms.make("/v1/disks/r/copy/cancel", json!({}));
    kms.delete("/v1/backups/b");
}

#[test]
fn rule_k02_backups_of_encrypted_data_are_made_and_restored_with_the_grant() {
    let kms = Kms::of_profile("huawei-evs", 0);
    kms.make("/v1/kms/grant", json!({}));
    kms.layered("sealed");
    kms.snapshot("sealed", "s");
    kms.plain("plain");
    backup(&kms, "sealed", "b");
    kms.make("/v1/kms/revoke", json!({}));
    for source in [
        json!({"name": "c", "disk": "sealed"}),
        json!({"name": "c", "snapshot": "s"}),
    ] {
        kms.refuses("/v1/backups", source, "KmsNotGranted", Some("K02"));
    }
    let disk = json!({"disk": {"name": "r", "encrypted": false}});
    kms.refuses("/v1/backups/b/restore", disk, "KmsNotGranted", Some("K02"));
    backup(&kms, "plain", "p");
}

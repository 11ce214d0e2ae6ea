//! The bin: a deleted disk can be restored until its days are over (rule K14).

use crate::common::{Kms, MIB, Value, json, refused};

fn deleted(kms: &Kms) -> Vec<Value> {
    kms.get("/v1/disks?deleted=true")["disks"]
        .as_array()
        .unwrap()
        .clone()
}

fn in_bin(kms: &Kms) -> u64 {
    kms.get("/v1/kms")["bin"]["disks"].as_u64().unwrap()
}

/// The newest of the audit log's records that are found by a disk's id.
fn newest_of(kms: &Kms, disk: &str) -> Value {
    let page = kms.get(&format!("/v1/audit?limit=1000&disk={disk}"));
    page["audit"].as_array().unwrap().last().unwrap().clone()
}

fn restore(kms: &Kms, disk: &str, name: &str) -> Value {
    kms.make(&format!("/v1/disks/{disk}/restore"), json!({"name": name}))
}

#[test]
fn a_deleted_disk_is_in_its_own_list_alone_and_comes_back_as_it_was() {
    let kms = Kms::active();
    kms.instance("vm");
    let created = kms.layered("data");
    let id = created["id"].as_str().unwrap();
    let snapshot = kms.snapshot("data", "one");
    let shown = kms.get("/v1/disks/data");
    let answer = kms.delete("/v1/disks/data");
    assert_eq!((&answer["id"], &answer["state"]), (&json!(id), &json!("deleted")));
    assert!(answer["removal"].as_str().unwrap() > answer["deleted"].as_str().unwrap());
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
    assert_eq!(deleted(&kms).len(), 1);
    assert_eq!(deleted(&kms)[0], answer);
    assert_eq!((in_bin(&kms), &kms.get("/v1/kms")["disks"]), (1, &json!(0)));
    assert!(kms.get("/v1/kms")["bin"]["allocated"].as_u64().unwrap() > 0);
    // Its name is free at once, its snapshot is there, and knows a deleted disk.
    kms.layered("data");
    let listed = kms.get("/v1/snapshots");
    assert_eq!(listed["snapshots"][0]["id"], snapshot["id"]);
    assert_eq!(listed["snapshots"][0]["disk_name"], json!(null));
    kms.make("/v1/disks", json!({"name": "clone", "snapshot": snapshot["id"]}));
    kms.refuses(&format!("/v1/disks/{id}/restore"), json!({}), "NameTaken", None);
    kms.refuses(
        &format!("/v1/disks/{id}/restore"),
        json!({"name": "no name"}),
        "InvalidName",
        None,
    );
    let restored = restore(&kms, id, "data-2");
    for field in [
        "id", "serial", "key", "lineage", "size", "created", "path", "on_full", "state",
    ] {
        assert_eq!(restored[field], created[field], "{field}");
    }
    let again = kms.get("/v1/disks/data-2");
    assert_eq!(
        (&again["deleted"], &again["removal"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(again["snapshots"][0]["id"], shown["snapshots"][0]["id"]);
    assert_eq!(again["snapshots"][0]["disk_name"], "data-2");
    assert_eq!(in_bin(&kms), 0);
    kms.attach("data-2", "vm");
    assert_eq!(kms.audit("disk.restore").last().unwrap().0, "allowed");
    assert_eq!(
        kms.usage("create"),
        3,
        "neither deleting nor restoring is metered"
    );
}

#[test]
fn nothing_is_done_with_a_deleted_disk_but_restoring_and_removing() {
    let kms = Kms::active();
    kms.instance("vm");
    let id = kms.layered("data")["id"].as_str().unwrap().to_owned();
    kms.snapshot("data", "one");
    kms.layered("other");
    kms.delete("/v1/disks/data");
    for named in ["data", &id] {
        let disk = format!("/v1/disks/{named}");
        for (path, body) in [
            (
                "/v1/attachments".to_owned(),
                json!({"disk": named, "instance": "vm"}),
            ),
            ("/v1/snapshots".to_owned(), json!({"disk": named, "name": "two"})),
            ("/v1/images".to_owned(), json!({"disk": named, "name": "base"})),
            ("/v1/backups".to_owned(), json!({"disk": named, "name": "monday"})),
            (format!("{disk}/resize"), json!({"size": 2 * MIB})),
            (format!("{disk}/rollback"), json!({"snapshot": "one"})),
            (format!("{disk}/reinit"), json!({})),
            (format!("{disk}/check"), json!({})),
            (format!("{disk}/detach"), json!({})),
            (format!("{disk}/copy"), json!({"source": "other"})),
            ("/v1/disks/other/copy".to_owned(), json!({"source": named})),
            (
                format!("{disk}/export"),
                json!({"file": kms.path("file"), "decrypt": true}),
            ),
        ] {
            let answer = kms.refuses(&path, body, "DiskDeleted", None);
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains(&format!("disk restore {id}")), "{message}");
            let record = newest_of(&kms, &id);
            assert_eq!(record["request"], answer["request"], "{path}");
        }
        for (method, path) in [
            ("GET", disk.clone()),
            ("GET", format!("/v1/snapshots?disk={named}")),
            ("DELETE", disk.clone()),
            ("DELETE", format!("{disk}?retention_days=9")),
        ] {
            let (status, answer) = kms.call(method, &path, None);
            assert_eq!(status, 404, "{method} {path}");
            refused(status, &answer, "DiskDeleted", None);
        }
        let (status, answer) = kms.patch(&disk, json!({"name": "new"}));
        refused(status, &answer, "DiskDeleted", None);
    }
    // By its name it is not removed: a call that is repeated must not reach another disk.
    let (status, answer) = kms.call("DELETE", "/v1/disks/data?retention_days=0", None);
    refused(status, &answer, "DiskDeleted", None);
    for wrong in ["366", "-1", "seven", ""] {
        let path = format!("/v1/disks/other?retention_days={wrong}");
        let (status, answer) = kms.call("DELETE", &path, None);
        refused(status, &answer, "InvalidRequest", None);
    }
}

#[test]
fn deleted_disks_of_one_name_are_told_by_their_ids() {
    let kms = Kms::active();
    let ids = [(); 2].map(|()| {
        let id = kms.layered("data")["id"].as_str().unwrap().to_owned();
        kms.delete("/v1/disks/data?retention_days=365");
        id
    });
    let (status, answer) = kms.call("GET", "/v1/disks/data", None);
    refused(status, &answer, "DiskDeleted", None);
    kms.refuses("/v1/disks/data/restore", json!({}), "AmbiguousName", None);
    restore(&kms, &ids[0], "data");
    kms.refuses("/v1/disks/data/restore", json!({}), "NameTaken", None);
    kms.refuses(
        &format!("/v1/disks/{}/restore", ids[0]),
        json!({}),
        "NotFound",
        None,
    );
    kms.refuses("/v1/disks/other/restore", json!({}), "NotFound", None);
    // The one that is there, and then the one in the bin.
    kms.delete("/v1/disks/data?retention_days=0");
    assert_eq!(in_bin(&kms), 1);
    kms.delete(&format!("/v1/disks/{}?retention_days=0", ids[1]));
    assert_eq!(in_bin(&kms), 0);
    assert_eq!(kms.query("SELECT count(*) FROM volumes"), 0);
    assert_eq!(kms.query("SELECT count(*) FROM lineages"), 0);
}

/// Rule K11: what a key protects is also what can be restored.
#[test]
fn a_key_protects_its_disks_in_the_bin() {
    let kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    let body = json!({"name": "data", "size": MIB, "key": "mine"});
    let id = kms.make("/v1/disks", body)["id"].as_str().unwrap().to_owned();
    kms.delete("/v1/disks/data");
    let resources = &kms.get("/v1/keys/mine/resources")["resources"];
    assert_eq!(
        *resources,
        json!([{"id": id, "name": "data", "kind": "disk", "state": "deleted"}])
    );
    assert_eq!(kms.get("/v1/keys/mine")["disks"], 1);
    let schedule = "/v1/keys/mine/schedule-deletion";
    let answer = kms.refuses(schedule, json!({}), "KeyInUse", Some("K11"));
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("1 of them in the bin"),
        "{answer}"
    );
    kms.make(schedule, json!({"acknowledge": true}));
    // It comes back as a disk whose key cannot be used, and says so.
    let restored = kms.make("/v1/disks/data/restore", json!({}));
    assert!(
        restored["warnings"][0]
            .as_str()
            .unwrap()
            .contains("PendingDeletion"),
        "{restored}"
    );
    kms.delete("/v1/disks/data");
    kms.delete(&format!("/v1/disks/{id}?retention_days=0"));
    assert_eq!(kms.get("/v1/keys/mine/resources")["resources"], json!([]));
    assert_eq!(kms.get("/v1/keys/mine")["disks"], 0);
}

/// With snapshots, their clones and without any.
#[test]
fn a_disk_that_leaves_the_bin_leaves_what_others_need() {
    let kms = Kms::active();
    let data = kms.layered("data");
    let snapshot = kms.snapshot("data", "one");
    kms.make("/v1/disks", json!({"name": "clone", "snapshot": "data/one"}));
    let file = std::path::PathBuf::from(data["path"].as_str().unwrap());
    kms.delete("/v1/disks/data");
    // What the disk in the bin reads stays when its snapshot is deleted.
    kms.delete(&format!("/v1/snapshots/{}", snapshot["id"].as_str().unwrap()));
    kms.delete("/v1/disks/clone");
    assert!(file.exists());
    restore(&kms, "data", "data");
    restore(&kms, "clone", "clone");
    let clone = kms.get("/v1/disks/clone");
    assert_eq!(clone["snapshot"], snapshot["id"]);
    kms.delete("/v1/disks/data");
    kms.delete(&format!(
        "/v1/disks/{}?retention_days=0",
        data["id"].as_str().unwrap()
    ));
    assert!(file.exists(), "the clone reads it");
    assert_eq!(kms.query("SELECT count(*) FROM lineages"), 1);
    kms.delete("/v1/disks/clone");
    assert!(file.exists(), "and may come back");
    kms.delete(&format!(
        "/v1/disks/{}?retention_days=0",
        clone["id"].as_str().unwrap()
    ));
    kms.until("all files are gone", || {
        std::fs::read_dir(kms.state().join("disks")).unwrap().count() == 0
    });
    assert_eq!(kms.query("SELECT count(*) FROM lineages"), 0);
}

/// It would be there again, and take its space for ever, when the disk is restored.
#[test]
fn a_snapshot_of_a_disk_in_the_bin_is_deleted_in_its_store() {
    let kms = Kms::active();
    let data = kms.layered("data");
    kms.snapshot("data", "one");
    kms.delete("/v1/disks/data");
    kms.delete("/v1/snapshots/one");
    assert_eq!(kms.changes(&data), ["Snapshot", "DeleteSnapshot"]);
    assert_eq!(restore(&kms, "data", "data")["id"], data["id"]);
    assert_eq!(kms.get("/v1/disks/data")["snapshots"], json!([]));
}

#[test]
fn a_file_of_the_caller_stays_as_it_is_until_its_disk_leaves_the_bin() {
    let kms = Kms::active();
    let path = kms.path("mine");
    std::fs::write(&path, "").unwrap();
    let create = |name: &str| json!({"name": name, "size": MIB, "store": "raw", "path": path});
    let data = kms.make("/v1/disks", create("data"));
    let content = std::fs::read(&path).unwrap();
    kms.delete("/v1/disks/data");
    assert!(std::fs::read(&path).unwrap() == content);
    kms.refuses("/v1/disks", create("other"), "FileInUse", None);
    restore(&kms, "data", "data");
    kms.delete("/v1/disks/data");
    kms.delete(&format!(
        "/v1/disks/{}?retention_days=0",
        data["id"].as_str().unwrap()
    ));
    assert_eq!(
        std::fs::metadata(&path).unwrap().len(),
        0,
        "empty as it was taken"
    );
    kms.make("/v1/disks", create("other"));
}

#[test]
fn a_bin_outlives_crashes_and_is_in_backups_of_the_catalogue() {
    let mut kms = Kms::active();
    let data = kms.layered("data");
    kms.delete("/v1/disks/data?retention_days=1");
    kms.kill();
    kms.serve();
    assert_eq!(deleted(&kms).len(), 1);
    let file = kms.path("backup");
    assert!(kms.run(&["backup", &file]).status.success());
    let removal = deleted(&kms)[0]["removal"].clone();
    // What was restored and used after the backup is in the bin again, for as long as was promised.
    restore(&kms, "data", "data");
    assert_eq!(kms.stop(), Some(0));
    let state = kms.path("restored");
    let restored = kms.run(&["restore", "--state", &state, &file]);
    assert!(restored.status.success(), "{restored:?}");
    std::fs::copy(kms.state().join("root.key"), format!("{state}/root.key")).unwrap();
    for name in ["disks", "backups"] {
        let _ = std::fs::remove_dir_all(format!("{state}/{name}"));
        let _ = std::fs::rename(kms.state().join(name), format!("{state}/{name}"));
    }
    std::fs::rename(kms.state(), kms.path("lost")).unwrap();
    std::fs::rename(&state, kms.state()).unwrap();
    kms.serve();
    assert_eq!(deleted(&kms)[0]["id"], data["id"]);
    assert!(deleted(&kms)[0]["removal"].as_str() >= removal.as_str());
    assert_eq!(restore(&kms, "data", "data")["id"], data["id"]);
    assert!(std::path::Path::new(data["path"].as_str().unwrap()).exists());
}

#[test]
fn deleted_disks_are_listed_in_pages() {
    let kms = Kms::active();
    for number in 0..5 {
        let name = format!("data{number}");
        kms.disk(&name);
        kms.delete(&format!("/v1/disks/{name}"));
    }
    let mut ids = Vec::new();
    let mut path = "/v1/disks?deleted=true&limit=2".to_owned();
    loop {
        let page = kms.get(&path);
        let disks = page["disks"].as_array().unwrap().clone();
        assert!(disks.len() <= 2);
        ids.extend(disks.iter().map(|disk| disk["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/disks?deleted=true&limit=2&after={next}");
    }
    assert!(ids.len() == 5 && ids.is_sorted(), "{ids:?}");
    let (status, answer) = kms.call("GET", "/v1/disks?deleted=perhaps", None);
    refused(status, &answer, "InvalidRequest", None);
}

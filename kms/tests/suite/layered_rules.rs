//! The rules on snapshots, rollback, resize and disks from snapshots, each by its number, through the API: the allowed
//! and the refused side.

use crate::common;

use crate::common::{Kms, MIB, Value, json};

fn disk_with_snapshot(kms: &Kms) -> (Value, Value) {
    let disk = kms.layered("data");
    let snapshot = kms.snapshot("data", "one");
    kms.instance("vm");
    (disk, snapshot)
}

fn clone(kms: &Kms, name: &str, snapshot: &str) -> Value {
    kms.make("/v1/disks", json!({"name": name, "snapshot": snapshot}))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn rule_s01_snapshots_are_encrypted_as_their_disk_is() {
    let kms = Kms::active();
    let (disk, snapshot) = disk_with_snapshot(&kms);
    assert_eq!(
        (&snapshot["encrypted"], &snapshot["lineage"]),
        (&json!(true), &disk["lineage"])
    );
    kms.plain("plain");
    let snapshot = kms.snapshot("plain", "two");
    assert_eq!(
        (&snapshot["encrypted"], &snapshot["lineage"]),
        (&json!(false), &json!(null))
    );
    // There is no way to ask for anything else.
    let body = json!({"disk": "plain", "name": "three", "encrypted": true});
    kms.refuses("/v1/snapshots", body, "InvalidRequest", None);
    assert_eq!(kms.get("/v1/snapshots")["snapshots"].as_array().unwrap().len(), 2);
}

#[test]
fn rule_s02_k05_a_disk_from_a_snapshot_has_its_encryption_and_lineage() {
    let kms = Kms::active();
    let (disk, snapshot) = disk_with_snapshot(&kms);
    let other = clone(&kms, "clone", "one");
    assert_eq!(
        (
            &other["encrypted"],
            &other["lineage"],
            &other["key"],
            &other["snapshot"]
        ),
        (&json!(true), &disk["lineage"], &disk["key"], &snapshot["id"])
    );
    assert_eq!(kms.store(&other)["lineage"], disk["lineage"]);
    // Attached, it is given that lineage's key, and so is its source beside it.
    kms.attach("data", "vm");
    kms.attach("clone", "vm");
    assert_eq!(kms.audit("key.use").len(), 2);
    kms.plain("plain");
    kms.snapshot("plain", "two");
    let other = clone(&kms, "plain-clone", "two");
    assert_eq!(
        (&other["encrypted"], &other["lineage"]),
        (&json!(false), &json!(null))
    );
}

#[test]
fn rule_s03_a_disk_is_rolled_back_to_one_of_its_own_snapshots() {
    let kms = Kms::active();
    let (disk, _) = disk_with_snapshot(&kms);
    let answer = kms.make("/v1/disks/data/rollback", json!({"snapshot": "one"}));
    assert_eq!(answer["state"], "available");
    assert_eq!(kms.changes(&disk), ["Snapshot", "Rollback"]);
    let other = kms.layered("other");
    let foreign = kms.snapshot("other", "foreign");
    for snapshot in ["foreign", text(&foreign["id"]), "nothing"] {
        let body = json!({"snapshot": snapshot});
        kms.refuses("/v1/disks/data/rollback", body, "NotFound", None);
    }
    assert_eq!(kms.changes(&disk).len(), 2);
    assert_eq!(kms.changes(&other), ["Snapshot"]);
}

/// What the guest notices is the backend's part; here it is asked while it serves, and nothing is started beside it.
#[test]
fn rule_s04_a_snapshot_of_a_disk_in_use_is_taken_by_its_backend() {
    let kms = Kms::active();
    let (disk, _) = disk_with_snapshot(&kms);
    let attachment = kms.attach("data", "vm");
    let snapshot = kms.snapshot("data", "live");
    assert_eq!(snapshot["state"], "available");
    assert_eq!(kms.changes(&disk), ["Snapshot", "Snapshot"]);
    assert_eq!(json!(kms.backends()), json!([attachment["pid"]]));
    assert_eq!(kms.get("/v1/disks/data")["state"], "in-use");
}

#[test]
fn rule_s05_a_disk_in_use_is_rolled_back_only_by_force() {
    let kms = Kms::active();
    let (disk, _) = disk_with_snapshot(&kms);
    kms.attach("data", "vm");
    let rollback = |force| json!({"snapshot": "one", "force": force});
    let answer = kms.refuses(
        "/v1/disks/data/rollback",
        rollback(false),
        "DiskInUse",
        Some("S05"),
    );
    assert!(text(&answer["message"]).contains("--force"), "{answer}");
    kms.refuses("/v1/disks/data/reinit", json!({}), "DiskInUse", Some("S05"));
    assert_eq!(kms.changes(&disk), ["Snapshot"]);
    let answer = kms.make("/v1/disks/data/rollback", rollback(true));
    assert_eq!(answer["state"], "in-use");
    kms.make("/v1/disks/data/reinit", json!({"force": true}));
    assert_eq!(kms.changes(&disk), ["Snapshot", "Rollback", "Reinitialise"]);
    kms.make("/v1/disks/data/detach", json!({}));
    kms.make("/v1/disks/data/rollback", rollback(false));
}

#[test]
fn rule_s07_a_snapshot_goes_from_lists_at_once_and_from_its_store_with_the_last_dependant() {
    let kms = Kms::active();
    let (disk, snapshot) = disk_with_snapshot(&kms);
    clone(&kms, "clone", "one");
    clone(&kms, "other", "one");
    assert_eq!(kms.get("/v1/snapshots/one")["clones"], 2);
    assert_eq!(kms.delete("/v1/snapshots/one")["id"], snapshot["id"]);
    assert_eq!(kms.get("/v1/snapshots")["snapshots"], json!([]));
    assert_eq!(kms.get("/v1/disks/data")["snapshots"], json!([]));
    for path in [
        "/v1/snapshots/one",
        &format!("/v1/snapshots/{}", text(&snapshot["id"])),
    ] {
        assert_eq!(kms.call("GET", path, None).0, 404);
        assert_eq!(kms.call("DELETE", path, None).0, 404);
    }
    let again = json!({"name": "late", "snapshot": "one"});
    kms.refuses("/v1/disks", again, "NotFound", None);
    // The name is free; the clones still read what they were made from.
    kms.snapshot("data", "one");
    kms.delete("/v1/snapshots/one");
    kms.attach("clone", "vm");
    kms.make("/v1/disks/clone/detach", json!({}));
    assert_eq!(kms.store(&disk)["snapshots"][0]["hidden"], true);
    kms.delete("/v1/disks/clone?retention_days=0");
    assert_eq!(kms.store(&disk)["snapshots"].as_array().unwrap().len(), 1);
    kms.delete("/v1/disks/other?retention_days=0");
    assert_eq!(kms.store(&disk)["snapshots"], json!([]));
}

/// Deleting a disk keeps its snapshots; the file goes with its last dependant.
#[test]
fn rule_s07_k14_snapshots_outlive_their_disk_and_the_last_object_takes_file_and_key() {
    let kms = Kms::active();
    let (disk, snapshot) = disk_with_snapshot(&kms);
    let file = std::path::PathBuf::from(text(&disk["path"]));
    clone(&kms, "clone", "one");
    kms.delete("/v1/disks/data?retention_days=0");
    assert_eq!(kms.call("GET", "/v1/disks/data", None).0, 404);
    assert_eq!(
        kms.changes(&disk).last().unwrap(),
        "Reinitialise",
        "the space of its data comes back"
    );
    let listed = kms.get("/v1/snapshots")["snapshots"][0].clone();
    assert_eq!(
        (&listed["id"], &listed["disk"], &listed["disk_name"]),
        (&snapshot["id"], &disk["id"], &json!(null))
    );
    // A disk of the same name is another one.
    kms.layered("data");
    kms.refuses(
        "/v1/disks/data/rollback",
        json!({"snapshot": "one"}),
        "NotFound",
        None,
    );
    kms.delete("/v1/disks/data?retention_days=0");
    let second = clone(&kms, "second", "one");
    assert_eq!(second["lineage"], disk["lineage"]);
    kms.snapshot("second", "of-clone");
    kms.delete("/v1/disks/second?retention_days=0");
    kms.delete("/v1/disks/clone?retention_days=0");
    kms.delete("/v1/snapshots/one");
    assert!(file.exists(), "the second one's snapshot reads it");
    assert_eq!(lineages(&kms), 1);
    kms.delete("/v1/snapshots/of-clone");
    assert!(!file.exists());
    assert_eq!(std::fs::read_dir(kms.state().join("disks")).unwrap().count(), 0);
    assert_eq!(lineages(&kms), 0, "every wrapped copy of the key is destroyed");
}

fn lineages(kms: &Kms) -> i64 {
    kms.query("SELECT count(*) FROM lineages")
}

#[test]
fn rule_d05_states_while_a_disk_is_changed_refuse_other_operations() {
    let mut kms = Kms::active();
    disk_with_snapshot(&kms);
    for state in ["rolling-back", "resizing", "error-resizing"] {
        kms.kill();
        kms.tamper(&format!("UPDATE disks SET state = '{state}'"));
        kms.serve();
        assert_eq!(kms.get("/v1/disks/data")["state"], state);
        for (path, body) in [
            ("/v1/snapshots", json!({"disk": "data", "name": "two"})),
            ("/v1/disks/data/rollback", json!({"snapshot": "one"})),
            ("/v1/disks/data/reinit", json!({})),
            ("/v1/disks/data/check", json!({})),
            ("/v1/attachments", json!({"disk": "data", "instance": "vm"})),
        ] {
            kms.refuses(path, body, "DiskNotAvailable", Some("D05"));
        }
    }
    // A resize that has failed is ended by one that succeeds.
    let resized = kms.make("/v1/disks/data/resize", json!({"size": 2 * MIB}));
    assert_eq!(resized["state"], "available");
    kms.attach("data", "vm");
}

#[test]
fn rule_d06_a_disk_becomes_larger_attached_or_not_and_never_smaller() {
    let kms = Kms::active();
    let (disk, snapshot) = disk_with_snapshot(&kms);
    let resize = |size: u64| json!({"size": size});
    let resized = kms.make("/v1/disks/data/resize", resize(2 * MIB));
    assert_eq!(
        (&resized["size"], &resized["state"]),
        (&json!(2 * MIB), &json!("available"))
    );
    let attachment = kms.attach("data", "vm");
    let resized = kms.make("/v1/disks/data/resize", resize(3 * MIB));
    assert_eq!(
        (&resized["size"], &resized["state"]),
        (&json!(3 * MIB), &json!("in-use"))
    );
    assert_eq!(kms.store(&disk)["size"], 3 * MIB);
    assert_eq!(json!(kms.backends()), json!([attachment["pid"]]));
    for size in [3 * MIB - 512, 512] {
        kms.refuses("/v1/disks/data/resize", resize(size), "CannotShrink", Some("D06"));
    }
    for size in [0, 3 * MIB + 1, (64 << 40) + 512] {
        kms.refuses("/v1/disks/data/resize", resize(size), "InvalidSize", None);
    }
    assert_eq!(kms.get("/v1/disks/data")["size"], 3 * MIB);
    let path = format!("/v1/snapshots/{}", text(&snapshot["id"]));
    assert_eq!(kms.get(&path)["size"], MIB, "a snapshot has the size of its time");
    kms.disk("raw");
    kms.refuses("/v1/disks/raw/resize", resize(2 * MIB), "NotSupported", None);
}

/// A backend that is started again after a resize is told the new size.
#[test]
fn rule_d06_the_next_backend_has_the_new_size() {
    let kms = Kms::active();
    disk_with_snapshot(&kms);
    let attachment = kms.attach("data", "vm");
    kms.make("/v1/disks/data/resize", json!({"size": 2 * MIB}));
    let pid = attachment["pid"].as_i64().unwrap();
    common::kill(pid, "KILL");
    kms.until("a successor", || {
        let now = &kms.get("/v1/disks/data")["pid"];
        now.is_i64() && *now != attachment["pid"]
    });
    let log = kms
        .state()
        .join("run")
        .join(text(&attachment["id"]))
        .join("sealblk.log");
    let log = std::fs::read_to_string(log).unwrap();
    let sizes: Vec<_> = log.lines().filter(|line| line.starts_with("size ")).collect();
    assert_eq!(sizes, ["size 1048576", "size 2097152"]);
}

#[test]
fn rule_d07_a_disk_is_made_empty_and_keeps_its_id_and_snapshots() {
    let kms = Kms::active();
    let (disk, snapshot) = disk_with_snapshot(&kms);
    let answer = kms.make("/v1/disks/data/reinit", json!({}));
    assert_eq!((&answer["id"], &answer["size"]), (&disk["id"], &disk["size"]));
    assert_eq!(kms.changes(&disk), ["Snapshot", "Reinitialise"]);
    assert_eq!(kms.get("/v1/disks/data")["snapshots"][0]["id"], snapshot["id"]);
}

#[test]
fn rule_d07_m01_a_raw_disk_is_written_whole_over_crashes_and_charged_once() {
    let mut kms = Kms::active_with_backend("halts");
    kms.disk("raw");
    kms.instance("vm");
    let reinit = "/v1/disks/raw/reinit";
    kms.attach("raw", "vm");
    kms.refuses(reinit, json!({}), "DiskInUse", Some("S05"));
    kms.refuses(reinit, json!({"force": true}), "DiskAttached", None);
    kms.make("/v1/disks/raw/detach", json!({}));
    let begun = kms.make(reinit, json!({}));
    assert_eq!(
        (&begun["state"], &begun["copy"]["from"]),
        (&json!("creating"), &json!("zeros"))
    );
    kms.until("it goes on", || kms.get("/v1/disks/raw")["copy"]["done"] == 4096);
    kms.refuses(reinit, json!({}), "DiskNotAvailable", Some("D05"));
    let attach = json!({"disk": "raw", "instance": "vm"});
    kms.refuses("/v1/attachments", attach.clone(), "DiskNotAvailable", Some("D05"));
    kms.kill();
    kms.serve();
    kms.until("it goes on again", || {
        kms.get("/v1/disks/raw")["copy"]["done"] == 8192
    });
    kms.kill();
    kms.behave("sealblk");
    kms.serve();
    kms.until("its end", || kms.get("/v1/disks/raw")["copy"]["phase"] == "done");
    assert_eq!(kms.usage("reinit"), 1);
    // It reads zeros, and can be copied to without any question.
    assert_eq!(kms.query("SELECT written FROM volumes"), 0);
    kms.make("/v1/attachments", attach);
}

#[test]
fn rule_d10_a_disk_from_a_snapshot_inherits_its_encryption() {
    let kms = Kms::active();
    disk_with_snapshot(&kms);
    kms.plain("plain");
    kms.snapshot("plain", "two");
    for (snapshot, encrypted) in [("one", true), ("two", false)] {
        let wanted =
            |name: &str, encrypted: bool| json!({"name": name, "snapshot": snapshot, "encrypted": encrypted});
        kms.refuses(
            "/v1/disks",
            wanted("other", !encrypted),
            "EncryptionInherited",
            Some("D10"),
        );
        let disk = kms.make("/v1/disks", wanted(&format!("same-{snapshot}"), encrypted));
        assert_eq!(disk["encrypted"], encrypted);
    }
}

#[test]
fn rule_i04_a_disk_from_a_snapshot_has_its_size_or_a_larger_one() {
    let kms = Kms::active();
    disk_with_snapshot(&kms);
    assert_eq!(clone(&kms, "same", "one")["size"], MIB);
    let sized = |name: &str, size: u64| json!({"name": name, "snapshot": "one", "size": size});
    let larger = kms.make("/v1/disks", sized("larger", 3 * MIB));
    assert_eq!(larger["size"], 3 * MIB);
    assert_eq!(kms.store(&larger)["size"], 3 * MIB);
    kms.refuses(
        "/v1/disks",
        sized("smaller", MIB - 512),
        "SizeBelowSource",
        Some("I04"),
    );
    kms.refuses("/v1/disks", sized("odd", MIB + 1), "InvalidSize", None);
    // What the disk has become since does not matter.
    kms.make("/v1/disks/data/resize", json!({"size": 8 * MIB}));
    assert_eq!(clone(&kms, "later", "one")["size"], MIB);
}

#[test]
fn rule_k09_a_key_together_with_a_snapshot_is_refused() {
    let kms = Kms::active();
    let (disk, _) = disk_with_snapshot(&kms);
    let body = json!({"name": "clone", "snapshot": "one", "key": disk["key"]});
    kms.refuses("/v1/disks", body, "KeyInherited", Some("K09"));
    clone(&kms, "clone", "one");
}

#[test]
fn rule_m01_snapshot_rollback_and_reinit_of_encrypted_disks_are_metered_and_nothing_else() {
    let kms = Kms::active();
    disk_with_snapshot(&kms);
    kms.make("/v1/disks/data/rollback", json!({"snapshot": "one"}));
    kms.make("/v1/disks/data/reinit", json!({}));
    clone(&kms, "clone", "one");
    let counts = |kms: &Kms| ["create", "snapshot", "rollback", "reinit"].map(|kind| kms.usage(kind));
    assert_eq!(counts(&kms), [2, 1, 1, 1]);
    // Neither refused ones,
    kms.refuses(
        "/v1/disks/data/rollback",
        json!({"snapshot": "no"}),
        "NotFound",
        None,
    );
    kms.refuses(
        "/v1/snapshots",
        json!({"disk": "data", "name": "one"}),
        "NameTaken",
        None,
    );
    // nor these calls,
    kms.make("/v1/disks/data/resize", json!({"size": 2 * MIB}));
    kms.make("/v1/disks/data/check", json!({}));
    kms.delete("/v1/snapshots/one");
    // nor plain disks.
    kms.plain("plain");
    kms.snapshot("plain", "two");
    kms.make("/v1/disks/plain/rollback", json!({"snapshot": "two"}));
    kms.make("/v1/disks/plain/reinit", json!({}));
    clone(&kms, "plain-clone", "two");
    assert_eq!(counts(&kms), [2, 1, 1, 1]);
    // M04: all of them are recorded.
    for (call, allowed) in [
        ("snapshot.create", 2),
        ("rollback", 2),
        ("disk.reinit", 2),
        ("disk.resize", 1),
        ("disk.check", 1),
        ("snapshot.delete", 1),
    ] {
        let decisions = kms.audit(call);
        let found = decisions
            .iter()
            .filter(|(decision, _)| decision == "allowed")
            .count();
        assert_eq!(found, allowed, "{call}: {decisions:?}");
    }
}

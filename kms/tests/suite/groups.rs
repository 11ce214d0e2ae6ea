//! Snapshots of all disks of a machine as of one moment: all of them or none, whatever becomes of the processes.

use crate::common::{Kms, Value, json, kill, refused};

const PATH: &str = "/v1/instances/vm/snapshots";

/// With the layered disks `a` and `b`, attached to `vm`.
fn with_machine(behaviour: &str) -> (Kms, [Value; 2]) {
    let mut kms = Kms::active();
    kms.instance("vm");
    let disks = ["a", "b"].map(|name| kms.layered(name));
    kms.restart_with(behaviour);
    kms.attach("a", "vm");
    kms.attach("b", "vm");
    (kms, disks)
}

fn asked() -> Value {
    json!({"name": "one"})
}

fn snapshots(kms: &Kms) -> usize {
    kms.get("/v1/snapshots")["snapshots"].as_array().unwrap().len()
}

fn settled(kms: &Kms) {
    kms.until("all is ended", || kms.query("SELECT count(*) FROM intents") == 0);
}

/// No disk has a snapshot, and nothing was paid for; the next call finds nothing in its way.
fn assert_none(kms: &Kms, disks: &[Value; 2]) {
    settled(kms);
    assert_eq!((snapshots(kms), kms.usage("snapshot")), (0, 0), "{}", kms.log());
    for disk in disks {
        let store = kms.store(disk);
        let kept = store["snapshots"].as_array().unwrap().iter();
        assert!(kept.clone().all(|snapshot| snapshot["hidden"] == true), "{store}");
    }
    kms.make(PATH, asked());
    assert_eq!((snapshots(kms), kms.usage("snapshot")), (2, 2));
}

#[test]
fn each_disk_of_the_machine_has_a_snapshot_or_the_raw_one_is_named() {
    let (kms, disks) = with_machine("sealblk");
    let raw = kms.disk("raw");
    kms.attach("raw", "vm");
    kms.layered("elsewhere");
    let answer = kms.refuses(PATH, asked(), "NotSupported", None);
    let sentence = answer["message"].as_str().unwrap();
    assert!(
        sentence.contains("disk raw") && sentence.contains("--skip-raw"),
        "{sentence}"
    );
    let group = kms.make(PATH, json!({"name": "one", "skip_raw": true}));
    let of = |index: usize| &group["snapshots"][index];
    for (index, disk) in disks.iter().enumerate() {
        assert_eq!(
            (&of(index)["disk"], &of(index)["state"]),
            (&disk["id"], &json!("available"))
        );
    }
    assert_eq!(group["skipped"], json!([raw["id"]]));
    assert_eq!(kms.usage("snapshot"), 2);
    let allowed = ("allowed".to_owned(), String::new());
    assert_eq!(kms.audit("snapshot.create"), [allowed.clone(), allowed.clone()]);
    assert_eq!(kms.audit("snapshot.create-group").last().unwrap(), &allowed);
    // A name that one of them has.
    kms.delete("/v1/snapshots/a%2Fone");
    let answer = kms.refuses(PATH, json!({"name": "one", "skip_raw": true}), "NameTaken", None);
    assert!(answer["message"].as_str().unwrap().contains("disk b"), "{answer}");
    assert_eq!((snapshots(&kms), kms.usage("snapshot")), (1, 2));
    kms.instance("bare");
    kms.refuses("/v1/instances/bare/snapshots", asked(), "InvalidRequest", None);
    kms.refuses("/v1/instances/none/snapshots", asked(), "NotFound", None);
}

#[test]
fn none_is_there_where_the_processes_die_with_the_snapshots() {
    let (mut kms, disks) = with_machine("dies-after-change");
    kms.refuses(PATH, asked(), "BackendFailed", None);
    settled(&kms);
    for disk in &disks {
        kms.until("it was made and taken back", || {
            kms.changes(disk) == ["Snapshot", "DeleteSnapshot"]
        });
    }
    for pid in kms.backends() {
        kill(pid, "KILL");
    }
    kms.restart_with("sealblk");
    assert_none(&kms, &disks);
}

#[test]
fn none_is_there_where_one_process_hangs_which_is_named() {
    let (kms, disks) = with_machine("sealblk");
    let pid = kms.get("/v1/disks/b")["pid"].as_i64().unwrap();
    kill(pid, "STOP");
    let (status, answer) = kms.post(PATH, asked());
    refused(status, &answer, "BackendFailed", None);
    assert!(answer["message"].as_str().unwrap().contains("disk b"), "{answer}");
    assert_eq!(kms.changes(&disks[0]), [""; 0], "it was not even begun");
    kill(pid, "CONT");
    assert_none(&kms, &disks);
}

/// Nothing was asked of any store, and one of them cannot be asked at all: that is not waited for.
#[test]
fn none_is_there_where_nobody_serves_a_disk() {
    let (kms, disks) = with_machine("sealblk");
    kms.layered("c");
    kms.make(
        "/v1/attachments",
        json!({"disk": "c", "instance": "vm", "start": false}),
    );
    let (status, answer) = kms.post(PATH, asked());
    assert!(
        status >= 400 && answer["message"].as_str().unwrap().contains("disk c"),
        "{answer}"
    );
    settled(&kms);
    kms.make("/v1/disks/c/detach", json!({}));
    assert_none(&kms, &disks);
}

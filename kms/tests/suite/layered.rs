//! Layered disks through the API: names, limits, reports, and what happens when their processes fail.

use crate::common;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::common::{Kms, MIB, Value, json, kill, refused};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn disks_are_layered_and_thin_unless_asked_otherwise() {
    let kms = Kms::active();
    let disk = kms.make("/v1/disks", json!({"name": "data", "size": 64u64 << 40}));
    assert_eq!(
        (&disk["store"], &disk["state"]),
        (&json!("layered"), &json!("available"))
    );
    assert!(disk["allocated"].as_u64().unwrap() < MIB);
    assert_eq!(kms.backends(), Vec::<i64>::new());
    assert_eq!(std::fs::read_dir(kms.state().join("run")).unwrap().count(), 0);
    // A given file, also one that was there.
    for (name, there) in [("made", false), ("found", true)] {
        let path = kms.path(name);
        if there {
            std::fs::write(&path, "").unwrap();
        }
        kms.make("/v1/disks", json!({"name": name, "size": MIB, "path": path}));
        assert!(std::fs::metadata(&path).unwrap().len() > 0);
        kms.delete(&format!("/v1/disks/{name}?retention_days=0"));
        assert_eq!(std::fs::metadata(&path).is_ok_and(|left| left.len() == 0), there);
    }
    kms.disk("raw");
    let snapshot = json!({"disk": "raw", "name": "one"});
    let answer = kms.refuses("/v1/snapshots", snapshot, "NotSupported", None);
    assert!(text(&answer["message"]).contains("--store layered"), "{answer}");
}

#[test]
fn snapshots_are_found_by_id_by_name_and_by_disk_and_name() {
    let kms = Kms::active();
    kms.layered("a");
    kms.layered("b");
    let one = kms.snapshot("a", "one");
    let same = kms.snapshot("b", "one");
    kms.snapshot("b", "two");
    let found = |path: &str| kms.get(&format!("/v1/snapshots/{path}"))["id"].clone();
    assert_eq!(found("a%2Fone"), one["id"]);
    assert_eq!(found("b%2Fone"), same["id"]);
    assert_eq!(found(text(&one["id"])), one["id"]);
    assert!(found("two").is_string());
    let (status, answer) = kms.call("GET", "/v1/snapshots/one", None);
    refused(status, &answer, "AmbiguousName", None);
    for missing in ["a%2Ftwo", "c%2Fone", "three", "a%2F"] {
        let (status, answer) = kms.call("GET", &format!("/v1/snapshots/{missing}"), None);
        refused(status, &answer, "NotFound", None);
    }
    // Lists: of one disk with what each takes, of all without asking any store.
    let of_b = kms.get("/v1/snapshots?disk=b");
    let of_b = of_b["snapshots"].as_array().unwrap();
    assert!(of_b.len() == 2 && of_b.iter().all(|row| row["unique_bytes"] == 4096));
    let all = kms.get("/v1/snapshots");
    let all = all["snapshots"].as_array().unwrap();
    assert!(all.len() == 3 && all.iter().all(|row| row["unique_bytes"].is_null()));
    let page = kms.get("/v1/snapshots?limit=2");
    let rest = kms.get(&format!("/v1/snapshots?limit=2&after={}", text(&page["next"])));
    assert_eq!(rest["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(kms.call("GET", "/v1/snapshots?disk=c", None).0, 404);
    assert_eq!(kms.call("GET", "/v1/snapshots?color=red", None).0, 400);
    // Names.
    for name in ["", "a/b", "snap-aaaaaaaaaaaaaaaa", &"x".repeat(65)] {
        kms.refuses(
            "/v1/snapshots",
            json!({"disk": "a", "name": name}),
            "InvalidName",
            None,
        );
    }
    kms.refuses(
        "/v1/snapshots",
        json!({"disk": "a", "name": "one"}),
        "NameTaken",
        None,
    );
    kms.refuses(
        "/v1/snapshots",
        json!({"disk": "c", "name": "one"}),
        "NotFound",
        None,
    );
}

#[test]
fn a_disk_is_shown_with_what_its_store_reports() {
    let mut kms = Kms::active();
    let disk = kms.layered("data");
    kms.instance("vm");
    for number in 0..5 {
        kms.snapshot("data", &format!("snap{number}"));
    }
    for attached in [false, true] {
        if attached {
            kms.attach("data", "vm");
        }
        let shown = kms.get("/v1/disks/data");
        assert_eq!(
            (&shown["allocated"], &shown["shared_bytes"], &shown["deleting"]),
            (&json!(65536), &json!(8192), &json!(0))
        );
        let snapshots = shown["snapshots"].as_array().unwrap();
        let names: Vec<_> = snapshots.iter().map(|row| text(&row["name"])).collect();
        assert_eq!(names, ["snap0", "snap1", "snap2", "snap3", "snap4"]);
        assert!(snapshots.iter().all(|row| row["unique_bytes"] == 4096));
        let listed = &kms.get("/v1/disks")["disks"][0];
        assert_eq!(
            (&listed["shared_bytes"], &listed["snapshots"]),
            (&json!(null), &json!(null))
        );
    }
    kms.make("/v1/disks/data/detach", json!({}));
    // A store that says nothing, or cannot be opened, does not keep the disk from being shown.
    kms.restart_with("mute");
    let shown = kms.get("/v1/disks/data");
    assert_eq!(
        (&shown["shared_bytes"], &shown["snapshots"][0]["unique_bytes"]),
        (&json!(null), &json!(null))
    );
    kms.kill();
    kms.behave("sealblk");
    std::fs::write(text(&disk["path"]), "damage").unwrap();
    kms.serve();
    assert_eq!(kms.get("/v1/disks/data")["shared_bytes"], json!(null));
    kms.refuses(
        "/v1/disks/data/rollback",
        json!({"snapshot": "snap1"}),
        "StoreDamaged",
        None,
    );
    assert_eq!(kms.get("/v1/disks/data")["state"], "available");
}

#[test]
fn a_store_is_checked_attached_or_not_and_repaired_only_detached() {
    let kms = Kms::active();
    let disk = kms.layered("data");
    kms.instance("vm");
    let clean = kms.make("/v1/disks/data/check", json!({}));
    assert_eq!((&clean["clean"], &clean["pages"]), (&json!(true), &json!(3)));
    let mut contents = kms.store(&disk);
    contents["leaked"] = json!(2);
    std::fs::write(text(&disk["path"]), contents.to_string()).unwrap();
    kms.attach("data", "vm");
    let found = kms.make("/v1/disks/data/check", json!({}));
    assert_eq!(
        (&found["clean"], &found["leaked"], &found["findings"][1]),
        (&json!(false), &json!(2), &json!("cluster 1 leaks"))
    );
    let repair = json!({"repair": true});
    kms.refuses("/v1/disks/data/check", repair.clone(), "DiskAttached", None);
    kms.make("/v1/disks/data/detach", json!({}));
    assert_eq!(kms.make("/v1/disks/data/check", repair)["repaired"], 2);
    assert_eq!(kms.make("/v1/disks/data/check", json!({}))["clean"], true);
    kms.disk("raw");
    kms.refuses("/v1/disks/raw/check", json!({}), "NotSupported", None);
}

#[test]
fn a_process_that_dies_in_a_change_leaves_it_done_or_undone() {
    for attached in [false, true] {
        for (behaviour, done) in [("dies-before-change", false), ("dies-after-change", true)] {
            let mut kms = Kms::active();
            let disk = kms.layered("data");
            kms.instance("vm");
            kms.restart_with(behaviour);
            if attached {
                kms.attach("data", "vm");
            }
            let (status, answer) = kms.post("/v1/snapshots", json!({"disk": "data", "name": "one"}));
            if done {
                assert_eq!((status, &answer["state"]), (201, &json!("available")), "{answer}");
            } else {
                refused(status, &answer, "BackendFailed", None);
            }
            let count = usize::from(done);
            assert_eq!(
                kms.get("/v1/snapshots")["snapshots"].as_array().unwrap().len(),
                count
            );
            assert_eq!(
                (kms.changes(&disk).len(), kms.usage("snapshot")),
                (count, count as u64)
            );
            let state = kms.get("/v1/disks/data")["state"].clone();
            assert_eq!(state, if attached { "in-use" } else { "available" });
        }
    }
}

#[test]
fn what_the_store_refuses_is_undone_and_refunded() {
    let mut kms = Kms::active();
    kms.layered("data");
    kms.snapshot("data", "one");
    kms.restart_with("full");
    let no_space = |path: &str, body: Value| kms.refuses(path, body, "NoSpace", None);
    no_space("/v1/snapshots", json!({"disk": "data", "name": "two"}));
    no_space("/v1/disks/data/rollback", json!({"snapshot": "one"}));
    no_space("/v1/disks/data/reinit", json!({}));
    no_space("/v1/disks/data/resize", json!({"size": 2 * MIB}));
    no_space("/v1/disks", json!({"name": "clone", "snapshot": "one"}));
    let (status, answer) = kms.call("DELETE", "/v1/snapshots/one", None);
    refused(status, &answer, "NoSpace", None);
    let disk = kms.get("/v1/disks/data");
    assert_eq!(
        (&disk["state"], &disk["size"]),
        (&json!("available"), &json!(MIB))
    );
    assert_eq!(disk["snapshots"].as_array().unwrap().len(), 1);
    let kinds = ["create", "snapshot", "rollback", "reinit"];
    assert_eq!(kinds.map(|kind| kms.usage(kind)), [1, 1, 0, 0]);
    assert_eq!(std::fs::read_dir(kms.state().join("disks")).unwrap().count(), 1);
    assert_eq!(
        kms.audit("rollback")[1],
        ("failed".to_owned(), "NoSpace".to_owned())
    );
}

#[test]
fn a_disk_that_nobody_serves_at_the_moment_says_so() {
    let kms = Kms::active();
    kms.layered("data");
    kms.instance("vm");
    kms.make(
        "/v1/attachments",
        json!({"disk": "data", "instance": "vm", "start": false}),
    );
    let snapshot = json!({"disk": "data", "name": "one"});
    kms.refuses("/v1/snapshots", snapshot, "NotServed", None);
    assert_eq!(kms.get("/v1/snapshots")["snapshots"], json!([]));
    kms.make("/v1/disks/data/detach", json!({}));
    kms.snapshot("data", "one");
}

#[test]
fn a_disk_that_nobody_serves_is_shown_however_often_and_the_log_has_why_once() {
    let mut kms = Kms::active();
    kms.layered("data");
    kms.instance("vm");
    kms.make("/v1/attachments", json!({"disk": "data", "instance": "vm"}));
    let pid = kms.get("/v1/disks/data")["pid"].as_i64().unwrap();
    kms.behave("dies");
    kms.kill();
    kms.serve();
    kill(pid, "KILL");
    kms.until("no process", || kms.get("/v1/disks/data")["pid"].is_null());
    for _ in 0..5 {
        assert_eq!(kms.get("/v1/disks/data")["state"], "in-use");
    }
    let log = kms.log();
    assert_eq!(log.matches("its store cannot be shown").count(), 1, "{log}");
    kms.make("/v1/disks/data/detach", json!({}));
}

#[test]
fn calls_on_one_disk_at_once_are_done_one_after_the_other_or_refused() {
    let kms = Kms::active();
    let disk = kms.layered("data");
    kms.instance("vm");
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (kms, made) = (&kms, &made);
            scope.spawn(move || {
                let body = json!({"disk": "data", "name": format!("snap{number}")});
                let (status, answer) = kms.post("/v1/snapshots", body);
                if status == 201 {
                    made.fetch_add(1, Relaxed);
                } else {
                    refused(status, &answer, "DiskNotAvailable", Some("D05"));
                }
                // Looking is always possible.
                assert_eq!(kms.get("/v1/disks/data")["id"].as_str().unwrap().len(), 21);
            });
        }
        scope.spawn(|| {
            kms.until("a snapshot", || made.load(Relaxed) > 0);
            kms.until("an attach", || {
                kms.post("/v1/attachments", json!({"disk": "data", "instance": "vm"}))
                    .0
                    == 201
            });
        });
    });
    let made = made.into_inner();
    assert_eq!(kms.changes(&disk).len(), made);
    assert_eq!(
        kms.get("/v1/snapshots")["snapshots"].as_array().unwrap().len(),
        made
    );
    assert_eq!(kms.get("/v1/disks/data")["state"], "in-use");
}

/// A clone of a clone of a clone, to the depth that there is.
#[test]
fn a_chain_of_clones_ends_where_no_more_can_be_opened() {
    let kms = Kms::active();
    kms.instance("vm");
    let mut disk = kms.plain("disk0");
    for depth in 1..=30 {
        kms.snapshot(text(&disk["name"]), "base");
        let source = format!("{}/base", text(&disk["name"]));
        let body = json!({"name": format!("disk{depth}"), "snapshot": source});
        disk = kms.make("/v1/disks", body);
    }
    kms.attach("disk30", "vm");
    kms.snapshot("disk30", "base");
    let body = json!({"name": "disk31", "snapshot": "disk30/base"});
    kms.refuses("/v1/disks", body, "TooMany", None);
}

#[test]
fn a_process_that_a_killed_daemon_was_maintaining_a_store_with_is_ended() {
    let mut kms = Kms::active();
    kms.layered("data");
    kms.restart_with("mute");
    // It hangs in the answer, which nobody waits for any more after a while.
    kms.get("/v1/disks/data");
    let left = kms.backends();
    assert_eq!(left.len(), 1);
    kms.restart_with("sealblk");
    assert!(!common::is_alive(left[0]));
    assert_eq!(std::fs::read_dir(kms.state().join("run")).unwrap().count(), 0);
    assert_eq!(kms.get("/v1/disks/data")["shared_bytes"], 8192);
}

#[test]
fn after_a_restore_snapshots_are_matched_with_the_stores_by_their_ids() {
    let mut kms = Kms::active();
    let disk = kms.layered("data");
    kms.snapshot("data", "one");
    kms.snapshot("data", "two");
    kms.make("/v1/disks", json!({"name": "clone", "snapshot": "one"}));
    let backup = kms.path("backup");
    assert!(kms.run(&["backup", &backup]).status.success());
    // After the backup: one snapshot goes, another comes, and the disk grows.
    kms.delete("/v1/snapshots/two");
    kms.snapshot("data", "three");
    kms.make("/v1/disks/data/resize", json!({"size": 4 * MIB}));
    kms.stop();
    let old = std::path::PathBuf::from(kms.path("old"));
    std::fs::rename(kms.state(), &old).unwrap();
    assert!(kms.run(&["restore", &backup]).status.success());
    std::fs::copy(old.join("root.key"), kms.state().join("root.key")).unwrap();
    std::fs::remove_dir(kms.state().join("disks")).unwrap();
    std::fs::rename(old.join("disks"), kms.state().join("disks")).unwrap();
    kms.serve();
    kms.until("the comparison", || kms.get("/v1/disks/data")["size"] == 4 * MIB);
    let states: Vec<_> = kms.get("/v1/disks/data")["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["name"]).to_owned(), text(&row["state"]).to_owned()))
        .collect();
    assert_eq!(
        states,
        [
            ("one".to_owned(), "available".to_owned()),
            ("two".to_owned(), "error".to_owned())
        ]
    );
    kms.refuses(
        "/v1/disks/data/rollback",
        json!({"snapshot": "two"}),
        "SnapshotNotAvailable",
        None,
    );
    assert!(kms.log().contains("which the catalogue does not know"));
    assert_eq!(
        kms.store(&disk)["snapshots"].as_array().unwrap().len(),
        2,
        "an orphan stays"
    );
    kms.delete("/v1/snapshots/two");
}

//! Which store a process is given: an older one, a changed one and another disk's are found, whatever the way to it.

use std::path::PathBuf;

use crate::common::{Kms, Value, json, kill, refused};

/// A detached disk `data`, and where its store lies.
fn with_disk(kms: &Kms) -> PathBuf {
    let disk = kms.layered("data");
    kms.make("/v1/instances", json!({"name": "vm"}));
    kms.store_path(&disk)
}

fn attach(kms: &Kms, options: Value) -> (u16, Value) {
    let mut body = json!({"disk": "data", "instance": "vm"});
    body.as_object_mut()
        .unwrap()
        .extend(options.as_object().unwrap().clone());
    kms.post("/v1/attachments", body)
}

fn attached(kms: &Kms) -> Value {
    let (status, answer) = attach(kms, json!({}));
    assert_eq!(status, 201, "{answer}\n{}", kms.log());
    answer
}

fn detach(kms: &Kms) {
    kms.make("/v1/disks/data/detach", json!({}));
}

/// Every way to the store is closed.
fn is_refused(kms: &Kms, code: &str) {
    for (path, body) in [
        ("/v1/attachments", json!({"disk": "data", "instance": "vm"})),
        ("/v1/snapshots", json!({"disk": "data", "name": "refused"})),
        ("/v1/disks/data/check", json!({"repair": true})),
        ("/v1/disks/data/resize", json!({"size": 2u64 << 30})),
        ("/v1/disks/data/reinit", json!({})),
    ] {
        let (status, answer) = kms.post(path, body);
        refused(status, &answer, code, None);
    }
    assert_eq!(kms.get("/v1/disks/data")["state"], "available");
}

#[test]
fn an_older_store_is_refused_until_it_is_accepted() {
    let mut kms = Kms::active();
    let store = with_disk(&kms);
    // Also one that has never been attached, while the KMS is off.
    let made = std::fs::read(&store).unwrap();
    kms.snapshot("data", "one");
    kms.stop();
    std::fs::write(&store, &made).unwrap();
    kms.serve();
    is_refused(&kms, "StoreRolledBack");
    let (_, failure) = attach(&kms, json!({}));
    let text = failure["message"].as_str().unwrap();
    assert!(text.contains("--accept-older"), "{failure}");
    assert_eq!(attach(&kms, json!({"accept_older": true})).0, 201);
    let records = || kms.query("SELECT count(*) FROM audit WHERE call = 'attach.accept-older'");
    assert_eq!(records(), 1);
    let (status, answer) = attach(&kms, json!({"accept_older": true}));
    refused(status, &answer, "AlreadyAttached", Some("D09"));
    detach(&kms);
    // From now on that is the newest.
    attached(&kms);
    detach(&kms);
    assert_eq!(attach(&kms, json!({"accept_older": true})).0, 201);
    assert_eq!(records(), 2);
}

/// The next attach, without the option, looks just as closely.
#[test]
fn an_attach_that_fails_has_accepted_nothing() {
    let mut kms = Kms::active();
    let store = with_disk(&kms);
    let made = std::fs::read(&store).unwrap();
    attached(&kms);
    kms.snapshot("data", "one");
    detach(&kms);
    let newest = std::fs::read(&store).unwrap();
    std::fs::write(&store, &made).unwrap();
    for (behaviour, code, rule) in [
        ("unfit", "StoreUnusable", None),
        ("locked-out", "StoreInUse", Some("A08")),
    ] {
        kms.restart_with(behaviour);
        let (status, answer) = attach(&kms, json!({"accept_older": true}));
        refused(status, &answer, code, rule);
        kms.restart_with("sealblk");
        is_refused(&kms, "StoreRolledBack");
    }
    // Nor has one that is detached before any process came.
    let (status, answer) = attach(&kms, json!({"accept_older": true, "start": false}));
    assert_eq!(status, 201, "{answer}");
    detach(&kms);
    is_refused(&kms, "StoreRolledBack");
    std::fs::write(&store, &newest).unwrap();
    attached(&kms);
}

/// A process of an earlier version does not say what it has.
#[test]
fn what_was_accepted_is_the_newest_whoever_serves_it() {
    let mut kms = Kms::active();
    let store = with_disk(&kms);
    let made = std::fs::read(&store).unwrap();
    attached(&kms);
    kms.snapshot("data", "one");
    detach(&kms);
    std::fs::write(&store, &made).unwrap();
    kms.restart_with("earlier");
    assert_eq!(attach(&kms, json!({"accept_older": true})).0, 201);
    detach(&kms);
    kms.restart_with("sealblk");
    attached(&kms);
}

/// What was changed while nobody had the store is found by the next process that looks.
#[test]
fn a_process_that_did_not_get_to_the_store_leaves_what_is_known_of_it() {
    for (behaviour, code, rule) in [
        ("locked-out", "StoreInUse", Some("A08")),
        ("keyless", "KeyUnusable", None),
    ] {
        let mut kms = Kms::active();
        let store = with_disk(&kms);
        attached(&kms);
        detach(&kms);
        kms.restart_with(behaviour);
        let (status, answer) = attach(&kms, json!({}));
        refused(status, &answer, code, rule);
        kms.restart_with("sealblk");
        let text = std::fs::read_to_string(&store).unwrap();
        let changed = text.replace("\"size\":1048576", "\"size\":2097152");
        assert_ne!(changed, text);
        std::fs::write(&store, changed).unwrap();
        is_refused(&kms, "StoreRolledBack");
    }
}

#[test]
fn whatever_changes_a_detached_store_is_known() {
    let kms = Kms::active();
    let store = with_disk(&kms);
    let calls: [(&str, Value); 5] = [
        ("/v1/snapshots", json!({"disk": "data", "name": "s"})),
        ("/v1/disks/data/check", json!({"repair": true})),
        ("/v1/disks/data/rollback", json!({"snapshot": "s"})),
        ("/v1/disks/data/resize", json!({"size": 2u64 << 30})),
        ("/v1/disks/data/reinit", json!({})),
    ];
    for (path, body) in calls {
        let before = std::fs::read(&store).unwrap();
        kms.make(path, body);
        let after = std::fs::read(&store).unwrap();
        std::fs::write(&store, &before).unwrap();
        let (status, answer) = attach(&kms, json!({}));
        refused(status, &answer, "StoreRolledBack", None);
        std::fs::write(&store, &after).unwrap();
        attached(&kms);
        detach(&kms);
    }
    // What was changed while nobody had it is refused, too.
    let text = std::fs::read_to_string(&store).unwrap();
    std::fs::write(&store, text.replace("\"size\":2147483648", "\"size\":4294967296")).unwrap();
    is_refused(&kms, "StoreRolledBack");
}

#[test]
fn another_disk_s_store_is_never_served() {
    let kms = Kms::active();
    let store = with_disk(&kms);
    let other = kms.layered("other");
    let other = kms.store_path(&other);
    let own = std::fs::read(&store).unwrap();
    std::fs::copy(&other, &store).unwrap();
    is_refused(&kms, "StoreForeign");
    let (status, answer) = attach(&kms, json!({"accept_older": true}));
    refused(status, &answer, "StoreForeign", None);
    // Nor a clone's in the place of its origin.
    std::fs::write(&store, &own).unwrap();
    kms.snapshot("data", "one");
    let clone = kms.make("/v1/disks", json!({"name": "clone", "snapshot": "data/one"}));
    let own = std::fs::read(&store).unwrap();
    let clone = kms.store_path(&clone);
    std::fs::copy(&clone, &store).unwrap();
    is_refused(&kms, "StoreForeign");
    std::fs::write(&store, &own).unwrap();
    attached(&kms);
}

#[test]
fn a_store_whose_end_nobody_saw_may_have_gone_on() {
    let mut kms = Kms::active();
    let store = with_disk(&kms);
    attached(&kms);
    let begun = std::fs::read(&store).unwrap();
    kms.snapshot("data", "one");
    // The KMS and the process die, one after the other.
    let pids = kms.backends();
    kms.kill();
    pids.into_iter().for_each(|pid| kill(pid, "KILL"));
    kms.serve();
    kms.until("it is served again", || {
        kms.get("/v1/disks/data")["attachments"][0]["state"] == "serving"
    });
    // What is put in its place now must not be older than what the last process has said.
    let ended = || {
        kms.backends().into_iter().for_each(|pid| kill(pid, "KILL"));
        kms.until("it has ended", || {
            let shown = kms.get("/v1/disks/data")["attachments"][0]["state"] == "restarting";
            shown && kms.backends().is_empty()
        });
    };
    let newest = std::fs::read(&store).unwrap();
    kms.make("/v1/disks/data/detach", json!({}));
    let (status, answer) = attach(&kms, json!({"start": false}));
    assert_eq!(status, 201, "{answer}");
    detach(&kms);
    attached(&kms);
    std::fs::write(&store, &begun).unwrap();
    ended();
    kms.until("it says why", || {
        kms.get("/v1/disks/data").to_string().contains("StoreRolledBack")
    });
    assert!(newest != begun);
    detach(&kms);
    let (status, answer) = attach(&kms, json!({}));
    refused(status, &answer, "StoreRolledBack", None);
}

#[test]
fn a_process_of_an_earlier_version_is_given_the_store_as_before() {
    let mut kms = Kms::active();
    let store = with_disk(&kms);
    let made = std::fs::read(&store).unwrap();
    attached(&kms);
    detach(&kms);
    kms.restart_with("earlier");
    attached(&kms);
    kms.snapshot("data", "one");
    detach(&kms);
    // What it has left is not known; but it cannot be older than what was.
    kms.restart_with("sealblk");
    attached(&kms);
    detach(&kms);
    std::fs::write(&store, &made).unwrap();
    is_refused(&kms, "StoreRolledBack");
}

#[test]
fn a_catalogue_from_a_backup_takes_what_is_newer() {
    let mut kms = Kms::active();
    let store = with_disk(&kms);
    let made = std::fs::read(&store).unwrap();
    attached(&kms);
    detach(&kms);
    let backup = kms.path("backup");
    assert!(kms.run(&["backup", &backup]).status.success());
    kms.snapshot("data", "one");
    let newest = std::fs::read(&store).unwrap();
    kms.stop();
    let old = PathBuf::from(kms.path("old"));
    std::fs::rename(kms.state(), &old).unwrap();
    assert!(kms.run(&["restore", &backup]).status.success());
    std::fs::copy(old.join("root.key"), kms.state().join("root.key")).unwrap();
    std::fs::write(&store, &newest).unwrap();
    kms.serve();
    attached(&kms);
    detach(&kms);
    std::fs::write(&store, &made).unwrap();
    is_refused(&kms, "StoreRolledBack");
}

/// As a large one after a reboot of the host: two limits pass, of ten and of twenty seconds.
#[test]
fn a_store_that_takes_long_to_open_is_waited_for_as_long_as_that_gets_on() {
    let kms = Kms::active_with_backend("opens-slowly");
    kms.disk("data");
    kms.make("/v1/instances", json!({"name": "vm"}));
    assert_eq!(attached(&kms)["state"], "serving");
}

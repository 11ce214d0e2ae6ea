//! A backend that is not connected still has the disk: its lock on the store says so (rule A08).

use crate::common;

use crate::common::{Kms, is_alive, json, kill};

/// An attached disk whose backend lives and does not dial again after the KMS was restarted.
fn unconnected(start: bool) -> (Kms, i64) {
    let mut kms = Kms::active_with_backend("slow");
    kms.disk("data");
    kms.instance("vm");
    let attachment = kms.make(
        "/v1/attachments",
        json!({"disk": "data", "instance": "vm", "start": start}),
    );
    if !start {
        let command = attachment["command"].as_str().unwrap();
        let mut backend = std::process::Command::new(kms.path("slow"))
            .args(command.split_whitespace().skip(1))
            .spawn()
            .unwrap();
        // No zombie, which would hold no lock but be there.
        std::thread::spawn(move || backend.wait());
    }
    kms.until("a backend", || kms.get("/v1/disks/data")["pid"].is_i64());
    let pid = kms.get("/v1/disks/data")["pid"].as_i64().unwrap();
    kms.kill();
    (kms, pid)
}

#[test]
fn a_detach_is_refused_while_an_unconnected_backend_has_the_disk() {
    for start in [true, false] {
        let (mut kms, pid) = unconnected(start);
        kms.serve();
        kms.refuses("/v1/disks/data/detach", json!({}), "BackendFailed", None);
        assert_eq!(kms.get("/v1/disks/data")["state"], "in-use");
        assert!(is_alive(pid));
        kms.make("/v1/disks/data/detach", json!({"force": true}));
        assert!(!is_alive(pid));
    }
}

#[test]
fn a_detach_that_a_crash_interrupted_is_not_finished_under_a_living_backend() {
    let (mut kms, pid) = unconnected(true);
    kms.tamper(
        "UPDATE disks SET state = 'detaching';
         INSERT INTO intents (id, account, call, disk, attachment, uid, pid, request, month, created)
         SELECT 'int-1', account, 'detach', disk, id, 0, 1, 'req-1', '2026-01', created FROM attachments",
    );
    kms.serve();
    let disk = kms.get("/v1/disks/data");
    assert_eq!(disk["state"], "in-use");
    assert!(is_alive(pid));
    kms.make("/v1/disks/data/detach", json!({"force": true}));
    assert!(!is_alive(pid));
}

#[test]
fn the_socket_of_a_living_backend_is_not_replaced() {
    use std::os::unix::fs::MetadataExt;
    let (mut kms, pid) = unconnected(true);
    // Beside the attachment's directory there is that of the names.
    let mut run = std::fs::read_dir(kms.state().join("run")).unwrap();
    let socket =
        run.find_map(|entry| Some(entry.unwrap().path().join("vhost.sock")).filter(|path| path.exists()));
    let socket = socket.unwrap();
    let inode = socket.metadata().unwrap().ino();
    kms.serve();
    kms.until("a warning", || {
        kms.get("/v1/disks/data")["warnings"]
            .to_string()
            .contains("still uses")
    });
    assert_eq!(socket.metadata().unwrap().ino(), inode);
    assert_eq!(kms.backends(), [pid], "no second one was started");
    // Once it is gone, another is started.
    kill(pid, "KILL");
    kms.until("a new backend", || kms.get("/v1/disks/data")["pid"].is_i64());
}

#[test]
fn a_disk_whose_store_is_locked_is_not_deleted() {
    let (mut kms, pid) = unconnected(true);
    kms.tamper("DELETE FROM attachments; UPDATE disks SET state = 'available'");
    kms.serve();
    let (status, answer) = kms.call("DELETE", "/v1/disks/data?retention_days=0", None);
    common::refused(status, &answer, "StoreInUse", Some("A08"));
    kill(pid, "KILL");
}

#[test]
fn a_backend_that_talks_on_is_killed_by_force() {
    let kms = Kms::active_with_backend("chatty");
    kms.disk("data");
    kms.instance("vm");
    let attachment = kms.attach("data", "vm");
    kms.make("/v1/disks/data/detach", json!({"force": true}));
    assert!(!is_alive(attachment["pid"].as_i64().unwrap()));
}

#[test]
fn an_interrupted_attach_is_undone_whoever_else_has_the_store() {
    let mut kms = Kms::active();
    let store = kms.disk("data")["path"].as_str().unwrap().to_owned();
    kms.instance("vm");
    let attachment = kms.attach("data", "vm");
    kms.kill();
    kill(attachment["pid"].as_i64().unwrap(), "KILL");
    kms.tamper(
        "UPDATE disks SET state = 'attaching';
         INSERT INTO intents (id, account, call, disk, attachment, uid, pid, request, month, created)
         SELECT 'int-1', account, 'attach', disk, id, 0, 1, 'req-1', '2026-01', created FROM attachments",
    );
    // Somebody whom the KMS does not know.
    let holder = std::fs::File::options()
        .read(true)
        .write(true)
        .open(store)
        .unwrap();
    rustix::fs::fcntl_lock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    kms.serve();
    kms.until("available", || kms.get("/v1/disks/data")["state"] == "available");
    assert!(kms.get("/v1/disks/data")["attachment"].is_null());
    drop(holder);
}

#[test]
fn an_attachment_that_could_not_be_adopted_is_tried_again() {
    let mut kms = Kms::active();
    kms.disk("data");
    kms.instance("vm");
    let attachment = kms.attach("data", "vm");
    kms.kill();
    kill(attachment["pid"].as_i64().unwrap(), "KILL");
    let runtime = kms.state().join("run").join(attachment["id"].as_str().unwrap());
    std::fs::remove_dir_all(&runtime).unwrap();
    std::fs::write(&runtime, "in the way").unwrap();
    kms.serve();
    assert!(kms.get("/v1/disks/data")["pid"].is_null());
    std::fs::remove_file(&runtime).unwrap();
    kms.until("a backend", || kms.get("/v1/disks/data")["pid"].is_i64());
}

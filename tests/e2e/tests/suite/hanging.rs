//! Storage that does not answer: its guests wait for it, and nobody else does. Nor is guest memory taken from there.
//! As root, with FUSE.

use std::fs::File;

use rustix::process::Signal;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::fuse::{Answers, Fuse};
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::{eventually, process};
use serde_json::Value;

/// A disk `slow` on a file system that can stop, attached to `web`.
fn slow(kms: &Kms, store: &str) -> Option<(Fuse, Value)> {
    let fuse = Fuse::mount(&kms.path("mount"))?;
    let file = fuse.file();
    let path = file.to_str().unwrap();
    kms.create("slow", &["--store", store, "--path", path]);
    kms.ok(&["instance", "register", "web"]);
    let attachment = kms.ok(&["attach", "slow", "web"]);
    Some((fuse, attachment))
}

/// A file for a machine's memory, on a file system that can stop.
fn memory(kms: &Kms) -> Option<(Fuse, File)> {
    let fuse = Fuse::mount(&kms.path("mount"))?;
    let file = File::options().read(true).write(true).open(fuse.file());
    Some((fuse, file.unwrap()))
}

fn has_warning(disk: &Value, part: &str) -> bool {
    disk["warnings"].to_string().contains(part)
}

#[test]
fn nobody_waits_for_storage_that_has_stopped_but_its_guest() {
    for answers in [Answers::Stopped, Answers::Held] {
        let kms = Kms::start();
        let Some((fuse, attachment)) = slow(&kms, "raw") else {
            return;
        };
        let other = kms.attached();
        let mut healthy = Guest::connect(kms::path(&other, "socket"));
        let mut guest = Guest::connect(kms::path(&attachment, "socket"));
        guest.write(0, &[1; 4096]);
        fuse.answer(answers);
        guest.begin_write(8, &[2; 4096]);
        let disk = kms.disk("slow");
        assert!(has_warning(&disk, "does not answer"), "{disk}");
        assert_eq!(
            (text(&disk, "state"), &disk["stats"]["writes"], &disk["connected"]),
            ("in-use", &Value::from(1), &Value::from(true)),
            "its process answers"
        );
        let disks = kms.ok(&["disk", "list"]);
        assert_eq!(disks["disks"].as_array().map(Vec::len), Some(2));
        // The other one can be used, and changed.
        healthy.write(0, &[3; 4096]);
        kms.ok(&["snapshot", "create", "data", "first"]);
        kms.ok(&["detach", "data", "--force"]);
        fuse.answer(Answers::AtOnce);
        assert_eq!(guest.finish(), 0);
        assert_eq!(guest.read(0, 8192), [[1; 4096], [2; 4096]].concat());
    }
}

#[test]
fn a_forced_detach_ends_a_process_whose_storage_has_stopped() {
    for store in ["raw", "layered"] {
        let kms = Kms::start();
        let Some((fuse, attachment)) = slow(&kms, store) else {
            return;
        };
        let mut guest = Guest::connect(kms::path(&attachment, "socket"));
        guest.write(0, &[1; 4096]);
        guest.flush();
        fuse.answer(Answers::Stopped);
        guest.begin_write(8, &[2; 4096]);
        let disk = kms.ok(&["detach", "slow", "--force"]);
        assert_eq!(text(&disk, "state"), "available");
        assert!(!process::is_running(kms::pid(&attachment)));
        fuse.answer(Answers::AtOnce);
        // Not before the last look at it has ended.
        let again = eventually("it is attached again", || {
            let attached = kms.sealctl(&["-o", "json", "attach", "slow", "web"]);
            (attached.status == Some(0)).then(|| attached.json())
        });
        let mut guest = Guest::connect(kms::path(&again, "socket"));
        assert_eq!(guest.read(0, 4096), [1; 4096], "{store}");
    }
}

#[test]
fn a_process_that_the_kernel_keeps_leaves_its_disk_in_error_until_it_is_let_go() {
    let mut kms = Kms::start();
    let Some((fuse, attachment)) = slow(&kms, "raw") else {
        return;
    };
    let socket = kms::path(&attachment, "socket").to_owned();
    let mut guest = Guest::connect(&socket);
    guest.write(0, &[1; 4096]);
    fuse.answer(Answers::Held);
    guest.begin_write(8, &[2; 4096]);
    eventually("the write has come to the storage", || {
        (fuse.held() > 0).then_some(())
    });
    kms.sealctl(&["detach", "slow", "--force"])
        .refusal("StorageHangs", None);
    let is_shown = |kms: &Kms| {
        let disk = kms.disk("slow");
        assert_eq!(text(&disk, "state"), "error", "{disk}");
        has_warning(&disk, "waits for its storage")
    };
    assert!(is_shown(&kms));
    // Nobody is kept waiting on its socket.
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_err());
    kms.sealctl(&["attach", "slow", "web"])
        .refusal("AlreadyAttached", Some("D09"));
    // Nor does another KMS wait for it.
    kms.kill();
    kms.serve();
    eventually("the new KMS knows of it", || is_shown(&kms).then_some(()));
    fuse.answer(Answers::AtOnce);
    eventually("the disk is detached by itself", || {
        let disk = kms.disk("slow");
        (text(&disk, "state") == "available" && disk["attachment"].is_null()).then_some(())
    });
    assert!(!socket.exists());
    let again = kms.ok(&["attach", "slow", "web"]);
    assert_eq!(
        Guest::connect(kms::path(&again, "socket")).read(0, 4096),
        [1; 4096]
    );
}

#[test]
fn sigterm_ends_a_process_whose_storage_has_stopped_and_the_next_does_what_was_in_flight() {
    let kms = Kms::start();
    let Some((fuse, attachment)) = slow(&kms, "layered") else {
        return;
    };
    let pid = kms::pid(&attachment);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(0, &[1; 4096]);
    fuse.answer(Answers::Stopped);
    guest.begin_write(8, &[2; 4096]);
    process::signal(pid, Signal::TERM);
    eventually("its end", || (!process::is_running(pid)).then_some(()));
    let disk = kms.disk("slow");
    assert_eq!((text(&disk, "state"), disk["pid"].as_i64()), ("in-use", None));
    fuse.answer(Answers::AtOnce);
    eventually("another process", || {
        kms.backend("slow").map(|new| assert_ne!(new, pid))
    });
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    assert_eq!(guest.read(0, 4096), [1; 4096]);
}

#[test]
fn storage_that_has_stopped_is_not_attached() {
    let kms = Kms::start();
    let Some((fuse, _)) = slow(&kms, "raw") else {
        return;
    };
    kms.ok(&["detach", "slow"]);
    fuse.answer(Answers::Stopped);
    kms.sealctl(&["attach", "slow", "web"])
        .refusal("StoreUnusable", None);
    assert_eq!(text(&kms.disk("slow"), "state"), "available");
    fuse.answer(Answers::AtOnce);
    kms.ok(&["attach", "slow", "web"]);
}

#[test]
fn a_restart_is_refused_while_storage_has_stopped_and_the_guest_notices_nothing() {
    for store in ["raw", "layered"] {
        let kms = Kms::start();
        let Some((fuse, attachment)) = slow(&kms, store) else {
            return;
        };
        let mut guest = Guest::connect(kms::path(&attachment, "socket"));
        guest.write(0, &[1; 4096]);
        fuse.answer(Answers::Stopped);
        guest.begin_write(8, &[2; 4096]);
        let refused = kms
            .sealctl(&["backend", "restart", "slow"])
            .refusal("BackendFailed", None);
        assert!(refused.contains("did not end in time"), "{refused}");
        fuse.answer(Answers::AtOnce);
        assert_eq!(guest.finish(), 0);
        kms.ok(&["backend", "restart", "slow"]);
        assert_eq!(guest.read(0, 8192), [[1; 4096], [2; 4096]].concat(), "{store}");
    }
}

#[test]
fn a_directory_for_backups_that_has_stopped_holds_up_nothing_and_is_told() {
    let mut kms = Kms::initialised();
    let Some(fuse) = Fuse::mount(&kms.path("mount")) else {
        return;
    };
    fuse.answer(Answers::Stopped);
    let directory = kms.path_text("mount");
    kms.serve_with(&["--backup-to", &directory]);
    kms.ok(&["kms", "activate"]);
    let has = |kms: &Kms, part: &str| {
        let status = kms.ok(&["kms", "status"]);
        status["conditions"].to_string().contains(part)
    };
    eventually("it is told", || has(&kms, "BackupFailed").then_some(()));
    assert!(has(&kms, &format!("{directory} does not answer")));
    kms.ok(&["key", "create", "own"]);
    assert!(!kms.state().join("backup.db.new").exists());
    // The directory below it is not a mount that was missing.
    drop(fuse);
    eventually("a backup", || (!has(&kms, "BackupFailed")).then_some(()));
}

#[test]
fn memory_that_may_stop_is_not_taken() {
    let kms = Kms::start();
    let Some((_fuse, memory)) = memory(&kms) else {
        return;
    };
    let attachment = kms.attached();
    Guest::offer_memory(kms::path(&attachment, "socket"), memory);
    eventually("the disk's warning", || {
        let disk = kms.disk("data");
        has_warning(&disk, "(FUSE)").then(|| assert!(has_warning(&disk, "--memory-on any"), "{disk}"))
    });
}

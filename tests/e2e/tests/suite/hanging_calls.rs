//! Callers who name paths on storage that does not answer: they are told so, and nobody else notices. As root, with FUSE.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use sealblk_e2e::api::{call, call_as, succeeds};
use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::fuse::{Answers, Fuse};
use sealblk_e2e::kms::{self, Kms};
use sealblk_e2e::{eventually, process};
use serde_json::{Value, json};

/// One of the calls that look at a path on the mount.
fn at_the_mount(number: usize, mount: &Path) -> (&'static str, String, Option<Value>) {
    let path = mount.join(format!("new-{number}"));
    match number % 6 {
        0 => ("DELETE", "/v1/disks/slow?retention_days=0".to_owned(), None),
        1 => ("GET", "/v1/disks/slow".to_owned(), None),
        2 => {
            let body = json!({"name": format!("new-{number}"), "size": 1 << 20, "path": path});
            ("POST", "/v1/disks".to_owned(), Some(body))
        }
        3 => {
            let body = json!({"disk": "spare", "instance": "web", "vhost_socket": path});
            ("POST", "/v1/attachments".to_owned(), Some(body))
        }
        4 => {
            let body = json!({"file": path, "decrypt": true});
            ("POST", "/v1/disks/spare/export".to_owned(), Some(body))
        }
        _ => {
            let body = json!({"file": path, "disk": {"name": format!("new-{number}")}});
            ("POST", "/v1/imports".to_owned(), Some(body))
        }
    }
}

/// A user of another account.
const OTHER: u32 = 64_001;

fn admit_other(kms: &mut Kms) {
    let accounts = kms.path_text("accounts.json");
    let roles = ["admin", "operator", "auditor"];
    let entry = json!({"uid": OTHER, "account": "other", "roles": roles});
    std::fs::write(&accounts, json!({"principals": [entry]}).to_string()).expect("the accounts' file");
    kms.stop();
    kms.serve_with(&["--accounts", &accounts, "--socket-mode", "0666"]);
}

/// Creates, attaches, detaches and deletes a disk, and looks at it, as the other user.
fn live(kms: &Kms, disk: &str) {
    let call = |method: &str, path: &str, body: Option<Value>| {
        let (status, answer) = call_as(OTHER, &kms.socket(), method, path, body);
        assert!(
            (200..=202).contains(&status),
            "{method} {path}: {status} {answer}"
        );
    };
    let path = format!("/v1/disks/{disk}");
    let new = json!({"name": disk, "size": 1 << 20, "encrypted": false});
    call("POST", "/v1/disks", Some(new));
    call(
        "POST",
        "/v1/attachments",
        Some(json!({"disk": disk, "instance": "theirs"})),
    );
    call("POST", "/v1/snapshots", Some(json!({"disk": disk, "name": disk})));
    call("GET", &path, None);
    call("GET", "/v1/disks", None);
    call("POST", &format!("{path}/detach"), Some(json!({"force": true})));
    call("DELETE", &format!("/v1/snapshots/{disk}"), None);
    call("DELETE", &path, None);
    call("GET", "/v1/audit", None);
}

#[test]
fn hundreds_of_calls_at_a_mount_that_hangs_stop_nobody_else() {
    let mut kms = Kms::start();
    let Some(fuse) = Fuse::mount(&kms.path("mount")) else {
        return;
    };
    admit_other(&mut kms);
    let instance = json!({"name": "theirs"});
    call_as(OTHER, &kms.socket(), "POST", "/v1/instances", Some(instance));
    let file = fuse.file();
    kms.create("slow", &["--path", file.to_str().unwrap()]);
    kms.create("spare", &[]);
    kms.ok(&["instance", "register", "web"]);
    let attachment = kms.attached();
    fuse.answer(Answers::Held);
    let mount = kms.path("mount");
    let calls: Vec<JoinHandle<(u16, Value)>> = (0..300)
        .map(|number| {
            let (socket, mount) = (kms.socket(), mount.clone());
            std::thread::spawn(move || {
                let (method, path, body) = at_the_mount(number, &mount);
                call(&socket, method, &path, body)
            })
        })
        .collect();
    eventually("the mount is asked, and does not answer", || {
        (fuse.held() > 0).then_some(())
    });
    for round in 0..3 {
        live(&kms, &format!("theirs-{round}"));
    }
    for (number, answered) in calls.into_iter().enumerate() {
        let (status, answer) = answered.join().expect("its answer");
        let expected = match at_the_mount(number, &mount).0 {
            "GET" => 200,
            _ => 504,
        };
        // Of one user's calls only so many are taken at once.
        assert!([expected, 429].contains(&status), "{number}: {status} {answer}");
    }
    // Nor later: a process that dies comes again, and whoever asks for the mount is told at once.
    let pid = kms::pid(&attachment);
    process::kill(pid);
    eventually("another process serves", || {
        kms.backend("data").filter(|new| *new != pid)
    });
    for number in 0..12 {
        let (method, path, body) = at_the_mount(number, &mount);
        let (status, answer) = call(&kms.socket(), method, &path, body);
        assert!([200, 504].contains(&status), "{number}: {status} {answer}");
    }
    live(&kms, "theirs-later");
    fuse.answer(Answers::AtOnce);
    eventually("the disk on the mount is deleted", || {
        let (status, answer) = call(&kms.socket(), "DELETE", "/v1/disks/slow", None);
        (status == 200).then_some(answer)
    });
}

#[test]
fn a_start_does_not_wait_for_what_is_behind_an_open_call() {
    let mut kms = Kms::start();
    let Some(fuse) = Fuse::mount(&kms.path("mount")) else {
        return;
    };
    let file = fuse.file();
    kms.create("slow", &["--store", "raw", "--path", file.to_str().unwrap()]);
    kms.create("gone", &[]);
    let attachment = kms.attached();
    kms.kill();
    for disk in ["slow", "gone"] {
        Catalogue::open(&kms.state()).execute(&format!(
            "INSERT INTO intents (id, account, call, disk, uid, pid, request, month, created)
             SELECT 'op-{disk}', account, 'disk.delete', id, 0, 1, 'req-{disk}', substr(created, 1, 7), created
             FROM disks WHERE name = '{disk}';
             UPDATE disks SET state = 'deleting' WHERE name = '{disk}';"
        ));
    }
    fuse.answer(Answers::Held);
    kms.serve();
    let shown = succeeds(&kms, "GET", "/v1/disks/data", None);
    assert_eq!(shown["pid"], kms::pid(&attachment), "{shown}");
    eventually("what could be ended is ended", || {
        (call(&kms.socket(), "GET", "/v1/disks/gone", None).0 == 404).then_some(())
    });
    let slow = succeeds(&kms, "GET", "/v1/disks/slow", None);
    assert_eq!(slow["state"], "deleting");
    succeeds(
        &kms,
        "POST",
        "/v1/disks/data/detach",
        Some(json!({"force": true})),
    );
    fuse.answer(Answers::AtOnce);
    eventually("the rest is ended when the mount answers", || {
        (call(&kms.socket(), "GET", "/v1/disks/slow", None).0 == 404).then_some(())
    });
}

#[test]
fn a_socket_whose_directory_has_stopped_holds_up_neither_a_restart_nor_a_forced_detach() {
    let kms = Kms::start();
    kms.create("data", &[]);
    kms.ok(&["instance", "register", "vm"]);
    let directory = kms.path("sockets");
    std::fs::create_dir(&directory).expect("the sockets' directory");
    let socket = directory.join("vm.sock");
    let attach = ["attach", "data", "vm", "--vhost-socket", socket.to_str().unwrap()];
    let attachment = kms.ok(&attach);
    let Some(fuse) = Fuse::mount(&directory) else {
        return;
    };
    fuse.answer(Answers::Stopped);
    let pid = kms::pid(&attachment);
    process::kill(pid);
    eventually(
        "another process serves, at the socket that the KMS has kept",
        || kms.backend("data").filter(|new| *new != pid),
    );
    let detached = call(
        &kms.socket(),
        "POST",
        "/v1/disks/data/detach",
        Some(json!({"force": true})),
    );
    assert_eq!(detached.0, 200, "{detached:?}");
    succeeds(&kms, "DELETE", "/v1/disks/data", None);
}

/// A connection of the other user, on which it sends a byte, and with that, twice, the file.
fn pass(kms: &Kms, stream: Option<UnixStream>, file: &File) -> UnixStream {
    let connect = || UnixStream::connect(kms.socket()).expect("the API's socket");
    let stream = stream.unwrap_or_else(|| as_other(connect));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd(), file.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let bytes = [IoSlice::new(b"G")];
    rustix::net::sendmsg(&stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL).expect("a byte that goes");
    stream
}

fn as_other<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let acts = scope.spawn(|| {
            rustix::thread::set_thread_uid(rustix::thread::Uid::from_raw(OTHER)).expect("another user");
            act()
        });
        acts.join().expect("its end")
    })
}

/// Whoever serves a file's system is asked when the file is closed (`FUSE_FLUSH`).
#[test]
fn files_that_are_passed_and_cannot_be_closed_are_few() {
    // Closed after the mount is served no more, which this test's end may find held.
    let file;
    let mut kms = Kms::start();
    let Some(fuse) = Fuse::mount(&kms.path("mount")) else {
        return;
    };
    admit_other(&mut kms);
    file = File::open(fuse.file()).expect("the file");
    fuse.answer(Answers::Held);
    let closing = |kms: &Kms| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", kms.pid())).expect("its threads");
        let names = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "close").count()
    };
    // More than are ever taken, on one connection and on many.
    let mut stream = None;
    for _ in 0..200 {
        stream = Some(pass(&kms, stream, &file));
    }
    drop(stream);
    for _ in 0..200 {
        let stream = pass(&kms, None, &file);
        // An answer: its end has been seen.
        let mut ended = &stream;
        ended.write_all(b"ET\r\n\r\n").expect("a request that is none");
        std::io::copy(&mut ended, &mut std::io::sink()).expect("the answer");
    }
    eventually("some are being closed", || (closing(&kms) > 0).then_some(()));
    assert!(closing(&kms) <= 64, "{} threads", closing(&kms));
    // The owner can pass files all the same, and whoever passes none does not notice.
    succeeds(&kms, "GET", "/v1/disks", None);
    call_as(
        OTHER,
        &kms.socket(),
        "POST",
        "/v1/instances",
        Some(json!({"name": "theirs"})),
    );
    live(&kms, "theirs");
    fuse.answer(Answers::AtOnce);
    eventually("all are closed", || (closing(&kms) == 0).then_some(()));
}

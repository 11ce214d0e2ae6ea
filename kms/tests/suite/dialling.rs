//! Backends that have lost their daemon and do not dial: the next one finds them, whatever else lies beside their sockets.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::common::{Kms, Value, is_alive, json, kill};
use rustix::process::Uid;
use sealblk_proto::channel::{Bound, Channel, Listener};
use sealblk_proto::control;
use sealblk_proto::message::{Hello, PROTOCOL_VERSION};
use sealblk_proto::token::Token;

fn attached(kms: &Kms, disk: &str) -> (i64, PathBuf) {
    kms.disk(disk);
    let attachment = kms.attach(disk, "vm");
    let runtime = kms.state().join("run").join(attachment["id"].as_str().unwrap());
    (attachment["pid"].as_i64().unwrap(), runtime)
}

fn socket(runtime: &Path, pid: i64) -> PathBuf {
    runtime.join(control::name(pid as u32))
}

/// A number that no process has.
fn unused(from: i64) -> i64 {
    (from..)
        .find(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        .unwrap()
}

fn served_by(kms: &Kms, disk: &str) -> Value {
    kms.get(&format!("/v1/disks/{disk}"))["pid"].clone()
}

/// A socket at which a process of this user seems to wait.
fn listening(path: &Path, user: u32) -> Listener {
    let bound = Bound::at(path).unwrap();
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let user = Uid::from_raw(user);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            bound.listen().unwrap()
        });
        listening.join().unwrap()
    })
}

#[test]
fn a_backend_that_cannot_dial_is_found_by_the_next_daemon() {
    let mut kms = Kms::active();
    kms.instance("vm");
    let (pid, runtime) = attached(&kms, "data");
    for crash in [true, false] {
        if crash {
            kms.kill();
        } else {
            kms.stop();
        }
        kms.serve();
        assert_eq!(served_by(&kms, "data"), json!(pid), "{}", kms.log());
        assert_eq!(kms.get("/v1/disks/data")["stats"]["reads"], json!(7));
    }
    assert!(socket(&runtime, pid).exists());
    kms.make("/v1/disks/data/detach", json!({}));
    assert!(!is_alive(pid) && !runtime.exists());
}

/// As one that a debugger has stopped, or whose host had no time for it.
#[test]
fn a_backend_that_did_not_answer_is_found_again_by_the_same_daemon() {
    let kms = Kms::active();
    kms.instance("vm");
    let (pid, _) = attached(&kms, "data");
    kill(pid, "STOP");
    assert_eq!(kms.get("/v1/disks/data")["stats"], json!(null));
    kill(pid, "CONT");
    kms.until("it is back", || {
        kms.get("/v1/disks/data")["stats"]["reads"] == json!(7)
    });
    assert_eq!(served_by(&kms, "data"), json!(pid));
}

#[test]
fn sockets_that_ended_processes_have_left_are_removed() {
    let mut kms = Kms::active();
    kms.instance("vm");
    let (first, runtime) = attached(&kms, "data");
    kill(first, "KILL");
    kms.until("a successor", || {
        let pid = served_by(&kms, "data");
        pid.is_i64() && pid != json!(first)
    });
    kms.until("its socket is removed", || !socket(&runtime, first).exists());
    let second = served_by(&kms, "data").as_i64().unwrap();
    // Of one that died while no daemon ran, and of one that was never served by.
    let stale = [unused(4_000_000), unused(4_100_000)].map(|pid| socket(&runtime, pid));
    for restarted in [true, false] {
        for path in &stale {
            drop(listening(path, rustix::process::geteuid().as_raw()));
        }
        if restarted {
            kms.restart();
            assert_eq!(served_by(&kms, "data"), json!(second));
        }
        kms.until("they are removed", || stale.iter().all(|path| !path.exists()));
    }
    assert!(socket(&runtime, second).exists());
}

#[test]
fn those_that_do_not_answer_hold_up_nobody() {
    let mut kms = Kms::active();
    kms.instance("vm");
    let (pid, runtime) = attached(&kms, "data");
    let (other, _) = attached(&kms, "other");
    let user = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    kms.kill();
    let highest = 4_194_304;
    let listeners: Vec<_> = (0..100)
        .map(|number| listening(&socket(&runtime, highest - number), user))
        .collect();
    // With some as many wait as can.
    let full = |number: i64| {
        let path = socket(&runtime, highest - number);
        std::iter::from_fn(move || Channel::connect_at_once(&path).ok()).collect::<Vec<_>>()
    };
    let waiting: Vec<_> = (0..2).map(full).collect();
    // Others are no socket, and not where they seem to be.
    let link = socket(&runtime, highest - 200);
    std::os::unix::fs::symlink(kms.state().join("kms.sock"), &link).unwrap();
    std::fs::write(socket(&runtime, highest - 201), "").unwrap();
    kms.serve();
    // It waited for them, at most as long as an adoption may take, and each exchange takes longer.
    for (disk, pid) in [("data", pid), ("other", other)] {
        assert_eq!(served_by(&kms, disk), json!(pid), "{}", kms.log());
    }
    assert!(
        link.symlink_metadata().is_ok(),
        "what nobody has left is not removed"
    );
    // One that died is replaced all the same.
    kill(pid, "KILL");
    kms.until("a successor", || {
        served_by(&kms, "data").as_i64().is_some_and(|new| new != pid)
    });
    drop((listeners, waiting));
    for disk in ["data", "other"] {
        kms.make(&format!("/v1/disks/{disk}/detach"), json!({}));
    }
    assert!(!runtime.exists());
}

/// Whoever is dialled proves the attachment as if it had dialled, and is given nothing.
#[test]
fn whoever_is_dialled_without_a_right_is_not_taken_for_the_backend() {
    let mut kms = Kms::active();
    kms.instance("vm");
    kms.disk("data");
    let attachment = kms.make(
        "/v1/attachments",
        json!({"disk": "data", "instance": "vm", "start": false}),
    );
    let id = attachment["id"].as_str().unwrap();
    let runtime = kms.state().join("run").join(id);
    let token = Token::read_from(std::fs::File::open(runtime.join("token")).unwrap()).unwrap();
    // One had been served by.
    kms.kill();
    kms.tamper(
        "UPDATE services SET own_user = 0, backend_pid = 1, backend_start = 1, backend_boot = 'another'",
    );
    let own = i64::from(std::process::id());
    let listener = listening(&socket(&runtime, own), rustix::process::geteuid().as_raw());
    kms.serve();
    let hello = |token: Token, serving: bool| Hello {
        version: PROTOCOL_VERSION,
        attachment: id.to_owned(),
        token,
        serving,
    };
    for bad in [
        hello(Token::generate().unwrap(), true),
        hello(token.clone(), false),
    ] {
        let channel = listener.accept().unwrap();
        channel.send(&bad, &[]).unwrap();
        let (answer, descriptors) = channel.receive::<Value>().unwrap();
        assert_eq!(answer["refused"]["code"], "NotYours");
        assert!(descriptors.is_empty());
    }
    assert_eq!(served_by(&kms, "data"), json!(null));
    let channel = listener.accept().unwrap();
    channel.send(&hello(token, true), &[]).unwrap();
    let (answer, descriptors) = channel.receive::<Value>().unwrap();
    assert!(
        answer["welcome"].is_object() && descriptors.is_empty(),
        "{answer}"
    );
    assert!(kms.audit("key.use").is_empty(), "no key was handed out");
}

/// It would take no message with a field that it does not know, and be lost.
#[test]
fn a_process_of_the_first_version_understands_how_it_is_welcomed_back() {
    const KNOWN: [&str; 11] = [
        "disk",
        "serial",
        "size",
        "encrypted",
        "read_only",
        "queues",
        "store",
        "bases",
        "shared",
        "mode",
        "socket",
    ];
    let mut kms = Kms::active();
    let shared = json!({"name": "data", "size": 1 << 20, "shared": true, "on_full": "stop"});
    kms.make("/v1/disks", shared);
    let attach = |instance: &str| {
        kms.instance(instance);
        let body = json!({"disk": "data", "instance": instance, "start": false});
        kms.make("/v1/attachments", body)["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let id = attach("vm");
    attach("other");
    let runtime = kms.state().join("run").join(&id);
    let token = Token::read_from(std::fs::File::open(runtime.join("token")).unwrap()).unwrap();
    kms.kill();
    kms.tamper(
        "UPDATE services SET own_user = 0, backend_pid = 1, backend_start = 1, backend_boot = 'another'",
    );
    let own = i64::from(std::process::id());
    let listener = listening(&socket(&runtime, own), rustix::process::geteuid().as_raw());
    kms.serve();
    let channel = listener.accept().unwrap();
    let hello = Hello {
        version: 1,
        attachment: id,
        token,
        serving: true,
    };
    channel.send(&hello, &[]).unwrap();
    let (answer, _) = channel.receive::<Value>().unwrap();
    let welcome = answer["welcome"]
        .as_object()
        .unwrap_or_else(|| panic!("{answer}"));
    let unknown: Vec<_> = welcome
        .keys()
        .filter(|field| !KNOWN.contains(&field.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert_eq!(welcome["shared"], true);
}

//! Backends: started, handed their keys, restarted, taken over, ended. They are the example `fake_backend`.

use crate::common;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Kms, Value, is_alive, json, kill};
use sealblk_proto::channel::Channel;
use sealblk_proto::key_transfer::take_key;
use sealblk_proto::message::{Hello, HelloAnswer, PROTOCOL_VERSION, Readiness};
use sealblk_proto::token::Token;

fn attached(kms: &Kms) -> Value {
    kms.disk("data");
    kms.instance("vm");
    kms.attach("data", "vm")
}

fn pid(value: &Value) -> i64 {
    value["pid"]
        .as_i64()
        .unwrap_or_else(|| panic!("no process: {value}"))
}

/// The process that serves, once it is another than `old`.
fn successor(kms: &Kms, old: i64) -> i64 {
    let mut new = old;
    kms.until("a new backend", || {
        new = kms.get("/v1/disks/data")["pid"].as_i64().unwrap_or(old);
        new != old
    });
    new
}

#[test]
fn an_attachment_is_served_by_a_process_of_its_own() {
    let kms = Kms::active();
    let attachment = attached(&kms);
    assert_eq!(attachment["state"], "serving");
    assert_eq!(kms.backends(), [pid(&attachment)]);
    let socket = attachment["socket"].as_str().unwrap();
    let metadata = Path::new(socket).metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o600);
    for arguments in ["qemu_args", "cloud_hypervisor_args"] {
        let named = attachment["named_socket"].as_str().unwrap();
        assert!(attachment[arguments].as_str().unwrap().contains(named));
    }
    let disk = kms.get("/v1/disks/data");
    assert_eq!(
        (&disk["socket"], &disk["connected"]),
        (&json!(socket), &json!(false))
    );
    assert_eq!(
        (&disk["stats"]["reads"], &disk["pid"]),
        (&json!(7), &attachment["pid"])
    );
    // Neither its arguments nor its environment hold the token; there is no file with it.
    let proc = format!("/proc/{}", pid(&attachment));
    let environment = String::from_utf8(std::fs::read(format!("{proc}/environ")).unwrap()).unwrap();
    assert!(!environment.contains("PATH="), "{environment}");
    assert!(!Path::new(socket).with_file_name("token").exists());
    if rustix::process::geteuid().is_root() {
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        assert!(status.contains("Uid:\t19000"), "a user of its own: {status}");
    }
    // Detached, nothing of it is left.
    let detached = kms.make("/v1/disks/data/detach", json!({}));
    assert_eq!(
        (&detached["state"], &detached["pid"]),
        (&json!("available"), &json!(null))
    );
    assert_eq!(kms.backends(), Vec::<i64>::new());
    assert_eq!(std::fs::read_dir(kms.state().join("run")).unwrap().count(), 0);
}

#[test]
fn a_backend_that_dies_is_replaced_on_the_same_path() {
    let kms = Kms::active();
    let attachment = attached(&kms);
    kill(pid(&attachment), "KILL");
    let second = successor(&kms, pid(&attachment));
    let now = kms.get(&format!("/v1/attachments/{}", attachment["id"].as_str().unwrap()));
    assert_eq!(
        (&now["state"], &now["socket"]),
        (&json!("serving"), &attachment["socket"])
    );
    assert!(!is_alive(pid(&attachment)), "no zombie stays");
    kill(second, "TERM");
    successor(&kms, second);
    assert_eq!(
        (kms.usage("attach"), kms.audit("key.use").len()),
        (1, 3),
        "audited, not metered (A06)"
    );
}

#[test]
fn a_stopped_and_a_killed_daemon_leave_their_backends_and_take_them_over() {
    let mut kms = Kms::active();
    let attachment = attached(&kms);
    let socket = Path::new(attachment["socket"].as_str().unwrap());
    let inode = socket.metadata().unwrap().ino();
    for crash in [false, true] {
        if crash {
            kms.kill();
        } else {
            assert_eq!(kms.stop(), Some(0));
            assert!(!kms.state().join("kms.sock").exists());
        }
        assert!(is_alive(pid(&attachment)));
        kms.serve();
        let disk = kms.get("/v1/disks/data");
        assert_eq!(
            (&disk["pid"], &disk["stats"]["reads"]),
            (&attachment["pid"], &json!(7))
        );
        assert_eq!(
            socket.metadata().unwrap().ino(),
            inode,
            "the frontend's socket was not touched"
        );
    }
    assert_eq!(kms.audit("key.use").len(), 1, "no key was handed out again");
    // It is still supervised, and can be detached.
    successor(&kms, {
        kill(pid(&attachment), "KILL");
        pid(&attachment)
    });
    kms.make("/v1/disks/data/detach", json!({}));
    assert_eq!(kms.backends(), Vec::<i64>::new());
}

#[test]
fn a_backend_that_died_with_its_daemon_is_started_again() {
    let mut kms = Kms::active();
    let attachment = attached(&kms);
    kms.kill();
    kill(pid(&attachment), "KILL");
    kms.serve();
    successor(&kms, pid(&attachment));
    assert_eq!(kms.usage("attach"), 1);
}

#[test]
fn a_backend_that_keeps_dying_is_tried_again_and_shown() {
    let mut kms = Kms::active();
    let attachment = attached(&kms);
    kms.behave("dies");
    kms.restart();
    kill(pid(&attachment), "KILL");
    kms.until("a warning", || {
        kms.get("/v1/disks/data")["warnings"]
            .to_string()
            .contains("restarted")
    });
    let path = format!("/v1/attachments/{}", attachment["id"].as_str().unwrap());
    kms.until("restarting", || kms.get(&path)["state"] == "restarting");
    assert_eq!(kms.get("/v1/disks/data")["state"], "in-use");
    kms.make("/v1/disks/data/detach", json!({}));
}

#[test]
fn an_attach_that_fails_is_undone_and_refunded() {
    for (behaviour, code) in [
        ("unfit", "StoreUnusable"),
        ("dies", "BackendFailed"),
        ("keeps-key", "KeyUnusable"),
    ] {
        let kms = Kms::active_with_backend(behaviour);
        kms.disk("data");
        kms.instance("vm");
        kms.refuses(
            "/v1/attachments",
            json!({"disk": "data", "instance": "vm"}),
            code,
            None,
        );
        let disk = kms.get("/v1/disks/data");
        assert_eq!(
            (&disk["state"], &disk["attachment"]),
            (&json!("available"), &json!(null)),
            "{behaviour}"
        );
        assert_eq!((kms.usage("attach"), kms.backends().len()), (0, 0), "{behaviour}");
        assert_eq!(
            std::fs::read_dir(kms.state().join("run")).unwrap().count(),
            0,
            "{behaviour}"
        );
        let decisions = kms.audit("attach");
        assert_eq!(
            decisions[1],
            ("failed".to_owned(), code.to_owned()),
            "{behaviour}"
        );
    }
}

#[test]
fn a_missing_or_short_store_is_not_served() {
    let kms = Kms::active();
    let disk = kms.disk("data");
    kms.instance("vm");
    let path = Path::new(disk["path"].as_str().unwrap());
    std::fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(512)
        .unwrap();
    let attach = json!({"disk": "data", "instance": "vm"});
    kms.refuses("/v1/attachments", attach.clone(), "StoreUnusable", None);
    std::fs::remove_file(path).unwrap();
    kms.refuses("/v1/attachments", attach, "StoreUnusable", None);
}

#[test]
fn what_is_wrong_with_a_session_is_shown() {
    let kms = Kms::active_with_backend("unshared");
    attached(&kms);
    let disk = kms.get("/v1/disks/data");
    let session = &disk["attachments"][0]["session"];
    let trouble = json!({"code": "MemoryNotShared", "message": "share=on is missing"});
    assert_eq!(session["troubles"], json!([trouble]));
    assert_eq!(
        (&session["regions"], &session["memory"]),
        (&json!(1), &json!(4096))
    );
    assert_eq!(disk["warnings"], json!(["share=on is missing"]));
    let listed = &kms.get("/v1/disks")["disks"][0];
    assert_eq!(listed["attachments"][0]["session"], json!(null));
    // One of an earlier version says nothing of it.
    let kms = Kms::active();
    attached(&kms);
    let disk = kms.get("/v1/disks/data");
    assert_eq!(disk["attachments"][0]["session"], json!(null));
    assert_eq!(disk["warnings"], json!([]));
}

#[test]
fn detaching_waits_for_the_frontend_unless_forced() {
    let kms = Kms::active_with_backend("frontend-connected");
    let attachment = attached(&kms);
    kms.refuses("/v1/disks/data/detach", json!({}), "FrontendConnected", None);
    let disk = kms.get("/v1/disks/data");
    assert_eq!(
        (&disk["state"], &disk["pid"]),
        (&json!("in-use"), &attachment["pid"])
    );
    assert_eq!((kms.usage("detach"), &disk["connected"]), (0, &json!(true)));
    assert_eq!(
        kms.audit("detach")[1],
        ("refused".to_owned(), "FrontendConnected".to_owned())
    );
    // It is supervised as before.
    let second = {
        kill(pid(&attachment), "KILL");
        successor(&kms, pid(&attachment))
    };
    kms.make("/v1/disks/data/detach", json!({"force": true}));
    assert!(!is_alive(second));
    assert_eq!(kms.usage("detach"), 1);
}

#[test]
fn a_backend_that_does_not_end_is_killed_by_force_only() {
    let kms = Kms::active_with_backend("stubborn");
    let attachment = attached(&kms);
    kms.refuses("/v1/disks/data/detach", json!({}), "BackendFailed", None);
    assert!(is_alive(pid(&attachment)));
    kms.make("/v1/disks/data/detach", json!({"force": true}));
    assert!(!is_alive(pid(&attachment)));
}

fn attached_without_start(kms: &Kms) -> Value {
    kms.disk("data");
    kms.instance("vm");
    let body = json!({"disk": "data", "instance": "vm", "start": false});
    kms.make("/v1/attachments", body)
}

/// As one that hangs, or that a guest has taken over, in the middle of something: `--force` waits neither for that nor for it.
#[test]
fn a_process_that_stopped_in_the_middle_of_something_is_ended_by_force_and_that_is_settled() {
    let kms = Kms::active();
    kms.instance("vm");
    for call in ["snapshots", "resize"] {
        let disk = kms.layered(call);
        let attachment = kms.attach(call, "vm");
        kill(pid(&attachment), "STOP");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| match call {
                "snapshots" => kms.post("/v1/snapshots", json!({"disk": call, "name": "s"})),
                _ => kms.post(
                    &format!("/v1/disks/{call}/resize"),
                    json!({"size": 2 * common::MIB}),
                ),
            });
            kms.until("it is under way", || {
                kms.query("SELECT count(*) FROM intents") == 1
            });
            let path = format!("/v1/disks/{call}/detach");
            kms.refuses(&path, json!({}), "DiskNotAvailable", Some("D05"));
            let detached = kms.make(&path, json!({"force": true}));
            assert_eq!(detached["attachment"], json!(null), "{detached}");
            assert!(!is_alive(pid(&attachment)));
            let (status, answer) = asked.join().unwrap();
            assert!(status >= 400, "{answer}");
        });
        kms.until("it is settled", || kms.query("SELECT count(*) FROM intents") == 0);
        assert_eq!(kms.changes(&disk), Vec::<String>::new());
        assert_eq!(kms.query("SELECT count(*) FROM snapshots"), 0);
    }
    kms.attach("snapshots", "vm");
    assert_eq!(kms.usage("snapshot"), 0, "what was not done is not charged");
}

/// An examination takes hours, and holds up nobody.
#[test]
fn a_disk_that_is_examined_is_shown_and_can_be_detached_by_force() {
    let kms = Kms::active_with_backend("examines");
    kms.instance("vm");
    kms.layered("data");
    let attachment = kms.attach("data", "vm");
    std::thread::scope(|scope| {
        let check = scope.spawn(|| kms.post("/v1/disks/data/check", json!({})));
        kms.until("it is under way", || {
            kms.query("SELECT count(*) FROM intents") == 1
        });
        for _ in 0..3 {
            let disk = kms.get("/v1/disks/data");
            assert_eq!(disk["stats"]["reads"], json!(7), "{disk}");
            assert!(disk["shared_bytes"].is_u64(), "{disk}");
        }
        kms.refuses(
            "/v1/disks/data/detach",
            json!({}),
            "DiskNotAvailable",
            Some("D05"),
        );
        kms.make("/v1/disks/data/detach", json!({"force": true}));
        assert!(!is_alive(pid(&attachment)));
        let (status, answer) = check.join().unwrap();
        assert_eq!(
            (status, &answer["code"]),
            (500, &json!("BackendFailed")),
            "{answer}"
        );
        kms.until("it is over", || kms.query("SELECT count(*) FROM intents") == 0);
    });
}

/// The same, of a disk that is not attached: its store is one process's at a time.
#[test]
fn a_detached_disk_that_is_examined_is_shown_and_others_need_not_wait_for_it() {
    let kms = Kms::active_with_backend("examines");
    kms.instance("vm");
    kms.layered("data");
    kms.snapshot("data", "s");
    std::thread::scope(|scope| {
        let check = scope.spawn(|| kms.try_call("POST", "/v1/disks/data/check", Some(b"{}")));
        let mut examining = Vec::new();
        kms.until("it is under way", || {
            examining = kms.backends();
            kms.query("SELECT count(*) FROM intents") == 1 && !examining.is_empty()
        });
        let begun = std::time::Instant::now();
        for _ in 0..3 {
            let disk = kms.get("/v1/disks/data");
            assert_eq!(
                (&disk["state"], &disk["shared_bytes"]),
                (&json!("available"), &json!(null))
            );
            kms.get("/v1/snapshots?disk=data");
        }
        // Whoever waits for the store, waits this long.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let attach = json!({"disk": "data", "instance": "vm"});
        kms.refuses("/v1/attachments", attach, "DiskNotAvailable", Some("D05"));
        kms.refuses(
            "/v1/disks/data/detach",
            json!({"force": true}),
            "NotAttached",
            None,
        );
        let clone = json!({"name": "clone", "snapshot": "data/s"});
        kms.refuses("/v1/disks", clone, "DiskNotAvailable", Some("D05"));
        kms.layered("other");
        for pid in examining {
            kill(pid, "KILL");
        }
        assert!(check.join().unwrap().unwrap().0 >= 400);
    });
    kms.attach("data", "vm");
}

/// An attachment that another supervisor starts, with its socket and token. As one of an earlier version it has the daemon's
/// user, which is this process's.
fn waiting(kms: &mut Kms) -> (Value, std::path::PathBuf, Token) {
    let attachment = attached_without_start(kms);
    kms.kill();
    kms.tamper("UPDATE services SET own_user = 0");
    kms.serve();
    let path = format!("/v1/attachments/{}", attachment["id"].as_str().unwrap());
    let attachment = kms.get(&path);
    let runtime = kms.state().join("run").join(attachment["id"].as_str().unwrap());
    let file = runtime.join("token");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let token = Token::read_from(std::fs::File::open(file).unwrap()).unwrap();
    (attachment, runtime.join("kms.sock"), token)
}

fn dial(socket: &Path, hello: &Hello) -> (Channel, HelloAnswer, Vec<std::os::fd::OwnedFd>) {
    let channel = Channel::connect(socket).unwrap();
    channel.set_timeout(Some(Duration::from_secs(20))).unwrap();
    channel.send(hello, &[]).unwrap();
    let (answer, descriptors) = channel.receive().unwrap();
    (channel, answer, descriptors)
}

fn hello(attachment: &Value, token: &Token) -> Hello {
    let attachment = attachment["id"].as_str().unwrap().to_owned();
    Hello {
        version: PROTOCOL_VERSION,
        attachment,
        token: token.clone(),
        serving: false,
    }
}

/// One that another attachment has by default is taken as much as one that it was given, also while nothing is there.
#[test]
fn the_default_socket_of_another_attachment_is_taken() {
    let kms = Kms::active();
    let attachment = attached_without_start(&kms);
    let socket = attachment["socket"].as_str().unwrap();
    assert!(!Path::new(socket).exists(), "its process has not come yet");
    kms.disk("other");
    kms.instance("stranger");
    let body = json!({"disk": "other", "instance": "stranger", "vhost_socket": socket});
    kms.refuses("/v1/attachments", body, "SocketInUse", None);
    assert_eq!(kms.get("/v1/disks/other")["state"], "available");
}

/// Under a root KMS it is never root's.
#[test]
fn a_backend_that_another_supervisor_starts_has_a_user_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let kms = Kms::active();
    let attachment = attached_without_start(&kms);
    let runtime = kms.state().join("run").join(attachment["id"].as_str().unwrap());
    let user = runtime.join("token").metadata().unwrap().uid();
    assert!(user >= 1_900_000_000, "{user}");
    assert_eq!(runtime.join("kms.sock").metadata().unwrap().uid(), user);
    assert_eq!(
        runtime.metadata().unwrap().uid(),
        0,
        "nor can it change what lies there"
    );
    let command = attachment["command"].as_str().unwrap();
    assert!(command.contains(&format!(" --user {user}")), "{command}");
    // As root it is not taken, and as that user it is.
    let token = Token::read_from(std::fs::File::open(runtime.join("token")).unwrap()).unwrap();
    let (_, answer, _) = dial(&runtime.join("kms.sock"), &hello(&attachment, &token));
    assert!(matches!(answer, HelloAnswer::Refused(_)), "{answer:?}");
    let words = command.split_whitespace().skip(1);
    let mut child = std::process::Command::new(kms.path("sealblk"))
        .args(words)
        .spawn()
        .unwrap();
    kms.until("it serves", || {
        kms.get("/v1/disks/data")["pid"] == json!(child.id())
    });
    kms.make("/v1/disks/data/detach", json!({}));
    child.wait().unwrap();
    assert!(!runtime.exists());
}

#[test]
fn another_supervisor_starts_the_backend() {
    let mut kms = Kms::active();
    let (attachment, socket, token) = waiting(&mut kms);
    assert_eq!(
        (&attachment["state"], &attachment["pid"]),
        (&json!("waiting"), &json!(null))
    );
    let command = attachment["command"].as_str().unwrap();
    for part in ["sealblk --kms ", " --attachment att-", "/token"] {
        assert!(command.contains(part), "{command}");
    }
    assert!(!command.contains("--user"), "{command}");
    assert!(
        !command.contains("--socket"),
        "it would win over an inherited one"
    );
    assert_eq!(kms.backends(), Vec::<i64>::new());
    let (channel, answer, descriptors) = dial(&socket, &hello(&attachment, &token));
    let HelloAnswer::Welcome(config) = answer else {
        panic!("{answer:?}")
    };
    let disk = kms.get("/v1/disks/data");
    assert_eq!(json!(config.disk), disk["id"]);
    assert_eq!(
        (config.serial.len(), config.size, config.queues),
        (20, common::MIB, 4)
    );
    assert!(disk["id"].as_str().unwrap().starts_with(&config.serial));
    assert_eq!(descriptors.len(), 2);
    take_key(descriptors.into_iter().nth(1).unwrap()).unwrap();
    channel.send(&Readiness::Ready, &[]).unwrap();
    let path = format!("/v1/attachments/{}", attachment["id"].as_str().unwrap());
    kms.until("serving", || kms.get(&path)["state"] == "serving");
    // Rule A08: one at a time. This process holds the connection, so a child has to try.
    let mut second = std::process::Command::new(kms.path("sealblk"));
    second
        .arg("--kms")
        .arg(&socket)
        .args(["--attachment", attachment["id"].as_str().unwrap(), "--token-file"])
        .arg(socket.with_file_name("token"));
    assert_eq!(common::finish(&mut second).status.code(), Some(1));
    assert_eq!(kms.get(&path)["pid"], json!(std::process::id()));
}

#[test]
fn rule_a08_a_claim_needs_token_attachment_and_version() {
    let mut kms = Kms::active();
    let (attachment, socket, token) = waiting(&mut kms);
    let good = || hello(&attachment, &token);
    for (bad, code) in [
        (
            Hello {
                token: Token::generate().unwrap(),
                ..good()
            },
            "NotYours",
        ),
        (
            Hello {
                attachment: "att-other".to_owned(),
                ..good()
            },
            "NotYours",
        ),
        (
            Hello {
                version: PROTOCOL_VERSION + 1,
                ..good()
            },
            "ProtocolVersion",
        ),
    ] {
        let (_, answer, descriptors) = dial(&socket, &bad);
        let HelloAnswer::Refused(failure) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((failure.code.as_str(), descriptors.len()), (code, 0));
    }
    assert!(kms.audit("key.use").is_empty());
    assert!(matches!(dial(&socket, &good()).1, HelloAnswer::Welcome(_)));
}

#[test]
fn the_token_of_a_waiting_attachment_outlives_the_daemon() {
    let mut kms = Kms::active();
    let (attachment, socket, token) = waiting(&mut kms);
    kms.restart();
    let (channel, answer, _descriptors) = dial(&socket, &hello(&attachment, &token));
    assert!(matches!(answer, HelloAnswer::Welcome(_)));
    drop(channel);
    kms.make("/v1/disks/data/detach", json!({}));
    assert!(!socket.exists());
}

/// What a connection to a socket comes to. One that has to wait, as this backend accepts none, is none that is refused.
fn connect(socket: &Path) -> rustix::io::Result<()> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&client, &SocketAddrUnix::new(socket)?) {
        Err(rustix::io::Errno::AGAIN) => Ok(()),
        connected => connected,
    }
}

#[test]
fn nobody_who_connects_is_refused_while_processes_and_daemons_come_and_go() {
    let mut kms = Kms::active();
    let attachment = attached(&kms);
    let socket = Path::new(attachment["socket"].as_str().unwrap());
    let inode = socket.metadata().unwrap().ino();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut connected = 0;
            while !ended.load(Ordering::Relaxed) {
                connect(socket).unwrap_or_else(|error| panic!("after {connected}: {error}"));
                connected += 1;
            }
            connected
        });
        let mut old = pid(&attachment);
        for round in 0..3 {
            kill(old, "KILL");
            old = successor(&kms, old);
            if round < 2 {
                // A daemon that has made the socket, and one that has it from a process.
                kms.restart();
                kms.until("the process is back", || kms.get("/v1/disks/data")["pid"] == old);
            }
        }
        ended.store(true, Ordering::Relaxed);
        assert!(client.join().expect("a connection was refused") > 0);
    });
    assert_eq!(socket.metadata().unwrap().ino(), inode, "one socket all the time");
    kms.make("/v1/disks/data/detach", json!({}));
    assert!(!socket.exists());
}

#[test]
fn a_process_of_an_earlier_version_has_its_successor_s_socket_made_anew() {
    let mut kms = Kms::active_with_backend("earlier");
    let attachment = attached(&kms);
    let socket = Path::new(attachment["socket"].as_str().unwrap());
    kms.restart();
    kms.until("the process is back", || {
        kms.get("/v1/disks/data")["pid"] == attachment["pid"]
    });
    kill(pid(&attachment), "KILL");
    successor(&kms, pid(&attachment));
    connect(socket).unwrap();
    kms.make("/v1/disks/data/detach", json!({}));
    assert!(!socket.exists());
}

#[test]
fn a_socket_whose_file_is_not_its_own_any_more_is_shown_and_made_anew_for_the_next_process() {
    let mut kms = Kms::active();
    let attachment = attached(&kms);
    let socket = Path::new(attachment["socket"].as_str().unwrap());
    let listed = std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(
        listed
            .lines()
            .any(|line| line.ends_with(socket.to_str().unwrap()))
    );
    let warnings = |kms: &Kms| kms.get("/v1/disks/data")["warnings"].to_string();
    assert_eq!(warnings(&kms), "[]");
    let mut old = pid(&attachment);
    let replace: [(&str, &dyn Fn()); 3] = [
        ("has been removed", &|| {}),
        ("has been replaced by another file", &|| {
            std::fs::write(socket, "").unwrap();
        }),
        ("has been replaced by another", &|| {
            drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
        }),
    ];
    for (warning, replace) in replace {
        std::fs::remove_file(socket).unwrap();
        replace();
        assert!(warnings(&kms).contains(warning), "{}", warnings(&kms));
        // Known to the next daemon, too.
        kms.restart();
        kms.until("the process is back", || kms.get("/v1/disks/data")["pid"] == old);
        assert!(warnings(&kms).contains(warning), "{}", warnings(&kms));
        if warning == "has been replaced by another file" {
            // What is no socket is never removed.
            assert!(socket.metadata().unwrap().is_file());
            std::fs::remove_file(socket).unwrap();
        }
        kill(old, "KILL");
        old = successor(&kms, old);
        connect(socket).unwrap();
        assert_eq!(warnings(&kms), "[]");
    }
    // The log tells it without being asked.
    std::fs::remove_file(socket).unwrap();
    kms.until("a word in the log", || {
        kms.log().contains("no virtual machine can connect")
    });
    kms.make("/v1/disks/data/detach", json!({}));
}

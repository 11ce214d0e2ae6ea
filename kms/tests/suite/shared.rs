//! Shared disks (rule D09): the service of a disk and its attachments, over crashes of either side. Backends are the example
//! `fake_backend`.

use crate::common;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::common::{Kms, Value, is_alive, json, kill};

const MIB: u64 = 1 << 20;

fn shared(kms: &Kms, name: &str) -> Value {
    let disk = kms.make(
        "/v1/disks",
        json!({"name": name, "size": MIB, "store": "raw", "shared": true}),
    );
    assert_eq!(disk["shared"], true);
    disk
}

/// The disk `data`, attached to `a` and `b`.
fn attached(kms: &Kms) -> [Value; 2] {
    shared(kms, "data");
    ["a", "b"].map(|name| {
        kms.instance(name);
        kms.attach("data", name)
    })
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn socket(attachment: &Value) -> PathBuf {
    PathBuf::from(text(attachment, "socket"))
}

fn pid(value: &Value) -> i64 {
    value["pid"].as_i64().unwrap_or_else(|| panic!("{value}"))
}

/// Whether somebody listens on the attachment's socket.
fn listens(attachment: &Value) -> bool {
    UnixStream::connect(socket(attachment)).is_ok()
}

#[test]
fn all_attachments_of_a_disk_and_no_others_are_listed() {
    let kms = Kms::active();
    let two = attached(&kms);
    kms.disk("other");
    kms.attach("other", "a");
    let list = |disk: &str| kms.get(&format!("/v1/disks/{disk}/attachments"))["attachments"].clone();
    let ids = |list: &Value| {
        let list = list.as_array().unwrap().iter();
        list.map(|attachment| text(attachment, "id")).collect::<Vec<_>>()
    };
    assert_eq!(ids(&list("data")), two.each_ref().map(|one| text(one, "id")));
    assert_eq!(socket(&list("data")[1]), socket(&two[1]));
    assert_eq!(ids(&list("other")).len(), 1);
    kms.disk("detached");
    assert_eq!(list("detached"), json!([]));
    let (status, refusal) = kms.call("GET", "/v1/disks/none/attachments", None);
    assert_eq!((status, &refusal["code"]), (404, &json!("NotFound")));
    let for_qemu = kms.get("/v1/disks/data/attachments?qemu_version=2.12");
    assert_eq!(for_qemu["attachments"][0]["qemu_version"], "2.12");

    let output = std::process::Command::new(common::sealctl())
        .arg("--socket")
        .arg(kms.state().join("kms.sock"))
        .args(["disk", "attachments", "data"])
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown.lines().count(), 3, "{shown}");
    for attachment in &two {
        let socket = text(attachment, "named_socket");
        assert!(
            shown.contains(&format!(" {} ", text(attachment, "instance_name"))),
            "{shown}"
        );
        assert!(shown.contains(&socket), "{shown}");
    }
}

fn attachments(kms: &Kms) -> Vec<String> {
    let disk = kms.get("/v1/disks/data");
    let attachments = disk["attachments"].as_array().unwrap();
    attachments.iter().map(|one| text(one, "id")).collect()
}

fn runtime_directories(kms: &Kms) -> usize {
    let run = std::fs::read_dir(kms.state().join("run")).unwrap().flatten();
    run.filter(|entry| entry.file_name().to_string_lossy().starts_with("att-"))
        .count()
}

fn detach(kms: &Kms, instance: &str, force: bool) -> Value {
    let body = json!({"instance": instance, "force": force});
    kms.make("/v1/disks/data/detach", body)
}

#[test]
fn one_process_serves_all_attachments_each_on_a_socket_of_its_own() {
    let kms = Kms::active();
    let [a, b] = attached(&kms);
    assert_eq!(pid(&a), pid(&b));
    assert_eq!(kms.backends(), [pid(&a)]);
    assert!(a["socket"] != b["socket"] && listens(&a) && listens(&b));
    let disk = kms.get("/v1/disks/data");
    assert_eq!(attachments(&kms), [text(&a, "id"), text(&b, "id")]);
    assert_eq!(
        (
            &disk["attachment"],
            &disk["instance"],
            &disk["socket"],
            &disk["state"]
        ),
        (&a["id"], &a["instance"], &a["socket"], &json!("in-use"))
    );
    for (shown, made) in disk["attachments"].as_array().unwrap().iter().zip([&a, &b]) {
        assert_eq!(
            (
                &shown["instance"],
                &shown["socket"],
                &shown["state"],
                &shown["connected"]
            ),
            (
                &made["instance"],
                &made["socket"],
                &json!("serving"),
                &json!(false)
            )
        );
    }
    let listed = &kms.get("/v1/disks")["disks"][0];
    assert_eq!(listed["attachments"].as_array().unwrap().len(), 2);
    assert_eq!(
        kms.get("/v1/attachments")["attachments"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!((kms.usage("attach"), kms.audit("key.use").len()), (2, 1));
    kms.refuses(
        "/v1/attachments",
        json!({"disk": "data", "instance": "b"}),
        "AlreadyAttached",
        Some("D09"),
    );
    kms.refuses("/v1/disks/data/detach", json!({}), "InstanceNeeded", Some("D09"));

    let left = detach(&kms, "a", false);
    assert_eq!(
        (&left["state"], &left["attachment"], &left["pid"]),
        (&json!("in-use"), &b["id"], &a["pid"])
    );
    assert!(!socket(&a).exists() && listens(&b) && is_alive(pid(&a)));
    kms.refuses(
        "/v1/disks/data/detach",
        json!({"instance": "a"}),
        "NotAttached",
        None,
    );
    let gone = kms.make("/v1/disks/data/detach", json!({}));
    assert_eq!(
        (&gone["state"], &gone["attachments"]),
        (&json!("available"), &json!([]))
    );
    assert_eq!(kms.backends(), Vec::<i64>::new());
    assert_eq!((runtime_directories(&kms), kms.usage("detach")), (0, 2));
}

/// The attachment that the process was begun with goes first; process and daemon come and go.
#[test]
fn the_others_are_served_over_ends_of_process_and_daemon() {
    let mut kms = Kms::active();
    let [a, b] = attached(&kms);
    kms.instance("c");
    let c = kms.attach("data", "c");
    detach(&kms, "a", false);
    let mut serving = pid(&a);
    for round in 0..3 {
        match round {
            0 => kill(serving, "KILL"),
            1 => {
                kms.restart();
            }
            _ => {
                kms.kill();
                kill(serving, "KILL");
                kms.serve();
            }
        }
        kms.until("both are served", || {
            let disk = kms.get("/v1/disks/data");
            let same = disk["pid"].as_i64() == Some(serving);
            disk["stats"].is_object() && same == (round == 1) && listens(&b) && listens(&c)
        });
        serving = pid(&kms.get("/v1/disks/data"));
        assert_eq!(attachments(&kms), [text(&b, "id"), text(&c, "id")]);
        assert!(!socket(&a).exists());
        assert_eq!(kms.backends(), [serving]);
    }
    // One more, and again the first.
    let again = kms.attach("data", "a");
    assert!(listens(&again) && again["id"] != a["id"]);
    for instance in ["b", "c", "a"] {
        detach(&kms, instance, false);
    }
    assert_eq!((kms.backends().len(), runtime_directories(&kms)), (0, 0));
}

#[test]
fn who_cannot_be_added_is_undone_and_the_others_go_on() {
    let kms = Kms::active_with_backend("unsociable");
    shared(&kms, "data");
    kms.instance("a");
    kms.instance("b");
    let a = kms.attach("data", "a");
    let body = json!({"disk": "data", "instance": "b"});
    kms.refuses("/v1/attachments", body, "TooMany", None);
    let disk = kms.get("/v1/disks/data");
    assert_eq!((&disk["state"], &disk["pid"]), (&json!("in-use"), &a["pid"]));
    assert_eq!(attachments(&kms), [text(&a, "id")]);
    assert_eq!((kms.usage("attach"), runtime_directories(&kms)), (1, 1));
    // What it does not know, the process does not start.
    let body = json!({"disk": "data", "instance": "b", "start": false});
    kms.refuses("/v1/attachments", body, "InvalidRequest", None);
}

#[test]
fn one_that_does_not_let_go_is_restarted_by_force_only() {
    let mut kms = Kms::active_with_backend("stubborn");
    let [a, b] = attached(&kms);
    kms.refuses(
        "/v1/disks/data/detach",
        json!({"instance": "b"}),
        "BackendFailed",
        None,
    );
    assert!(listens(&b) && kms.get("/v1/disks/data")["state"] == "in-use");
    kms.behave("stubborn");
    detach(&kms, "b", true);
    assert!(!is_alive(pid(&a)));
    kms.until("the other is served", || {
        kms.get("/v1/disks/data")["pid"].is_i64() && listens(&a)
    });
    assert_eq!((attachments(&kms), listens(&b)), (vec![text(&a, "id")], false));
}

#[test]
fn a_machine_keeps_its_attachment_unless_forced() {
    let kms = Kms::active_with_backend("frontend-connected");
    let [a, b] = attached(&kms);
    kms.refuses(
        "/v1/disks/data/detach",
        json!({"instance": "a"}),
        "FrontendConnected",
        None,
    );
    assert!(listens(&a) && listens(&b));
    assert_eq!(kms.usage("detach"), 0);
    detach(&kms, "a", true);
    assert!(!listens(&a) && listens(&b) && is_alive(pid(&a)));
}

/// Somebody else takes the path of one socket while the process is away.
#[test]
fn a_socket_that_cannot_be_had_keeps_only_its_own_machine_waiting() {
    let kms = Kms::active();
    shared(&kms, "data");
    kms.instance("a");
    kms.instance("b");
    let a = kms.attach("data", "a");
    let path = kms.path("b.sock");
    let b = kms.make(
        "/v1/attachments",
        json!({"disk": "data", "instance": "b", "vhost_socket": path}),
    );
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    kill(pid(&a), "KILL");
    let state = |of: &Value| {
        let shown = kms.get(&format!("/v1/attachments/{}", text(of, "id")));
        text(&shown, "state")
    };
    kms.until("one is served", || {
        state(&a) == "serving" && state(&b) == "restarting" && listens(&a)
    });
    drop(other);
    kms.until("both are served", || {
        state(&b) == "serving" && Path::new(&path).exists() && listens(&b)
    });
}

#[test]
fn a_shared_disk_has_as_many_instances_as_the_clouds_allow() {
    let kms = Kms::active();
    shared(&kms, "data");
    for number in 0..17 {
        let name = format!("vm{number}");
        kms.instance(&name);
        let body = json!({"disk": "data", "instance": name});
        if number < 16 {
            assert!(listens(&kms.make("/v1/attachments", body)), "{name}");
        } else {
            kms.refuses("/v1/attachments", body, "TooManyAttachments", Some("D09"));
        }
    }
    assert_eq!(kms.backends().len(), 1);
    let shown = kms.get("/v1/disks/data");
    assert_eq!(shown["attachments"].as_array().unwrap().len(), 16);
}

/// Another supervisor starts the process when it likes; it then serves all.
#[test]
fn attachments_of_a_process_that_another_supervisor_starts() {
    let kms = Kms::active();
    shared(&kms, "data");
    for name in ["a", "b"] {
        kms.instance(name);
    }
    let a = kms.make(
        "/v1/attachments",
        json!({"disk": "data", "instance": "a", "start": false}),
    );
    let b = kms.attach("data", "b");
    assert_eq!((&b["state"], listens(&b)), (&json!("waiting"), false));
    let command = text(&a, "command");
    assert!(command.starts_with(&text(&b, "command")), "one process: {b}");
    let words: Vec<_> = command.split_whitespace().skip(1).collect();
    let program = Path::new(&kms.path("sealblk")).to_owned();
    let mut child = std::process::Command::new(program).args(words).spawn().unwrap();
    kms.until("both are served", || {
        let disk = kms.get("/v1/disks/data");
        disk["pid"].as_u64() == Some(child.id().into()) && listens(&b)
    });
    detach(&kms, "a", false);
    detach(&kms, "b", false);
    child.wait().unwrap();
}

/// What is in the catalogue holds, whoever writes there.
#[test]
fn rule_d09_the_catalogue_keeps_a_second_attachment_from_other_disks() {
    let mut kms = Kms::active();
    attached(&kms);
    kms.kill();
    let tamper = |statement: &str| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| kms.tamper(statement))).is_err()
    };
    assert!(tamper("UPDATE disks SET shared = 0"));
    let insert = "INSERT INTO attachments SELECT 'att-new', account, disk, service, 'ins-new', queues, read_only, NULL, NULL,
                  NULL, socket_mode, 1000, created FROM attachments LIMIT 1;";
    let unshare = "DROP TRIGGER disks_keep_shared; UPDATE disks SET shared = 0;";
    assert!(tamper(&format!(
        "PRAGMA foreign_keys = OFF; BEGIN; {unshare} {insert} COMMIT"
    )));
}

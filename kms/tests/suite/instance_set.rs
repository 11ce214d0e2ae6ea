//! An instance is renamed and declared anew; not so that attached encrypted disks could not have been attached (rules A03
//! and A04).

use crate::common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use crate::common::{Kms, MIB, Value, json, refused};

const VM: &str = "/v1/instances/vm";

fn refuses(kms: &Kms, body: Value, code: &str, rule: Option<&str>) {
    let before = kms.get(VM);
    let (status, answer) = kms.patch(VM, body);
    refused(status, &answer, code, rule);
    assert_eq!(kms.get(VM), before);
    let last = kms.audit("instance.set").pop().unwrap();
    assert_eq!(last, ("refused".to_owned(), code.to_owned()));
}

fn sets(kms: &Kms, instance: &str, body: Value) -> Value {
    let (status, answer) = kms.patch(&format!("/v1/instances/{instance}"), body);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// An encrypted disk is attached to the instance `vm`.
fn attached(kms: &Kms) {
    kms.disk("secret");
    kms.attach("secret", "vm");
}

#[test]
fn what_is_given_changes_and_the_rest_stays() {
    let kms = Kms::active();
    let before = kms.instance("vm");
    kms.instance("other");
    let changed = sets(
        &kms,
        "vm",
        json!({"name": "web", "vm_socket": "/run/web", "boot_disk": "/boot.raw", "local_storage": true}),
    );
    assert_eq!(changed, kms.get("/v1/instances/web"));
    assert_eq!(
        (
            &changed["id"],
            &changed["zone"],
            &changed["created"],
            &changed["bare_metal"]
        ),
        (&before["id"], &before["zone"], &before["created"], &json!(false))
    );
    assert_eq!(
        (
            &changed["vm_socket"],
            &changed["boot_disk"],
            &changed["local_storage"]
        ),
        (&json!("/run/web"), &json!("/boot.raw"), &json!(true))
    );
    let none = sets(&kms, "web", json!({"vm_socket": null, "local_storage": false}));
    assert_eq!(
        (&none["vm_socket"], &none["boot_disk"], &none["local_storage"]),
        (&Value::Null, &json!("/boot.raw"), &json!(false))
    );
    sets(&kms, "web", json!({"name": "vm"}));
    refuses(&kms, json!({}), "InvalidRequest", None);
    refuses(&kms, json!({"name": "other"}), "NameTaken", None);
    refuses(&kms, json!({"name": "a b"}), "InvalidName", None);
    refuses(&kms, json!({"vm_socket": "run/web"}), "InvalidPath", None);
    refuses(&kms, json!({"boot_disk": "boot"}), "InvalidPath", None);
    let (status, answer) = kms.patch("/v1/instances/none", json!({"name": "x"}));
    refused(status, &answer, "NotFound", None);
    let (status, answer) = kms.patch(VM, json!({"zone": "z"}));
    refused(status, &answer, "InvalidRequest", None);
}

#[test]
fn rule_a03_local_storage_is_not_declared_under_an_encrypted_disk() {
    let kms = Kms::active();
    kms.instance("vm");
    attached(&kms);
    refuses(&kms, json!({"local_storage": true}), "LocalStorage", Some("A03"));
    refuses(
        &kms,
        json!({"name": "x", "local_storage": true}),
        "LocalStorage",
        Some("A03"),
    );
    sets(&kms, "vm", json!({"local_storage": false, "name": "vm"}));
    // Not refused by this profile, nor anything of a plain disk.
    sets(&kms, "vm", json!({"bare_metal": true}));
    kms.make("/v1/disks/secret/detach", json!({}));
    kms.make(
        "/v1/disks",
        json!({"name": "plain", "size": MIB, "store": "raw", "encrypted": false}),
    );
    kms.attach("plain", "vm");
    sets(&kms, "vm", json!({"local_storage": true}));
}

#[test]
fn rule_a04_bare_metal_is_not_declared_under_an_encrypted_disk() {
    let kms = Kms::of_profile("alibaba-ecs", 0);
    kms.make("/v1/kms/activate", json!({}));
    kms.instance("vm");
    attached(&kms);
    refuses(&kms, json!({"bare_metal": true}), "BareMetal", Some("A04"));
    // This profile says nothing of local storage.
    sets(&kms, "vm", json!({"local_storage": true}));
    kms.make("/v1/disks/secret/detach", json!({}));
    sets(&kms, "vm", json!({"bare_metal": true}));
}

#[test]
fn rule_a03_a_machine_that_is_declared_under_an_encrypted_disk_is_asked() {
    let kms = Kms::active();
    kms.instance("vm");
    attached(&kms);
    let (socket, boot) = (kms.path("qmp"), kms.path("boot.raw"));
    std::fs::write(&boot, "").unwrap();
    machine(&socket, &boot);
    // It can write to its boot disk, which is not declared as such.
    refuses(&kms, json!({"vm_socket": socket}), "LocalDevice", Some("A03"));
    let both = json!({"vm_socket": socket, "boot_disk": boot});
    assert_eq!(sets(&kms, "vm", both)["vm_socket"], json!(socket));
    refuses(&kms, json!({"boot_disk": null}), "LocalDevice", Some("A03"));
    // Then it would not be asked any more.
    refuses(&kms, json!({"vm_socket": null}), "InstanceInUse", None);
    kms.make("/v1/disks/secret/detach", json!({}));
    sets(&kms, "vm", json!({"vm_socket": null}));
}

/// A virtual machine that runs and can write to `file`, asked over QMP as often as one likes.
fn machine(socket: &str, file: &str) {
    let listener = UnixListener::bind(socket).unwrap();
    let node = json!({"node-name": "boot", "drv": "file", "file": file, "ro": false, "cache": {}});
    let answers = [json!({"return": {}}), json!({ "return": [node] })];
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut commands = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = stream.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
            for answer in &answers {
                if commands.next().is_some() {
                    let _ = stream.write_all(format!("{answer}\r\n").as_bytes());
                }
            }
        }
    });
}

#[test]
fn a_watched_disk_is_shown_again_and_again() {
    let kms = Kms::active();
    kms.disk("data");
    let lines = |format: &str, words: &[&str]| {
        let mut watcher = Command::new(common::sealctl())
            .args(["-o", format, "--socket"])
            .arg(kms.state().join("kms.sock"))
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
        (watcher, lines.map(Result::unwrap))
    };
    let (mut watcher, mut shown) = lines("json", &["disk", "show", "data", "--watch"]);
    let mut next = || -> Value { serde_json::from_str(&shown.next().unwrap()).unwrap() };
    assert_eq!(next()["name"], "data");
    let id = next()["id"].clone();
    let (status, _) = kms.patch("/v1/disks/data", json!({"name": "data2"}));
    assert_eq!(status, 200);
    // It was asked for by its name, which there is not any more.
    drop(shown.find(|line| !line.contains(id.as_str().unwrap())));
    assert_eq!(watcher.wait().unwrap().code(), Some(1));
    // Without a terminal, text has no control characters, and an empty line between two answers.
    let (mut watcher, shown) = lines("text", &["kms", "status", "--watch"]);
    let shown: Vec<String> = shown.take_while(|line| !line.is_empty()).collect();
    assert!(shown.iter().any(|line| line.starts_with("region:")), "{shown:?}");
    assert!(!shown.concat().contains('\u{1b}'), "{shown:?}");
    watcher.kill().unwrap();
    watcher.wait().unwrap();
}

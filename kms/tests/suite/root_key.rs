//! Where the root key comes from, and its rotation (rules K12, K13), with real files and real crashes.

use crate::common;

use std::process::Command;

use crate::common::{Kms, MIB, json};

const PASSPHRASE: &str = "correct horse battery staple";

fn with_disk() -> Kms {
    let kms = Kms::active_with_backend("tells-key");
    kms.instance("vm");
    kms.disk("data");
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make(
        "/v1/disks",
        json!({"name": "own", "size": MIB, "store": "raw", "key": "mine"}),
    );
    kms
}

/// The keys that the disks are served with.
fn keys(kms: &Kms) -> [String; 2] {
    ["data", "own"].map(|disk| {
        let key = kms.given_key(&kms.attach(disk, "vm"));
        kms.make(&format!("/v1/disks/{disk}/detach"), json!({}));
        key
    })
}

/// Whether a file of the state directory has these bytes anywhere.
fn holds(kms: &Kms, wrapped: &[u8]) -> bool {
    let files = std::fs::read_dir(kms.state()).unwrap().flatten();
    let mut contents = files.filter_map(|entry| std::fs::read(entry.path()).ok());
    contents.any(|bytes| bytes.windows(wrapped.len()).any(|window| window == wrapped))
}

fn root(kms: &Kms) -> Vec<u8> {
    std::fs::read(kms.state().join("root.key")).unwrap()
}

#[test]
fn rule_k12_the_root_key_is_rotated_and_everything_opens_as_before() {
    let mut kms = with_disk();
    let (before, old) = (keys(&kms), root(&kms));
    let wrapped = kms.blob("SELECT wrapped FROM key_material");
    assert!(holds(&kms, &wrapped), "the search finds what is there");
    kms.make("/v1/kms/rotate-root", json!({}));
    assert!(!holds(&kms, &wrapped), "nothing is left under the old one");
    assert_ne!(root(&kms), old);
    assert!(!kms.state().join("root.key.next").exists());
    assert_eq!(keys(&kms), before);
    // What is made now is under the new one, which a new process has alone.
    kms.make("/v1/keys", json!({"name": "later"}));
    kms.make(
        "/v1/disks",
        json!({"name": "later", "size": MIB, "store": "raw", "key": "later"}),
    );
    kms.restart();
    assert_eq!(keys(&kms), before);
    kms.attach("later", "vm");
    // The old one opens nothing.
    kms.kill();
    std::fs::write(kms.state().join("root.key"), old).unwrap();
    kms.fails(&["serve"], "RootKeyMismatch");
}

#[test]
fn rule_k12_a_rotation_that_was_interrupted_is_ended_or_forgotten() {
    let mut kms = with_disk();
    let (before, old) = (keys(&kms), root(&kms));
    kms.make("/v1/kms/rotate-root", json!({}));
    let new = root(&kms);
    // Stopped after the catalogue was put under the new key, and before that had its name.
    kms.kill();
    let (key, next) = (kms.state().join("root.key"), kms.state().join("root.key.next"));
    std::fs::rename(&key, &next).unwrap();
    let make = |path: &std::path::Path, bytes: &[u8]| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    make(&key, &old);
    kms.serve();
    assert_eq!((root(&kms), next.exists()), (new.clone(), false));
    assert_eq!(keys(&kms), before);
    // Stopped before that: the next rotation takes the key that was made.
    kms.kill();
    let staged = "ab".repeat(32) + "\n";
    make(&next, staged.as_bytes());
    kms.serve();
    assert_eq!(root(&kms), new);
    kms.make("/v1/kms/rotate-root", json!({}));
    assert_eq!(root(&kms), staged.as_bytes());
    assert_eq!(keys(&kms), before);
}

#[test]
fn rule_k12_rotations_and_first_uses_at_once_lose_nothing() {
    let mut kms = with_disk();
    let before = keys(&kms);
    std::thread::scope(|scope| {
        let kms = &kms;
        for number in 0..4 {
            scope.spawn(move || {
                for round in 0..4 {
                    let name = format!("key{number}.{round}");
                    kms.make("/v1/keys", json!({"name": name}));
                    kms.make(
                        "/v1/disks",
                        json!({"name": name, "size": MIB, "store": "raw", "key": name}),
                    );
                    kms.attach(&name, "vm");
                    kms.make(&format!("/v1/disks/{name}/detach"), json!({}));
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(move || {
                for _ in 0..4 {
                    kms.make("/v1/kms/rotate-root", json!({}));
                }
            });
        }
    });
    kms.restart();
    assert_eq!(keys(&kms), before);
    for number in 0..4 {
        for round in 0..4 {
            kms.attach(&format!("key{number}.{round}"), "vm");
        }
    }
}

fn with_passphrase() -> Kms {
    let kms = Kms::start();
    std::fs::write(kms.path("passphrase"), PASSPHRASE).unwrap();
    std::fs::write(kms.path("wrong"), "another passphrase").unwrap();
    kms
}

#[test]
fn rule_k13_a_root_key_under_a_passphrase_is_named_so_and_opens_with_it_alone() {
    let mut kms = with_passphrase();
    kms.kill();
    std::fs::remove_dir_all(kms.state()).unwrap();
    let (right, wrong) = (kms.path("passphrase"), kms.path("wrong"));
    let init = [
        "init",
        "--region",
        "eu-1",
        "--root-key",
        "passphrase",
        "--passphrase-file",
    ];
    assert!(kms.run(&[&init[..], &[&right]].concat()).status.success());
    assert!(!kms.state().join("root.key").exists());
    kms.fails(&["serve", "--passphrase-file", &wrong], "WrongPassphrase");
    // What may be the only key of a catalogue that was lost is never replaced.
    let sealed = std::fs::read(kms.state().join("root.key.sealed")).unwrap();
    let lost = kms.state().join("catalogue.db");
    std::fs::rename(&lost, kms.path("catalogue")).unwrap();
    kms.fails(&[&init[..], &[&right]].concat(), "StateExists");
    std::fs::rename(kms.path("catalogue"), &lost).unwrap();
    assert_eq!(
        std::fs::read(kms.state().join("root.key.sealed")).unwrap(),
        sealed
    );
    kms.options = vec!["--passphrase-file".into(), right.clone()];
    kms.serve();
    let status = kms.get("/v1/kms");
    assert_eq!(status["root_key"], "passphrase");
    let note = status["root_key_note"].as_str().unwrap();
    assert!(note.contains("Argon2id") && note.contains("K13"), "{note}");
    kms.make("/v1/kms/activate", json!({}));
    kms.disk("data");
    kms.instance("vm");
    kms.make("/v1/kms/rotate-root", json!({}));
    kms.restart();
    kms.attach("data", "vm");
    // A backup with the root key has it as a file.
    let (backup, restored) = (kms.path("backup"), kms.path("restored"));
    let output = kms.run(&[
        "backup",
        &backup,
        "--with-root-key",
        "--passphrase-file",
        &right,
        "--root-passphrase-file",
        &right,
    ]);
    assert!(output.status.success(), "{output:?}");
    let output = kms.run(&[
        "restore",
        "--state",
        &restored,
        &backup,
        "--passphrase-file",
        &right,
    ]);
    assert!(output.status.success(), "{output:?}");
    assert!(std::path::Path::new(&restored).join("root.key").exists());
}

#[test]
fn rule_k13_a_key_file_needs_no_note() {
    let status = Kms::start().get("/v1/kms");
    assert_eq!(
        (&status["root_key"], &status["root_key_note"]),
        (&json!("file"), &json!(null))
    );
}

#[test]
fn a_systemd_credential_is_the_root_key() {
    let kms = Kms::start();
    let state = kms.path("other");
    let credentials = kms.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealblk-kms"));
        command.args(words).args(["--state", &state]);
        common::finish(command.env("CREDENTIALS_DIRECTORY", &credentials))
    };
    let init = ["init", "--region", "r", "--root-key", "credential"];
    let text = String::from_utf8(run(&init).stderr).unwrap();
    assert!(text.contains("RootKeyMissing"), "{text}");
    std::fs::write(format!("{credentials}/sealblk-root-key"), "cd".repeat(32)).unwrap();
    let output = run(&init);
    assert!(output.status.success(), "{output:?}");
    assert!(!std::path::Path::new(&state).join("root.key").exists());
    // Another key does not fit; the next one does only after a rotation.
    std::fs::write(format!("{credentials}/sealblk-root-key"), "ce".repeat(32)).unwrap();
    let text = String::from_utf8(run(&["serve"]).stderr).unwrap();
    assert!(text.contains("RootKeyMismatch"), "{text}");
}

//! Making, serving and restoring state directories.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::{Kms, json, refused};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

#[test]
fn a_state_directory_is_private_and_made_once() {
    let kms = Kms::start();
    let state = kms.state();
    for (name, expected) in [
        ("", 0o711),
        ("root.key", 0o600),
        ("catalogue.db", 0o600),
        ("disks", 0o700),
        ("run", 0o711),
        ("kms.sock", 0o600),
    ] {
        assert_eq!(mode(&state.join(name)), expected, "{name}");
    }
    let key = std::fs::read(state.join("root.key")).unwrap();
    kms.fails(&["init", "--region", "eu-1"], "StateExists");
    assert_eq!(std::fs::read(state.join("root.key")).unwrap(), key);
}

#[test]
fn init_refuses_what_it_does_not_know() {
    let kms = Kms::start();
    let other = kms.path("other");
    for (arguments, code) in [
        (["--region", "eu 1", "--profile", "sealblk"], "InvalidName"),
        (["--region", "eu-1", "--profile", "huawei-evs"], "UnknownProfile"),
    ] {
        kms.fails(
            &[&["init", "--state", &other], arguments.as_slice()].concat(),
            code,
        );
        assert!(!Path::new(&other).exists());
    }
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let mut kms = Kms::active();
    kms.fails(&["serve"], "StateInUse");
    kms.fails(&["serve", "--socket", &kms.path("other.sock")], "StateInUse");
    kms.disk("data"); // The first goes on.
    // Killed, it leaves its socket and lock; neither hinders the next.
    kms.kill();
    assert!(kms.state().join("kms.sock").exists());
    kms.serve();
    kms.get("/v1/disks/data");
}

#[test]
fn a_root_key_that_others_can_reach_is_refused() {
    let mut kms = Kms::start();
    kms.kill();
    let path = kms.state().join("root.key");
    for bad in [0o640, 0o604, 0o660, 0o666] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bad)).unwrap();
        kms.fails(&["serve"], "RootKeyPermissions");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    kms.serve();
}

#[test]
fn a_foreign_missing_or_broken_root_key_is_refused() {
    let mut kms = Kms::active();
    kms.kill();
    let path = kms.state().join("root.key");
    let right = std::fs::read(&path).unwrap();
    std::fs::write(&path, "0123456789abcdef".repeat(4)).unwrap();
    kms.fails(&["serve"], "RootKeyMismatch");
    std::fs::write(&path, "too short").unwrap();
    kms.fails(&["serve"], "RootKeyInvalid");
    std::fs::remove_file(&path).unwrap();
    kms.fails(&["serve"], "RootKeyMissing");
    assert!(!path.exists(), "a lost root key is not replaced by a new one");
    std::fs::write(&path, right).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    kms.serve();
}

#[test]
fn rule_k06_wrapped_keys_that_were_tampered_with_attach_nothing() {
    let mut kms = Kms::active();
    kms.disk("data");
    kms.instance("vm");
    for column in [
        "lineages SET wrapped_key",
        "lineages SET wrapped_salt",
        "key_versions SET wrapped",
    ] {
        kms.kill();
        let (table, field) = column.split_once(" SET ").unwrap();
        kms.tamper(&format!(
            "CREATE TABLE kept AS SELECT {field} AS blob FROM {table}"
        ));
        kms.tamper(&format!("UPDATE {column} = zeroblob(61)"));
        kms.serve();
        kms.refuses(
            "/v1/attachments",
            json!({"disk": "data", "instance": "vm"}),
            "WrappedKeyInvalid",
            None,
        );
        kms.kill();
        // One bit only.
        kms.tamper(&format!(
            "UPDATE {column} = (SELECT unhex(substr(hex(blob), 1, 121) ||
                CASE substr(hex(blob), 122) WHEN '0' THEN '1' ELSE '0' END) FROM kept)"
        ));
        kms.serve();
        kms.refuses(
            "/v1/attachments",
            json!({"disk": "data", "instance": "vm"}),
            "WrappedKeyInvalid",
            None,
        );
        assert_eq!(
            (kms.get("/v1/disks/data")["state"].as_str(), kms.backends().len()),
            (Some("available"), 0)
        );
        kms.kill();
        kms.tamper(&format!(
            "UPDATE {column} = (SELECT blob FROM kept); DROP TABLE kept"
        ));
        kms.serve();
    }
    kms.attach("data", "vm");
}

#[test]
fn a_catalogue_that_is_none_is_refused() {
    let mut kms = Kms::start();
    kms.kill();
    kms.tamper("PRAGMA application_id = 1");
    kms.fails(&["serve"], "StateUnusable");
    let missing = kms.path("missing");
    kms.fails(&["serve", "--state", &missing], "StateMissing");
}

/// Restores a backup beside the state directory it is from. Gives the new directory.
fn restore(kms: &Kms, file: &str, more: &[&str]) -> (String, std::process::Output) {
    let state = kms.path("restored");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sealblk-kms"))
        .args(["restore", "--state", &state, file])
        .args(more)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    (state, output)
}

#[test]
fn a_backup_while_serving_brings_everything_back() {
    let mut kms = Kms::active();
    let disk = kms.disk("data");
    let file = kms.path("backup");
    let output = kms.run(&["backup", &file]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mode(Path::new(&file)), 0o600);
    kms.fails(&["backup", &file], "FileExists");
    kms.disk("later");
    let key = kms.state().join("root.key");
    let bytes = std::fs::read(&file).unwrap();
    let text = std::fs::read(&key).unwrap();
    assert!(
        !bytes.windows(64).any(|window| window == &text[..64]),
        "the root key is not in it"
    );
    let (state, output) = restore(&kms, &file, &[]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("root.key"), "{text}");
    // Without the root key it does not serve, with it everything is there, and nothing that came later.
    kms.kill();
    kms.fails(&["serve", "--state", &state], "RootKeyMissing");
    std::fs::copy(&key, Path::new(&state).join("root.key")).unwrap();
    std::fs::rename(kms.state(), kms.path("lost")).unwrap();
    std::fs::rename(&state, kms.state()).unwrap();
    kms.serve();
    let disks = kms.get("/v1/disks");
    assert_eq!(disks["disks"].as_array().unwrap().len(), 1);
    assert_eq!(disks["disks"][0]["lineage"], disk["lineage"]);
    // With the data in its place, the disk can be attached: its keys open.
    let name = disk["id"].as_str().unwrap();
    std::fs::rename(
        kms.path(&format!("lost/disks/{name}")),
        kms.state().join("disks").join(name),
    )
    .unwrap();
    kms.instance("vm");
    kms.attach("data", "vm");
}

#[test]
fn a_backup_with_the_root_key_needs_its_passphrase() {
    let kms = Kms::active();
    kms.disk("data");
    let file = kms.path("backup");
    let write = |name: &str, text: &str| {
        std::fs::write(kms.path(name), text).unwrap();
        kms.path(name)
    };
    let (short, right, wrong) = (
        write("short", "short\n"),
        write("right", "correct horse battery staple\n"),
        write("wrong", "correct horse battery stable\n"),
    );
    kms.fails(
        &["backup", &file, "--with-root-key", "--passphrase-file", &short],
        "InvalidPassphrase",
    );
    let output = kms.run(&["backup", &file, "--with-root-key", "--passphrase-file", &right]);
    assert!(output.status.success(), "{output:?}");
    let (state, output) = restore(&kms, &file, &["--passphrase-file", &wrong]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("error: WrongPassphrase"), "{text}");
    assert_eq!(
        std::fs::read_dir(&state).unwrap().count(),
        0,
        "nothing is left of it"
    );
    let (state, output) = restore(&kms, &file, &["--passphrase-file", &right]);
    assert!(output.status.success(), "{output:?}");
    let key = Path::new(&state).join("root.key");
    assert_eq!(mode(&key), 0o600);
    assert_eq!(
        std::fs::read(&key).unwrap(),
        std::fs::read(kms.state().join("root.key")).unwrap()
    );
    let (_, output) = restore(&kms, &file, &["--passphrase-file", &right]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: StateExists"));
}

#[test]
fn damaged_backups_are_refused() {
    let kms = Kms::active();
    let file = kms.path("backup");
    assert!(kms.run(&["backup", &file]).status.success());
    let good = std::fs::read(&file).unwrap();
    let mut spoiled = good.clone();
    let position = good
        .windows(12)
        .position(|window| window == b"kms.activate")
        .unwrap();
    spoiled[position] = b'K';
    for bad in [
        b"no database".to_vec(),
        Vec::new(),
        good[..good.len() / 2].to_vec(),
        spoiled,
    ] {
        std::fs::write(&file, &bad).unwrap();
        let (state, output) = restore(&kms, &file, &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("error: BackupInvalid"), "{text}");
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
    }
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let kms = Kms::start();
    assert_eq!(kms.run(&["serve", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(kms.run(&["backup"]).status.code(), Some(2));
    let (status, answer) = kms.call("GET", "/v1/nothing", None);
    refused(status, &answer, "NoSuchRoute", None);
}

//! Making, serving and restoring state directories.

use crate::common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::common::{Kms, json, refused};

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
        (
            ["--region", "eu-1", "--profile", "openstack-cinder"],
            "UnknownProfile",
        ),
    ] {
        kms.fails(
            &[&["init", "--state", &other], arguments.as_slice()].concat(),
            code,
        );
        assert!(!Path::new(&other).exists());
    }
}

#[test]
fn init_activates_where_it_is_asked_to() {
    let mut kms = Kms::start();
    assert_eq!(kms.get("/v1/kms")["state"], "inactive");
    kms.kill();
    std::fs::remove_dir_all(kms.state()).unwrap();
    let region = ["init", "--region", "eu-1", "--activate"];
    kms.fails(
        &[&region[..], &["--profile", "huawei-evs"]].concat(),
        "NotSupported",
    );
    assert!(kms.run(&region).status.success());
    kms.serve();
    assert_eq!(kms.get("/v1/kms")["state"], "active");
    kms.disk("data");
    assert_eq!(kms.audit("kms.activate").len(), 1);
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
        "key_material SET wrapped",
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

/// Takes a backup, ends the daemon, and puts what is restored from it, with the old root key, in the place of the state.
fn lose_and_restore(kms: &mut Kms) {
    let file = kms.path("backup");
    assert!(kms.run(&["backup", &file]).status.success());
    assert_eq!(kms.stop(), Some(0));
    let (state, output) = restore(kms, &file, &[]);
    assert!(output.status.success(), "{output:?}");
    std::fs::copy(kms.state().join("root.key"), Path::new(&state).join("root.key")).unwrap();
    std::fs::rename(kms.state(), kms.path("lost")).unwrap();
    std::fs::rename(&state, kms.state()).unwrap();
}

/// A backup was taken while a create was open. The file that is there now is of a later time: it stays.
#[test]
fn a_restore_ends_what_was_open_and_touches_no_file() {
    let mut kms = Kms::active();
    let (one, other) = (kms.path("one.img"), kms.path("other.img"));
    kms.make(
        "/v1/disks",
        json!({"name": "one", "size": common::MIB, "path": one}),
    );
    kms.make(
        "/v1/disks",
        json!({"name": "other", "size": common::MIB, "path": other}),
    );
    kms.disk("free");
    kms.instance("vm");
    kms.attach("free", "vm");
    let pids = kms.backends();
    kms.kill();
    pids.iter().for_each(|pid| common::kill(*pid, "KILL"));
    let open = |call: &str, name: &str, state: &str, metered: &str| {
        format!(
            "INSERT INTO intents (id, account, call, disk, attachment, uid, pid, request, metered, month, created)
             SELECT 'int-{name}', account, '{call}', id, (SELECT id FROM attachments WHERE disk = disks.id), 0, 1,
                    'req', {metered}, substr(created, 1, 7), created FROM disks WHERE name = '{name}';
             UPDATE disks SET state = '{state}' WHERE name = '{name}';"
        )
    };
    kms.tamper(&open("disk.create", "one", "creating", "'create'"));
    kms.tamper(&open("disk.delete", "other", "deleting", "NULL"));
    kms.tamper(&open("attach", "free", "attaching", "'attach'"));
    let file = kms.path("backup");
    assert!(kms.run(&["backup", &file]).status.success());
    let (state, output) = restore(&kms, &file, &[]);
    assert!(output.status.success(), "{output:?}");
    std::fs::copy(kms.state().join("root.key"), Path::new(&state).join("root.key")).unwrap();
    std::fs::rename(kms.state(), kms.path("lost")).unwrap();
    std::fs::rename(&state, kms.state()).unwrap();
    kms.serve();
    for (name, state) in [("one", "error"), ("other", "error"), ("free", "available")] {
        assert_eq!(kms.get(&format!("/v1/disks/{name}"))["state"], state, "{name}");
    }
    assert!(Path::new(&one).exists() && Path::new(&other).exists());
    assert_eq!(kms.get("/v1/attachments")["attachments"], json!([]));
    assert_eq!((kms.usage("create"), kms.usage("attach")), (2, 0), "refunded");
    for call in ["disk.create", "disk.delete", "attach"] {
        assert_eq!(kms.audit(call).last().unwrap().0, "failed", "{call}");
    }
    // Their owner decides.
    assert_eq!(kms.call("DELETE", "/v1/disks/one", None).0, 200);
}

/// Nobody knows how far it came, or what was done with the disk after it: nothing goes on, and nothing is overwritten.
#[test]
fn a_restore_ends_the_copies_that_went_on_and_removes_no_file() {
    let mut kms = Kms::active_with_backend("halts");
    for name in ["from", "to", "exported"] {
        kms.make(
            "/v1/disks",
            json!({"name": name, "size": common::MIB, "encrypted": false, "path": kms.path(name)}),
        );
    }
    kms.make("/v1/disks/to/copy", json!({"source": "from"}));
    let exported = kms.path("file");
    kms.make("/v1/disks/exported/export", json!({"file": exported}));
    for name in ["to", "exported"] {
        let path = format!("/v1/disks/{name}");
        kms.until("it goes on", || kms.get(&path)["copy"]["done"] == 4096);
    }
    lose_and_restore(&mut kms);
    kms.behave("sealblk");
    kms.serve();
    let to = kms.get("/v1/disks/to");
    assert_eq!(
        (&to["state"], &to["copy"]["phase"]),
        (&json!("error"), &json!("cancelled"))
    );
    assert_eq!(kms.get("/v1/disks/exported")["copy"]["phase"], "cancelled");
    assert_eq!(kms.get("/v1/disks/exported")["state"], "available");
    for call in ["disk.copy", "disk.export"] {
        assert_eq!(kms.audit(call).last().unwrap().0, "failed", "{call}");
    }
    let again = json!({"source": "from"});
    kms.refuses("/v1/disks/to/copy", again, "DiskNotAvailable", Some("D05"));
    // Its owner takes it as it is.
    kms.make("/v1/disks/to/copy/cancel", json!({}));
    assert_eq!(kms.get("/v1/disks/to")["state"], "available");
    let again = json!({"source": "from"});
    kms.refuses("/v1/disks/to/copy", again, "DiskNotEmpty", Some("D04"));
    assert!(Path::new(&exported).exists());
    // Nor is the file taken for ours later.
    kms.kill();
    kms.tamper("UPDATE disks SET state = 'error' WHERE name = 'exported'");
    kms.serve();
    kms.make("/v1/disks/exported/copy/cancel", json!({}));
    assert!(Path::new(&exported).exists());
}

#[test]
fn a_restore_ends_the_copies_of_images_and_they_can_be_deleted() {
    let mut kms = Kms::active_with_backend("halts");
    kms.make(
        "/v1/disks",
        json!({"name": "data", "size": common::MIB, "encrypted": false}),
    );
    kms.make("/v1/images", json!({"name": "out", "disk": "data"}));
    let (source, exported) = (kms.path("source"), kms.path("file"));
    std::fs::write(&source, [7; 65536]).unwrap();
    kms.make("/v1/images/out/export", json!({"path": exported}));
    kms.make(
        "/v1/imports/images",
        json!({"name": "in", "file": source, "encrypted": true}),
    );
    for name in ["in", "out"] {
        let path = format!("/v1/images/{name}");
        kms.until("it goes on", || kms.get(&path)["copy"]["done"] == 4096);
    }
    lose_and_restore(&mut kms);
    // The disks are where they were; the catalogue alone was lost.
    std::fs::remove_dir_all(kms.state().join("disks")).unwrap();
    std::fs::rename(kms.path("lost") + "/disks", kms.state().join("disks")).unwrap();
    kms.behave("sealblk");
    kms.serve();
    for (name, state) in [("in", "error"), ("out", "available")] {
        let image = kms.get(&format!("/v1/images/{name}"));
        assert_eq!(
            (&image["state"], &image["copy"]["phase"]),
            (&json!(state), &json!("cancelled"))
        );
        assert_eq!(kms.call("DELETE", &format!("/v1/images/{name}"), None).0, 200);
    }
    assert!(Path::new(&exported).exists(), "nobody knows whose it is");
    let disks = kms.state().join("disks");
    kms.until("only the disk is left", || {
        std::fs::read_dir(&disks).unwrap().count() == 1
    });
}

#[test]
fn a_restore_that_was_stopped_is_repeated_and_not_taken_for_an_init() {
    let mut kms = Kms::active();
    let file = kms.path("backup");
    assert!(kms.run(&["backup", &file]).status.success());
    let state = kms.path("restored");
    let inside = |name: &str| Path::new(&state).join(name);
    for directory in ["", "disks", "run"] {
        std::fs::create_dir(inside(directory)).unwrap();
    }
    for (name, text) in [
        ("lock", ""),
        ("restore.db.new", "half"),
        ("restore.db.new-wal", "half"),
    ] {
        std::fs::write(inside(name), text).unwrap();
    }
    std::fs::copy(kms.state().join("root.key"), inside("root.key")).unwrap();
    kms.fails(&["init", "--region", "eu-1", "--state", &state], "StateExists");
    let (_, output) = restore(&kms, &file, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(inside("catalogue.db").exists() && !inside("restore.db.new").exists());
    let (_, output) = restore(&kms, &file, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: StateExists"));
    // A root key of another catalogue is found out, and stays.
    std::fs::remove_file(inside("catalogue.db")).unwrap();
    std::fs::write(inside("root.key"), "0123456789abcdef".repeat(4)).unwrap();
    let (_, output) = restore(&kms, &file, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: RootKeyMismatch"));
    assert!(inside("root.key").exists() && !inside("catalogue.db").exists());
    // A backup that cannot be read leaves nothing.
    let other = kms.path("directory");
    std::fs::create_dir(&other).unwrap();
    std::fs::remove_file(inside("root.key")).unwrap();
    let (_, output) = restore(&kms, &other, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: FileFailed"));
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
    kms.kill();
}

#[test]
fn init_is_repeated_after_a_crash_and_changes_no_directory_of_others() {
    let kms = Kms::start();
    let state = kms.path("second");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let inside = |name: &str| Path::new(&state).join(name);
    std::fs::write(inside("letter"), "").unwrap();
    let init = ["init", "--region", "eu-1", "--state", &state];
    kms.fails(&init, "StateExists");
    assert_eq!(
        (
            mode(Path::new(&state)),
            std::fs::read_dir(&state).unwrap().count()
        ),
        (0o700, 1)
    );
    std::fs::remove_file(inside("letter")).unwrap();
    // As a process that was killed while it wrote the root key leaves it.
    std::fs::write(inside("lock"), "").unwrap();
    std::fs::write(inside("root.key.new"), "0123").unwrap();
    assert!(kms.run(&init).status.success());
    assert_eq!(mode(Path::new(&state)), 0o700);
    assert_eq!(inside("root.key").metadata().unwrap().len(), 65);
    assert!(!inside("root.key.new").exists());
}

#[test]
fn rule_m04_a_changed_audit_log_is_not_served() {
    let mut kms = Kms::active();
    kms.kill();
    let trigger = "CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit\nBEGIN\n    \
                   SELECT RAISE(ABORT, 'the audit log is append-only (M04)');\nEND";
    kms.tamper("DROP TRIGGER audit_is_never_changed");
    kms.fails(&["serve"], "StateUnusable");
    kms.tamper("UPDATE audit SET uid = uid + 1 WHERE seq = 2");
    kms.tamper(trigger);
    kms.fails(&["serve"], "AuditBroken (M04)");
    kms.tamper("DROP TRIGGER audit_is_never_changed; UPDATE audit SET uid = uid - 1 WHERE seq = 2");
    kms.tamper(trigger);
    kms.serve();
}

#[test]
fn a_daemon_that_cannot_have_its_socket_starts_no_backend() {
    let mut kms = Kms::active();
    kms.disk("data");
    kms.instance("vm");
    let attachment = kms.attach("data", "vm")["id"].as_str().unwrap().to_owned();
    // Recovery would bind it anew, before it starts the backend.
    let dialled = kms.state().join("run").join(attachment).join("kms.sock");
    let pids = kms.backends();
    kms.kill();
    pids.iter().for_each(|pid| common::kill(*pid, "KILL"));
    kms.until("backends end", || kms.backends().is_empty());
    let inode = dialled.metadata().unwrap().ino();
    let path = kms.path("taken.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let backend = kms.path("sealblk");
    kms.fails(
        &["serve", "--sealblk", &backend, "--socket", &path],
        "SocketInUse",
    );
    assert_eq!(dialled.metadata().unwrap().ino(), inode);
    assert_eq!(kms.backends(), Vec::<i64>::new());
    assert!(Path::new(&path).exists());
}

#[test]
fn a_full_standard_output_stops_no_daemon() {
    let mut kms = Kms::active();
    kms.kill();
    let socket = kms.path("full.sock");
    let mut daemon = std::process::Command::new(env!("CARGO_BIN_EXE_sealblk-kms"))
        .args(["serve", "--socket", &socket, "--state"])
        .arg(kms.state())
        .stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    kms.until("it serves", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    common::kill(i64::from(daemon.id()), "TERM");
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert!(!Path::new(&socket).exists());
}

#[test]
fn a_second_signal_ends_the_daemon_at_once() {
    // This backend says that it ends and does not.
    let mut kms = Kms::active_with_backend("stubborn");
    kms.disk("data");
    kms.instance("vm");
    kms.attach("data", "vm");
    let mut stream = std::os::unix::net::UnixStream::connect(kms.state().join("kms.sock")).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"POST /v1/disks/data/detach HTTP/1.1\r\nHost: kms\r\nContent-Type: application/json\r\n\
          Content-Length: 2\r\n\r\n{}",
    )
    .unwrap();
    kms.until("it detaches", || {
        kms.get("/v1/disks/data")["state"] == "detaching"
    });
    let pid = i64::from(kms.daemon.as_ref().unwrap().id());
    common::kill(pid, "TERM");
    kms.until("it ends", || !kms.state().join("kms.sock").exists());
    assert_eq!(kms.stop(), Some(0));
    assert!(kms.log().contains("ending at once"), "{}", kms.log());
    kms.serve();
    kms.get("/v1/disks/data");
}

/// Nobody has meant it for those who parse what guests write.
#[test]
fn what_the_daemon_has_inherited_reaches_no_backend() {
    let mut kms = Kms::active();
    kms.kill();
    let path = kms.path("inherited");
    let file = std::fs::File::create(&path).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    kms.serve();
    kms.disk("data");
    kms.instance("vm");
    let backend = kms.attach("data", "vm")["pid"].as_i64().unwrap();
    let has_it = |pid: i64| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|target| target == Path::new(&path))
    };
    let daemon = i64::from(kms.daemon.as_ref().unwrap().id());
    assert!(has_it(daemon) || !rustix::process::geteuid().is_root());
    assert!(!has_it(backend));
}

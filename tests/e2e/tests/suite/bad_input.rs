//! Bad input, through the commands: the exact code and rule, exit status 1, and nothing changed.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use sealblk_e2e::binaries::binary;
use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::locks::try_lock;
use sealblk_e2e::{Outcome, process};

#[test]
fn unknown_objects() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    for disk in ["nothing", "disk-aaaaaaaaaaaaaaaa", "../data", "vm", "é\n"] {
        kms.refused(&["disk", "show", disk], "NotFound", None);
        kms.refused(&["disk", "delete", disk], "NotFound", None);
        kms.refused(&["attach", disk, "vm"], "NotFound", None);
        kms.refused(&["detach", disk], "NotFound", None);
    }
    kms.refused(&["attach", "data", "nothing"], "NotFound", None);
    kms.refused(&["instance", "show", "nothing"], "NotFound", None);
    kms.refused(&["instance", "remove", "nothing"], "NotFound", None);
    kms.refused(&["key", "show", "nothing"], "NotFound", None);
}

#[test]
fn names_taken_and_names_that_are_none() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "one"]);
    kms.create("one", &[]);
    kms.refused(&["disk", "create", "one", "--size", "1M"], "NameTaken", None);
    kms.refused(&["instance", "register", "one"], "NameTaken", None);
    let long = "n".repeat(65);
    for name in ["", ".hidden", "a/b", "a b", "é", &long, "disk-aaaaaaaaaaaaaaaa"] {
        kms.refused(&["disk", "create", name, "--size", "1M"], "InvalidName", None);
    }
    kms.refused(
        &["instance", "register", "ins-aaaaaaaaaaaaaaaa"],
        "InvalidName",
        None,
    );
    kms.create(&long[..64], &[]);
}

#[test]
fn sizes() {
    let kms = Kms::start();
    let above = ((64u64 << 40) + 512).to_string();
    for size in [
        "0",
        "1",
        "511",
        "513",
        "1000000",
        &above,
        "16777215T",
        "18446744073709551615",
    ] {
        kms.refused(&["disk", "create", "data", "--size", size], "InvalidSize", None);
    }
    for size in ["-1", "1GB", "1.5GiB", "16777216T", "big", ""] {
        kms.sealctl(&["disk", "create", "data", "--size", size])
            .usage_error();
    }
    kms.ok(&["disk", "create", "data", "--size", "512"]);
}

#[test]
fn missing_and_foreign_files() {
    let kms = Kms::start();
    kms.create("first", &[]);
    let create = |path: &str, code: &str| {
        kms.refused(
            &["disk", "create", "data", "--size", "1M", "--path", path],
            code,
            None,
        );
    };
    create(&kms.path_text("missing/disk.img"), "InvalidPath");
    let foreign = kms.path_text("foreign.img");
    fs::write(&foreign, b"precious").unwrap();
    create(&foreign, "FileNotEmpty");
    assert_eq!(fs::read(&foreign).unwrap(), b"precious");
    create("/dev/null", "NotAFileOrBlockDevice");
    create(&kms.path_text("."), "NotAFileOrBlockDevice");
    let target = kms.path("target.img");
    fs::write(&target, b"").unwrap();
    symlink(&target, kms.path("link.img")).unwrap();
    create(&kms.path_text("link.img"), "NotAFileOrBlockDevice");
    assert_eq!(target.metadata().unwrap().len(), 0);
}

#[test]
fn files_in_use() {
    let kms = Kms::start();
    let path = kms.path_text("one.img");
    kms.create("one", &["--path", &path]);
    for other in [path.as_str(), &kms.path_text("./one.img")] {
        let create = ["disk", "create", "two", "--size", "1M", "--path", other];
        kms.refused(&create, "FileInUse", None);
    }
    let locked = kms.path_text("locked.img");
    let create = ["disk", "create", "two", "--size", "1M", "--path", &locked];
    // Both kinds of lock that programs use.
    for lock in [|file: &fs::File| file.try_lock().is_ok(), try_lock] {
        let file = fs::File::create(&locked).unwrap();
        assert!(lock(&file));
        kms.refused(&create, "FileInUse", None);
    }
    kms.ok(&create);
}

#[test]
fn a_full_medium() {
    let kms = Kms::start();
    kms.create("first", &[]);
    // A tmpfs, which knows at once that it has not the room.
    let path = format!("/dev/shm/sealblk-e2e-{}.img", std::process::id());
    let create = [
        "disk", "create", "data", "--size", "60TiB", "--path", &path, "--store", "raw",
    ];
    kms.refused(&create, "NoSpace", None);
    assert!(!fs::exists(&path).unwrap(), "the file is left behind");
    assert_eq!(kms.metered("create"), 1);
    // The name is free again.
    kms.create("data", &[]);
}

#[test]
fn a_root_key_that_others_can_reach() {
    let mut kms = Kms::initialised();
    let key = kms.state().join("root.key");
    for mode in [0o640, 0o604, 0o620, 0o660, 0o644, 0o601] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        kms.serve_refused().refusal("RootKeyPermissions", None);
    }
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    kms.serve();
}

#[test]
fn a_root_key_that_is_none_or_another() {
    let mut kms = Kms::initialised();
    let key = kms.state().join("root.key");
    let good = fs::read(&key).unwrap();
    let refused = |contents: &[u8], code: &str| {
        fs::write(&key, contents).unwrap();
        kms.serve_refused().refusal(code, None);
    };
    refused(b"", "RootKeyInvalid");
    refused(&good[..63], "RootKeyInvalid");
    refused(&[&good[..64], &good[..1]].concat(), "RootKeyInvalid");
    refused("0".repeat(64).as_bytes(), "RootKeyMismatch");
    fs::remove_file(&key).unwrap();
    kms.serve_refused().refusal("RootKeyMissing", None);
    fs::write(&key, good).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    kms.serve();
}

/// Lets `damage` change the catalogue of a KMS with the disks `one` and `two`, and attaches `one`.
fn attach_after(damage: &str) -> (Kms, Outcome) {
    let mut kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("one", &[]);
    kms.create("two", &[]);
    kms.stop();
    Catalogue::open(&kms.state()).execute(damage);
    kms.serve();
    let outcome = kms.sealctl(&["attach", "one", "vm"]);
    (kms, outcome)
}

#[test]
fn tampered_and_swapped_wrapped_keys() {
    let lineage =
        |name: &str| format!("(SELECT lineage FROM volumes JOIN disks USING (id) WHERE name = '{name}')");
    let flip = |column: &str| {
        let flipped = format!("CASE substr({column}, 30, 1) WHEN x'00' THEN x'01' ELSE x'00' END");
        format!("{column} = CAST(substr({column}, 1, 29) || {flipped} || substr({column}, 31) AS BLOB)")
    };
    let swap = |column: &str| {
        let other = format!("(SELECT {column} FROM lineages WHERE id = {})", lineage("two"));
        format!(
            "UPDATE lineages SET {column} = {other} WHERE id = {}",
            lineage("one")
        )
    };
    let damages = [
        format!("UPDATE lineages SET {}", flip("wrapped_key")),
        format!("UPDATE lineages SET {}", flip("wrapped_salt")),
        format!("UPDATE key_material SET {}", flip("wrapped")),
        swap("wrapped_key"),
        swap("wrapped_salt"),
        "UPDATE lineages SET wrapped_key = wrapped_salt".to_owned(),
        "UPDATE lineages SET wrapped_key = x'01'".to_owned(),
    ];
    for damage in damages {
        let (kms, outcome) = attach_after(&damage);
        outcome.refusal("WrappedKeyInvalid", None);
        let disk = kms.disk("one");
        assert_eq!(
            (text(&disk, "state"), disk["pid"].as_i64()),
            ("available", None),
            "{damage}"
        );
        assert_eq!(kms.metered("attach"), 0, "{damage}");
        assert!(
            process::processes_of(&kms.path("state/run")).is_empty(),
            "{damage}"
        );
    }
}

#[test]
fn two_attaches_at_once() {
    let kms = Kms::start();
    kms.create("data", &[]);
    let instances = ["vm1", "vm2", "vm3", "vm4"];
    for instance in instances {
        kms.ok(&["instance", "register", instance]);
    }
    let children = instances.map(|instance| {
        let mut program = kms.sealctl_program(&["attach", "data", instance]);
        program
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        program.spawn().unwrap()
    });
    let outcomes = children.map(|child| Outcome::from(child.wait_with_output().unwrap()));
    let (won, lost): (Vec<Outcome>, Vec<Outcome>) = outcomes.into_iter().partition(|o| o.status == Some(0));
    assert_eq!((won.len(), lost.len()), (1, 3), "{won:?} {lost:?}");
    for outcome in lost {
        outcome.refusal("AlreadyAttached", Some("D09"));
    }
    assert_eq!(kms.metered("attach"), 1);
    assert_eq!(process::processes_of(&kms.path("state/run")).len(), 1);
}

#[test]
fn sockets_in_use() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let path = kms.path_text("vhost.sock");
    let attach = ["attach", "data", "vm", "--vhost-socket", &path];
    let listener = UnixListener::bind(&path).unwrap();
    kms.refused(&attach, "SocketInUse", None);
    assert!(fs::exists(&path).unwrap());
    // A socket on which nobody listens any more is replaced.
    drop(listener);
    assert_eq!(text(&kms.ok(&attach), "socket"), path);
    kms.ok(&["detach", "data"]);

    fs::write(&path, b"precious").unwrap();
    kms.refused(&attach, "InvalidPath", None);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let missing = kms.path_text("missing/vhost.sock");
    kms.refused(
        &["attach", "data", "vm", "--vhost-socket", &missing],
        "InvalidPath",
        None,
    );
    let long = kms.path_text(&"s".repeat(108));
    kms.refused(
        &["attach", "data", "vm", "--vhost-socket", &long],
        "InvalidPath",
        None,
    );
}

#[test]
fn a_socket_of_another_attachment() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("one", &[]);
    kms.create("two", &[]);
    let attachment = kms.ok(&["attach", "one", "vm"]);
    let socket = text(&attachment, "socket");
    kms.refused(
        &["attach", "two", "vm", "--vhost-socket", socket],
        "SocketInUse",
        None,
    );
    assert!(process::is_running(kms::pid(&attachment)));
}

#[test]
fn bad_arguments_of_attach() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let attach = |option: &str, value: &str, code: &str| {
        kms.refused(&["attach", "data", "vm", option, value], code, None);
    };
    attach("--queues", "0", "InvalidQueues");
    attach("--queues", "17", "InvalidQueues");
    attach("--socket-mode", "0888", "InvalidSocketMode");
    attach("--socket-mode", "01777", "InvalidSocketMode");
    attach("--socket-mode", "rw", "InvalidSocketMode");
    attach("--socket-owner", "no-such-user-here", "InvalidSocketOwner");
    kms.sealctl(&["attach", "data", "vm", "--queues", "65536"])
        .usage_error();
}

#[test]
fn stores_are_layered_unless_asked_otherwise() {
    let kms = Kms::start();
    assert_eq!(kms.create("default", &[])["store"], "layered");
    assert_eq!(kms.create("asked", &["--store", "layered"])["store"], "layered");
    assert_eq!(kms.create("raw", &["--store", "raw"])["store"], "raw");
    kms.sealctl(&["disk", "create", "data", "--size", "1M", "--store", "thin"])
        .usage_error();
}

#[test]
fn a_second_kms_on_the_same_state() {
    let kms = Kms::start();
    kms.serve_refused().refusal("StateInUse", None);
    let other = kms.path_text("other.sock");
    kms.daemon_command(&["serve", "--socket", &other])
        .refusal("StateInUse", None);
    kms.ok(&["kms", "status"]);
    kms.daemon_command(&["init", "--region", "other"])
        .refusal("StateExists", None);
}

#[test]
fn the_daemons_own_arguments() {
    let kms = Kms::empty();
    kms.daemon_command(&["serve"]).refusal("StateMissing", None);
    kms.daemon_command(&["init", "--region", "r", "--profile", "nobody"])
        .refusal("UnknownProfile", None);
    kms.daemon_command(&["init", "--region", "a/b"])
        .refusal("InvalidName", None);
    kms.daemon_command(&["init"]).usage_error();
    kms.daemon_command(&["frobnicate"]).usage_error();
    assert!(!kms.state().join("catalogue.db").exists());
}

#[test]
fn detach_of_what_is_not_attached() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "other"]);
    kms.create("free", &[]);
    kms.refused(&["detach", "free"], "NotAttached", None);
    kms.attached();
    kms.refused(&["detach", "data", "other"], "NotAttached", None);
    kms.refused(&["instance", "remove", "vm"], "InstanceInUse", None);
    kms.ok(&["detach", "data", "vm"]);
}

#[test]
fn errors_as_json_have_the_same_code() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm", "--local-storage"]);
    kms.create("data", &[]);
    let error = |arguments: &[&str]| -> serde_json::Value {
        let outcome = kms.sealctl(&[&["-o", "json"], arguments].concat());
        assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(1), ""));
        serde_json::from_str(&outcome.stderr).unwrap()
    };
    let refusal = error(&["attach", "data", "vm"]);
    assert_eq!(
        (text(&refusal, "code"), text(&refusal, "rule")),
        ("LocalStorage", "A03")
    );
    assert!(!text(&refusal, "message").is_empty());
    let missing = error(&["disk", "show", "nothing"]);
    assert_eq!(
        missing.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["code", "message", "request"]
    );
    let unreachable = error(&["--socket", "/nonexistent/kms.sock", "kms", "status"]);
    assert_eq!(text(&unreachable, "code"), "KmsNotRunning");
}

#[test]
fn an_error_that_cannot_be_written_is_an_error_all_the_same() {
    for (program, arguments) in [
        ("sealblk-kms", &["serve", "--state", "/nonexistent"][..]),
        ("sealctl", &["--socket", "/nonexistent", "kms", "status"]),
    ] {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut command = Command::new(binary(program));
        let status = command.args(arguments).stderr(full).status();
        assert_eq!(status.expect("it runs").code(), Some(1), "{program}");
    }
}

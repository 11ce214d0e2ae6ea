//! A sealblk that was taken over can do nothing. As root, who may put calls into another process's mouth.
#![cfg(target_arch = "x86_64")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use sealblk_e2e::attack::Scene;
use sealblk_e2e::binaries::binary;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::inject::Outcome;
use sealblk_e2e::kms::{self, Kms, is_root};
use sealblk_e2e::stage::{SIZE, Stage, Started, copy};
use sealblk_e2e::{eventually, process};
use sealblk_proto::message::{Mode, Readiness, StoreKind};

/// Below those of a root KMS, and nobody's.
const USER: u32 = 64_123;

/// Attacks, prints what came of it, and asserts that nothing did.
fn attack(title: &str, scene: &Scene) {
    assert_confined(scene.process);
    let verdicts = scene.attack();
    println!("\n{title}");
    for verdict in &verdicts {
        println!("{:14} {:60} {:?}", verdict.thread, verdict.name, verdict.outcome);
    }
    let done: Vec<_> = verdicts
        .iter()
        .filter(|verdict| matches!(verdict.outcome, Outcome::Done(_)))
        .collect();
    assert!(done.is_empty(), "{title}: {done:#?}");
    assert!(process::is_running(scene.process), "{title}: it serves on");
}

/// As the kernel shows it, of each thread.
fn assert_confined(process: i32) {
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        assert_eq!(
            (field("NoNewPrivs:"), field("Seccomp:")),
            ("1".into(), "2".into()),
            "{status}"
        );
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set} {status}");
        }
    }
    for namespace in ["net", "ipc", "uts", "mnt"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&process.to_string()), of("self"), "{namespace}");
    }
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    for limit in ["Max data size", "Max file size"] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        assert!(!line.contains("unlimited"), "{line}");
    }
}

/// With two disks, under this KMS; both are attacked.
fn attack_under(title: &str, kms: &Kms) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    for instance in ["a", "b"] {
        kms.ok(&["instance", "register", instance]);
    }
    let disks = [("raw", "a"), ("layered", "b")].map(|(store, instance)| {
        kms.create(store, &["--store", store]);
        kms.ok(&["attach", store, instance])
    });
    let mut guests = disks.each_ref().map(|disk| {
        let mut guest = Guest::connect(kms::path(disk, "socket"));
        guest.write(0, &[1; 4096]);
        guest
    });
    let pids = disks.each_ref().map(kms::pid);
    let file = |name: &str| kms.state().join("disks").join(kms::text(&kms.disk(name), "id"));
    let (raw, layered) = (file("raw"), file("layered"));
    for (index, (own, other)) in [(&raw, &layered), (&layered, &raw)].into_iter().enumerate() {
        let runtime = |disk: &serde_json::Value| kms::path(disk, "socket").parent().unwrap().to_owned();
        let scene = Scene {
            process: pids[index],
            sibling: pids[1 - index],
            kms: kms.pid(),
            files: vec![
                kms.state().join("root.key"),
                kms.state().join("catalogue.db"),
                other.clone(),
                runtime(&disks[index]).join("sealblk.log"),
                PathBuf::from("/etc/passwd"),
            ],
            sockets: vec![
                kms.socket(),
                runtime(&disks[1 - index]).join("kms.sock"),
                kms::path(&disks[1 - index], "socket").to_owned(),
                PathBuf::from("./kms.sock"),
            ],
            port: port.local_addr().unwrap().port(),
            store: (index == 0).then(|| own.clone()),
        };
        attack(&format!("{title}, {}", ["raw", "layered"][index]), &scene);
    }
    for guest in &mut guests {
        assert_eq!(guest.read(0, 4096), [1; 4096]);
    }
}

#[test]
fn nothing_can_be_done_from_inside_under_a_kms_of_root() {
    if is_root() {
        attack_under("serving, a KMS of root", &Kms::start());
    }
}

#[test]
fn nothing_can_be_done_from_inside_under_a_users_kms() {
    if is_root() {
        attack_under("serving, a user's KMS", &Kms::start_as(USER));
    }
}

fn creating() -> Mode {
    Mode::Create {
        lineage: None,
        snapshot: None,
    }
}

#[test]
fn nothing_can_be_done_from_inside_in_any_mode() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    fs::write(stage.path("raw"), vec![0; SIZE as usize]).unwrap();
    fs::write(stage.path("source"), vec![7; SIZE as usize]).unwrap();
    fs::write(stage.path("other"), "secret").unwrap();
    let sibling = Stage::new();
    fs::write(sibling.path("raw"), vec![0; SIZE as usize]).unwrap();
    let sibling = sibling.start(sibling.config(Mode::Serve, StoreKind::Raw), "raw", &[]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let look = |title: &str, started: &Started| {
        let scene = Scene {
            process: started.pid(),
            sibling: sibling.pid(),
            kms: std::process::id() as i32,
            files: vec![
                stage.path("other"),
                stage.path("token"),
                PathBuf::from("/etc/passwd"),
            ],
            sockets: vec![stage.path("kms.sock")],
            port: port.local_addr().unwrap().port(),
            store: None,
        };
        attack(title, &scene);
    };
    let config = stage.config(creating(), StoreKind::Layered);
    look("creating", &stage.start(config, "layered", &[]));
    let config = stage.config(Mode::Maintain, StoreKind::Layered);
    look("maintaining", &stage.start(config, "layered", &[]));
    let mut config = stage.config(copy(), StoreKind::Layered);
    config.encrypted = true;
    look("copying", &stage.start(config, "layered", &[]));
    let first = stage.start(stage.config(Mode::Serve, StoreKind::Raw), "raw", &[]);
    look("serving, by hand", &first);
    let second = stage.replace(&first);
    look("having taken over", &second);
    process::signal(second.pid(), Signal::TERM);
    eventually("its end", || (!process::is_running(second.pid())).then_some(()));
}

#[test]
fn what_was_left_open_by_mistake_is_closed() {
    let stage = Stage::new();
    let secret = File::create(stage.path("secret")).unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let started = stage.start(stage.config(creating(), StoreKind::Layered), "disk", &[]);
    let open = fs::read_dir(format!("/proc/{}/fd", started.pid()))
        .unwrap()
        .flatten();
    let open: Vec<_> = open
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    assert!(open.contains(&stage.path("disk")), "{open:?}");
    assert!(!open.contains(&stage.path("secret")), "{open:?}");
}

/// A shell in a user namespace in which there can be no others, without capabilities, that runs what follows.
fn without_namespaces() -> Command {
    let script = r#"echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-ec", script, "sh"]);
    command.arg(binary("sealblk"));
    command
}

#[test]
fn what_the_kernel_cannot_do_is_told_and_can_be_insisted_on() {
    let told = Command::new(binary("sealblk"))
        .arg("--check-sandbox")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success(), "{text}");
    for part in [
        "namespaces",
        "limits",
        "capabilities",
        "landlock",
        "io_uring",
        "seccomp",
    ] {
        assert!(text.contains(&format!("{part}: ok")), "{text}");
    }
    let told = without_namespaces().arg("--check-sandbox").output().unwrap();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(1), "{text} {told:?}");
    assert!(text.contains("namespaces: missing: "), "{text}");
    // It serves so, unless it must not.
    let stage = Stage::new();
    fs::write(stage.path("raw"), vec![0; SIZE as usize]).unwrap();
    for insists in [false, true] {
        let mut command = without_namespaces();
        stage.describe(&mut command);
        command.args(insists.then_some("--require-sandbox"));
        let config = stage.config(Mode::Serve, StoreKind::Raw);
        let (mut child, channel, readiness) = stage.answer(command, config, "raw", &[]);
        match readiness {
            Readiness::Failed(failure) => {
                assert!(insists && failure.code == "SandboxIncomplete", "{failure}")
            }
            ready => assert!(!insists, "{ready:?}"),
        }
        drop(channel);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

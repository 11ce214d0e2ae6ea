//! Daemons that die, are stopped, or are started by somebody else.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use sealblk_e2e::binaries::binary;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::{eventually, process};

/// The new serving process after `old`, when it serves.
fn successor(kms: &Kms, old: i32) -> i32 {
    eventually("a new serving process", || {
        let disk = kms.disk("data");
        let pid = disk["pid"].as_i64()? as i32;
        (pid != old && disk["stats"].is_object()).then_some(pid)
    })
}

/// As one that hangs, or that its guest has taken over.
#[test]
fn a_process_that_stopped_in_the_middle_of_a_snapshot_is_ended_by_force() {
    let kms = Kms::start();
    let attachment = kms.attached();
    Guest::connect(kms::path(&attachment, "socket")).write(0, &[7; 4096]);
    let pid = kms::pid(&attachment);
    process::signal(pid, Signal::STOP);
    std::thread::scope(|scope| {
        let snapshot = scope.spawn(|| kms.sealctl(&["snapshot", "create", "data", "s"]));
        eventually("it is under way", || {
            let snapshots = kms.ok(&["snapshot", "list"]);
            (snapshots["snapshots"][0]["state"] == "creating").then_some(())
        });
        kms.ok(&["detach", "data", "--force"]);
        assert!(!process::is_running(pid));
        assert_eq!(snapshot.join().unwrap().status, Some(1));
    });
    eventually("it is settled", || {
        let snapshots = kms.ok(&["snapshot", "list"]);
        snapshots["snapshots"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    });
    let attachment = kms.ok(&["attach", "data", "vm"]);
    assert_eq!(
        Guest::connect(kms::path(&attachment, "socket")).read(0, 4096),
        [7; 4096]
    );
}

#[test]
fn a_killed_backend_is_restarted_on_the_same_socket() {
    let kms = Kms::start();
    let attachment = kms.attached();
    let socket = kms::path(&attachment, "socket");
    let mut guest = Guest::connect(socket);
    guest.write(0, &[7; 4096]);
    let mut pid = kms::pid(&attachment);
    for _ in 0..3 {
        process::kill(pid);
        pid = successor(&kms, pid);
        let disk = kms.disk("data");
        assert_eq!(
            (text(&disk, "state"), kms::path(&disk, "socket")),
            ("in-use", socket)
        );
        // Written but not flushed: a kill of the process loses nothing.
        assert_eq!(Guest::connect(socket).read(0, 4096), [7; 4096]);
    }
    assert_eq!(kms.metered("attach"), 1, "a restart is no new attach");
    kms.ok(&["detach", "data", "--force"]);
    eventually("the last end", || (!process::is_running(pid)).then_some(()));
    assert!(process::processes_of(&kms.path("state/run")).is_empty());
}

/// Rule A06: a restart of a live attachment is no new use of the key.
#[test]
fn rule_a06_a_backend_is_restarted_under_its_guest() {
    for store in ["raw", "layered"] {
        let kms = Kms::start();
        kms.ok(&["instance", "register", "web"]);
        kms.create("data", &["--store", store]);
        let attachment = kms.ok(&["attach", "data", "web"]);
        let mut guest = Guest::connect(kms::path(&attachment, "socket"));
        guest.write(0, &[1; 4096]);
        let mut pid = kms::pid(&attachment);
        for round in 2..5 {
            let disk = kms.ok(&["backend", "restart", "data"]);
            let new = disk["pid"].as_i64().unwrap() as i32;
            assert_ne!(new, pid);
            eventually("the old process's end", || {
                (!process::is_running(pid)).then_some(())
            });
            pid = new;
            // On the same connection.
            assert_eq!(guest.read(0, 4096), [round - 1; 4096]);
            guest.write(0, &[round; 4096]);
            assert_eq!(kms.disk("data")["connected"], true);
        }
        assert_eq!(kms.metered("attach"), 1, "not metered");
        let audit = kms.ok(&["audit"]).to_string();
        assert_eq!(
            audit.matches("\"backend.restart\"").count(),
            3,
            "audited: {audit}"
        );
        // The successor is as good as any other: it dies, and it is detached.
        process::kill(pid);
        pid = successor(&kms, pid);
        let socket = kms::path(&attachment, "socket");
        assert_eq!(Guest::connect(socket).read(0, 4096), [4; 4096]);
        kms.ok(&["detach", "data", "--force"]);
        eventually("the last end", || (!process::is_running(pid)).then_some(()));
        kms.refused(&["backend", "restart", "data"], "NotAttached", None);
    }
}

/// Attaches a shared disk to two instances.
fn shared(kms: &Kms, store: &str) -> [serde_json::Value; 2] {
    kms.create("data", &["--store", store, "--shared"]);
    ["web", "web2"].map(|instance| {
        kms.ok(&["instance", "register", instance]);
        kms.ok(&["attach", "data", instance])
    })
}

/// A guest that writes to its part of the disk and reads it back, until it is told to end; each write is in one round.
fn use_until(socket: &Path, sector: u64, ended: &AtomicBool) -> u64 {
    let mut guest = Guest::connect(socket);
    let mut round = 0u64;
    while !ended.load(Ordering::Relaxed) {
        let bytes = vec![round as u8; 4096];
        guest.write(sector, &bytes);
        assert_eq!(guest.read(sector, 4096), bytes);
        round += 1;
    }
    round
}

#[test]
fn rule_d09_one_end_of_the_process_and_all_sockets_are_served_again() {
    for store in ["raw", "layered"] {
        let kms = Kms::start();
        let attachments = shared(&kms, store);
        let sockets = attachments.each_ref().map(|one| kms::path(one, "socket"));
        let mut pid = kms::pid(&attachments[0]);
        for round in 1..4u8 {
            let mut guests = sockets.map(Guest::connect);
            for (number, guest) in guests.iter_mut().enumerate() {
                guest.write(8 * number as u64, &[round + 8 * number as u8; 4096]);
            }
            process::kill(pid);
            pid = successor(&kms, pid);
            // Each sees what was written through either.
            let mut guests = sockets.map(Guest::connect);
            for guest in &mut guests {
                for number in 0..2u8 {
                    assert_eq!(
                        guest.read(8 * u64::from(number), 4096),
                        [round + 8 * number; 4096]
                    );
                }
            }
            assert_eq!(kms.disk("data")["attachments"][1]["connected"], true);
        }
        assert_eq!(process::processes_of(&kms.path("state/run")), [pid]);
        assert_eq!(kms.metered("attach"), 2, "a restart is no new attach");
    }
}

/// Rules A06 and D09: one process takes over all attachments from another.
#[test]
fn rule_d09_a_backend_is_restarted_under_all_its_guests() {
    let mut kms = Kms::start();
    let attachments = shared(&kms, "layered");
    let mut guests = attachments
        .each_ref()
        .map(|one| Guest::connect(kms::path(one, "socket")));
    let mut pid = kms::pid(&attachments[0]);
    for round in 1..4u8 {
        for (number, guest) in guests.iter_mut().enumerate() {
            guest.write(8 * number as u64, &[round; 4096]);
        }
        let disk = kms.ok(&["backend", "restart", "data"]);
        assert_ne!(kms::pid(&disk), pid);
        pid = kms::pid(&disk);
        for guest in &mut guests {
            assert_eq!(guest.read(0, 8192), [round; 8192], "on the same connection");
        }
        if round == 2 {
            // A new daemon finds the process with both.
            kms.kill();
            kms.serve();
            readopted(&kms, pid);
        }
    }
    kms.refused(&["detach", "data", "web"], "FrontendConnected", None);
    kms.ok(&["detach", "data", "web", "--force"]);
    let disk = kms.ok(&["backend", "restart", "data"]);
    assert_ne!(kms::pid(&disk), pid);
    assert_eq!(guests[1].read(0, 4096), [3; 4096], "also without the first");
    kms.ok(&["detach", "data", "web2", "--force"]);
    assert!(process::processes_of(&kms.path("state/run")).is_empty());
}

#[test]
fn rule_d09_one_is_detached_and_attached_while_the_other_works() {
    let kms = Kms::start();
    let [first, second] = shared(&kms, "layered");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| use_until(kms::path(&second, "socket"), 512, &ended));
        let mut socket = kms::path(&first, "socket").to_owned();
        for round in 1..5u8 {
            let mut guest = Guest::connect(&socket);
            guest.write(0, &[round; 4096]);
            kms.ok(&["detach", "data", "web", "--force"]);
            kms.ok(&["snapshot", "create", "data", &format!("s{round}")]);
            let again = kms.ok(&["attach", "data", "web"]);
            assert_eq!(kms::pid(&again), kms::pid(&second), "the same process");
            socket = kms::path(&again, "socket").to_owned();
            assert_eq!(Guest::connect(&socket).read(0, 4096), [round; 4096]);
        }
        ended.store(true, Ordering::Relaxed);
        assert!(other.join().expect("no request has failed") > 0);
    });
}

/// Connects again and again until it is told to end. A socket must be there, and somebody listen on it, every time.
fn connect_until(socket: &Path, ended: &AtomicBool) -> u64 {
    let mut connected = 0;
    while !ended.load(Ordering::Relaxed) {
        if let Err(error) = UnixStream::connect(socket) {
            panic!("{}, after {connected}: {error}", socket.display());
        }
        connected += 1;
        // They are all accepted, one after the other.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    connected
}

#[test]
fn nobody_who_connects_is_refused_over_kills_and_restarts() {
    let mut kms = Kms::start();
    let attachments = shared(&kms, "layered");
    let sockets = attachments.each_ref().map(|one| kms::path(one, "socket"));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let until = &ended;
        let clients = sockets.map(|socket| scope.spawn(move || connect_until(socket, until)));
        let mut pid = kms::pid(&attachments[0]);
        for round in 0..3 {
            process::kill(pid);
            let next = successor(&kms, pid);
            process::signal(next, Signal::TERM);
            successor(&kms, next);
            pid = kms::pid(&kms.ok(&["backend", "restart", "data"]));
            if round == 1 {
                kms.kill();
                kms.serve();
                readopted(&kms, pid);
            }
        }
        ended.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().expect("a connection was refused") > 0);
        }
    });
    for socket in sockets {
        Guest::connect(socket).read(0, 512);
    }
    kms.ok(&["detach", "data", "web", "--force"]);
    assert!(!sockets[0].exists() && sockets[1].exists());
    kms.ok(&["detach", "data", "web2", "--force"]);
    assert!(!sockets[1].exists());
}

#[test]
fn a_socket_whose_file_has_gone_is_made_anew_by_a_restart() {
    let kms = Kms::start();
    let attachments = shared(&kms, "raw");
    let [kept, lost] = attachments.each_ref().map(|one| kms::path(one, "socket"));
    let mut guest = Guest::connect(lost);
    guest.write(0, &[1; 4096]);
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let before = inode(kept);
    std::fs::remove_file(lost).unwrap();
    let warnings = kms.disk("data")["warnings"].to_string();
    assert!(
        warnings.contains(&format!("{} has been removed", lost.display())),
        "{warnings}"
    );
    // Of something else that has taken its place nothing is lost, and the process is a new one all the same.
    std::fs::write(lost, "precious").unwrap();
    let pid = kms::pid(&attachments[0]);
    kms.sealctl(&["backend", "restart", "data"])
        .refusal("SocketUnusable", None);
    assert_eq!(std::fs::read_to_string(lost).unwrap(), "precious");
    assert_ne!(kms.backend("data"), Some(pid));
    std::fs::remove_file(lost).unwrap();
    let disk = kms.ok(&["backend", "restart", "data"]);
    assert_eq!(disk["warnings"], kms.disk("data")["warnings"]);
    assert_eq!(kms.disk("data")["warnings"].to_string(), "[]");
    assert_eq!(inode(kept), before, "the other one is as it was");
    assert_eq!(guest.read(0, 4096), [1; 4096], "on the same connection");
    let listed = std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(listed.lines().any(|line| line.ends_with(lost.to_str().unwrap())));
    drop(guest);
    assert_eq!(Guest::connect(lost).read(0, 4096), [1; 4096]);
    assert_eq!(Guest::connect(kept).read(0, 4096), [1; 4096]);
    // The next process has it, too.
    let pid = kms::pid(&disk);
    process::kill(pid);
    successor(&kms, pid);
    assert_eq!(Guest::connect(lost).read(0, 4096), [1; 4096]);
}

#[test]
fn a_killed_kms_finds_its_backends_again() {
    let mut kms = Kms::start();
    let attachment = kms.attached();
    let (pid, socket) = (kms::pid(&attachment), kms::path(&attachment, "socket"));
    let mut guest = Guest::connect(socket);
    guest.write(0, &[1; 512]);
    kms.kill();
    guest.write(1, &[2; 512]);
    assert!(process::is_running(pid));
    kms.serve();
    readopted(&kms, pid);
    assert_eq!(kms.disk("data")["connected"], true);
    guest.write(2, &[3; 512]);
    assert_eq!(guest.read(0, 1536), [[1; 512], [2; 512], [3; 512]].concat());
    kms.refused(&["detach", "data"], "FrontendConnected", None);
    drop(guest);
    eventually("the disconnect", || {
        (kms.disk("data")["connected"] == false).then_some(())
    });
    kms.ok(&["detach", "data"]);
    eventually("the end of the backend", || {
        (!process::is_running(pid)).then_some(())
    });
}

/// Waits until the KMS speaks with the backend again, which must be the same process.
fn readopted(kms: &Kms, pid: i32) {
    eventually("the backend's return", || {
        let disk = kms.disk("data");
        disk["stats"]
            .is_object()
            .then(|| assert_eq!(disk["pid"].as_i64(), Some(pid.into())))
    });
    assert_eq!(process::processes_of(&kms.path("state/run")), [pid]);
}

#[test]
fn stopping_the_kms_leaves_backends_running() {
    let mut kms = Kms::start();
    let attachment = kms.attached();
    let pid = kms::pid(&attachment);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    for _ in 0..2 {
        assert_eq!(kms.stop(), Some(0));
        assert!(process::is_running(pid));
        guest.write(0, &[1; 512]);
        kms.sealctl(&["kms", "status"]).refusal("KmsNotRunning", None);
        kms.serve();
        readopted(&kms, pid);
    }
}

#[test]
fn an_adopted_backend_that_dies_is_restarted() {
    let mut kms = Kms::start();
    let attachment = kms.attached();
    let pid = kms::pid(&attachment);
    kms.kill();
    kms.serve();
    readopted(&kms, pid);
    process::kill(pid);
    successor(&kms, pid);
    Guest::connect(kms::path(&attachment, "socket")).read(0, 512);
}

#[test]
fn a_backend_that_died_with_the_kms_is_restarted() {
    let mut kms = Kms::start();
    let attachment = kms.attached();
    let pid = kms::pid(&attachment);
    kms.kill();
    process::kill(pid);
    kms.serve();
    successor(&kms, pid);
    assert_eq!(text(&kms.disk("data"), "socket"), text(&attachment, "socket"));
    Guest::connect(kms::path(&attachment, "socket")).read(0, 512);
    assert_eq!(kms.metered("attach"), 1);
    kms.ok(&["detach", "data", "--force"]);
}

/// Starts the printed command as another supervisor does.
fn start_by_hand(command: &str) -> Child {
    start_by_hand_with(command, Stdio::null())
}

/// Also with something for the shell to hand on.
fn start_by_hand_with(command: &str, input: Stdio) -> Child {
    let programs = binary("sealblk");
    let programs = programs.parent().unwrap().to_str().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell
        .env("PATH", format!("{programs}:/usr/bin:/bin"))
        .args(["-c", &format!("exec {command}")]);
    shell
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end_of(child: &mut Child) -> Option<i32> {
    eventually("the end of sealblk", || child.try_wait().unwrap()).code()
}

fn served_by(kms: &Kms, child: &Child, socket: &Path) {
    eventually("sealblk serves", || {
        let disk = kms.disk("data");
        (disk["stats"].is_object() && disk["pid"].as_i64() == Some(child.id().into())).then_some(())
    });
    Guest::connect(socket).read(0, 512);
}

#[test]
fn another_supervisor_starts_sealblk_with_the_printed_command() {
    let mut kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let attachment = kms.ok(&["attach", "data", "vm", "--no-start", "--socket-mode", "0660"]);
    assert_eq!(
        (text(&attachment, "state"), attachment["pid"].as_i64()),
        ("waiting", None)
    );
    let (command, socket) = (text(&attachment, "command"), kms::path(&attachment, "socket"));
    assert!(
        command.starts_with("sealblk ") || command.contains("/sealblk "),
        "{command}"
    );
    assert!(process::processes_of(&kms.path("state/run")).is_empty());

    let mut child = start_by_hand(command);
    served_by(&kms, &child, socket);
    let mode = std::fs::metadata(socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    assert_eq!(
        status.contains("Uid:\t19000"),
        rustix::process::geteuid().is_root(),
        "a user of its own: {status}"
    );
    let mut second = start_by_hand(command);
    assert_eq!(end_of(&mut second), Some(1), "a second process must not serve");
    assert_eq!(kms.backend("data"), Some(child.id() as i32));

    // Its supervisor stops it and starts it again.
    process::signal(child.id() as i32, Signal::TERM);
    assert_eq!(end_of(&mut child), Some(0));
    let mut child = start_by_hand(command);
    served_by(&kms, &child, socket);

    kms.kill();
    kms.serve();
    readopted(&kms, child.id() as i32);
    eventually("the disconnect", || {
        (kms.disk("data")["connected"] == false).then_some(())
    });
    kms.ok(&["detach", "data"]);
    assert_eq!(end_of(&mut child), Some(0));
    assert_eq!(
        end_of(&mut start_by_hand(command)),
        Some(1),
        "the attachment is gone"
    );
}

#[test]
fn systemd_can_hold_the_socket_and_the_token() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let attachment = kms.ok(&["attach", "data", "vm", "--no-start"]);
    let (id, socket) = (text(&attachment, "id"), kms::path(&attachment, "socket"));
    let runtime = kms.state().join("run").join(id);
    let listener = UnixListener::bind(socket).unwrap();
    let start = || {
        let mut shell = Command::new("/bin/sh");
        // What a socket unit does, with the socket on descriptor 3 (sd_listen_fds(3)).
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
        shell.args(["-c", script]).arg(binary("sealblk"));
        shell
            .arg("--kms")
            .arg(runtime.join("kms.sock"))
            .args(["--attachment", id]);
        shell.env("CREDENTIALS_DIRECTORY", &runtime);
        shell
            .stdin(OwnedFd::from(listener.try_clone().unwrap()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for _ in 0..2 {
        let mut child = start();
        served_by(&kms, &child, socket);
        process::signal(child.id() as i32, Signal::TERM);
        assert_eq!(end_of(&mut child), Some(0));
        assert!(socket.exists(), "the socket is not sealblk's to remove");
    }
}

/// Who may connect is said for a socket that sealblk makes; an inherited one is as it is.
#[test]
fn the_printed_command_serves_an_inherited_socket() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let wanted = kms.path_text("a place, for it.sock");
    let attachment = kms.ok(&[
        "attach",
        "data",
        "vm",
        "--no-start",
        "--vhost-socket",
        &wanted,
        "--socket-owner",
        "0:0",
        "--socket-mode",
        "0660",
    ]);
    let (command, socket) = (text(&attachment, "command"), kms::path(&attachment, "socket"));
    assert!(
        command.ends_with(" --socket-owner 0:0 --socket-mode 0660"),
        "{command}"
    );
    let listener = UnixListener::bind(socket).unwrap();
    let mode = || std::fs::metadata(socket).unwrap().permissions().mode();
    let before = mode();
    for command in [
        // What a socket unit does (sd_listen_fds(3)).
        format!("env LISTEN_FDS=1 sh -c 'LISTEN_PID=$$ exec \"$@\"' sh {command} 3<&0 </dev/null"),
        format!("{command} --socket-fd 5 5<&0 </dev/null"),
    ] {
        let mut child = start_by_hand_with(&command, OwnedFd::from(listener.try_clone().unwrap()).into());
        served_by(&kms, &child, socket);
        process::signal(child.id() as i32, Signal::TERM);
        assert_eq!(end_of(&mut child), Some(0));
        assert_eq!(mode(), before, "the socket is not sealblk's to change");
    }
}

#[test]
fn a_disk_that_nobody_has_started_can_be_detached() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    kms.ok(&["attach", "data", "vm", "--no-start"]);
    assert_eq!(kms.ok(&["detach", "data"])["state"], "available");
    kms.ok(&["attach", "data", "vm"]);
}

#[test]
fn sealblk_refuses_what_it_cannot_serve() {
    let kms = Kms::start();
    let attachment = kms.attached();
    let run = |arguments: &[&str]| -> sealblk_e2e::Outcome {
        Command::new(binary("sealblk"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
            .into()
    };
    assert_eq!(run(&[]).status, Some(2));
    assert_eq!(run(&["--kms", "/nonexistent"]).status, Some(2));
    // Without the token, an attachment cannot be taken over.
    let token = kms.path("token");
    std::fs::write(&token, "00".repeat(32)).unwrap();
    let backend_socket = kms
        .state()
        .join("run")
        .join(text(&attachment, "id"))
        .join("kms.sock");
    let socket = kms.path_text("stolen.sock");
    let stolen = run(&[
        "--kms",
        backend_socket.to_str().unwrap(),
        "--attachment",
        text(&attachment, "id"),
        "--token-file",
        token.to_str().unwrap(),
        "--socket",
        &socket,
    ]);
    assert_eq!(stolen.status, Some(1), "{stolen:?}");
    assert!(!Path::new(&socket).exists());
    assert_eq!(kms.backend("data"), Some(kms::pid(&attachment)));
}

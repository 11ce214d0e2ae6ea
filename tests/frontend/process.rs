//! What the real process does when its KMS or its frontend does this or that.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use sealblk_proto::channel::ChannelError;
use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::{
    AttachmentConfig, Change, Command as Order, Failure, HelloAnswer, Mode, Outcome, Readiness, Reply,
    StoreKind, code,
};

use crate::driver::{
    DATA, Driver, FLUSH, OK, PROTOCOL_FEATURES, T_FLUSH, T_OUT, VERSION_1, pattern, readable, writable,
};
use crate::fuse::{Answers, Fuse};
use crate::stage::{SIZE, Stage, eventually, exit_of};

#[test]
fn it_serves_until_it_is_detached() {
    let stage = Stage::new();
    let mut served = stage.serve();
    let stats = served.stats();
    assert!(!stats.frontend_connected && !stats.poisoned);
    let frontend = stage.connect();
    eventually("the frontend is seen", || served.stats().frontend_connected);
    match served.order(Order::Detach { force: false }) {
        Outcome::Failed(failure) => assert_eq!(failure.code, code::FRONTEND_CONNECTED),
        other => panic!("{other:?}"),
    }
    assert!(
        served.stats().frontend_connected,
        "a refused detach changes nothing"
    );
    assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
    let (status, log) = served.exit();
    assert_eq!(status, Some(0), "{log}");
    assert!(!stage.path("vhost.sock").exists());
    drop(frontend);
}

#[test]
fn sigterm_drains_and_exits_with_status_0() {
    let stage = Stage::new();
    let served = stage.serve();
    let frontend = stage.connect();
    served.signal(rustix::process::Signal::TERM);
    let (status, log) = served.exit();
    assert_eq!(status, Some(0), "{log}");
    drop(frontend);
}

/// Nor is a KMS there to end it.
#[test]
fn a_process_whose_storage_stops_before_the_last_checkpoint_ends_all_the_same() {
    let mount = tempfile::tempdir().unwrap();
    let Some(fuse) = Fuse::mount(mount.path()) else {
        return;
    };
    let stage = Stage::on(StoreKind::Layered, SIZE, &fuse.file());
    let config = AttachmentConfig {
        mode: Mode::Maintain,
        ..stage.config()
    };
    let mut served = stage.serve_as(stage.command(), config);
    let operation = "op-0123456789abcdef".to_owned();
    let change = Change::Resize {
        size: 2 * SIZE,
        hidden: false,
    };
    assert_eq!(served.order(Order::Change { operation, change }), Outcome::Done);
    fuse.answer(Answers::Stopped);
    assert_eq!(served.order(Order::Detach { force: false }), Outcome::Done);
    eventually("its end", || served.child.try_wait().unwrap().is_some());
    let (status, log) = served.exit();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("the storage does not answer"), "{log}");
}

/// As a supervisor that has stopped.
#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let stage = Stage::new();
    let (unread, mut pipe) = std::io::pipe().unwrap();
    let has_room = |pipe: &std::io::PipeWriter| {
        let mut fds = [PollFd::new(pipe, PollFlags::OUT)];
        rustix::event::poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    while has_room(&pipe) {
        pipe.write_all(&[b'.'; 4096]).unwrap();
    }
    let mut command = stage.command();
    command.stderr(pipe);
    let mut served = stage.serve_with(command);
    let mut driver =
        Driver::connect(&stage.path("vhost.sock")).running(VERSION_1 | PROTOCOL_FEATURES, 1, 128);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    drop(driver);
    eventually("the end is seen", || !served.stats().frontend_connected);
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    drop(unread);
}

/// cloud-hypervisor connects at once when its connection ends. If it is refused it tries again; if it is reset it gives up,
/// and its guest has lost the disk.
#[test]
fn a_frontend_that_connects_at_once_is_refused_and_not_reset() {
    for forced in [false, true].repeat(10) {
        let stage = Stage::layered(SIZE, 4);
        let mut served = stage.serve();
        let mut driver =
            Driver::connect(&stage.path("vhost.sock")).running(VERSION_1 | PROTOCOL_FEATURES, 4, 128);
        // Something to be done at the end.
        assert_eq!(driver.write(0, &pattern(1, 1 << 20)), OK);
        let again = std::thread::scope(|scope| {
            let again = scope.spawn(|| {
                driver.wait_for_the_end();
                UnixStream::connect(stage.path("vhost.sock"))
            });
            if forced {
                assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
            } else {
                served.signal(rustix::process::Signal::TERM);
            }
            again.join().unwrap()
        });
        let refused = [ErrorKind::ConnectionRefused, ErrorKind::NotFound];
        let error = again.expect_err("nobody accepts it any more").kind();
        assert!(refused.contains(&error), "{error}");
        assert_eq!(served.exit().0, Some(0));
    }
}

#[test]
fn the_kms_may_go_and_come_back() {
    let stage = Stage::new();
    let mut served = stage.serve();
    let frontend = stage.connect();
    eventually("the frontend is seen", || served.stats().frontend_connected);
    for _ in 0..2 {
        served.channel.shutdown();
        served.channel = stage.taken_back(served.child.id());
        assert!(served.stats().frontend_connected, "the guest has not noticed");
    }
    drop(frontend);
    assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
    assert_eq!(served.exit().0, Some(0));
}

#[test]
fn a_hold_ends_with_resume_with_time_or_with_the_connection() {
    let stage = Stage::new();
    let mut served = stage.serve();
    assert_eq!(served.order(Order::Quiesce { hold_ms: 20_000 }), Outcome::Done);
    assert_eq!(served.order(Order::Resume), Outcome::Done);
    assert_eq!(served.order(Order::Quiesce { hold_ms: 300 }), Outcome::Done);
    std::thread::sleep(Duration::from_millis(350));
    assert!(!served.stats().poisoned);
    // A detach lifts the hold by itself; otherwise the queues could not drain.
    assert_eq!(served.order(Order::Quiesce { hold_ms: 20_000 }), Outcome::Done);
    assert_eq!(served.order(Order::Detach { force: false }), Outcome::Done);
    assert_eq!(served.exit().0, Some(0));
}

/// Offers a flush and returns its head.
fn offer_flush(driver: &mut Driver) -> u16 {
    driver.header(DATA, T_FLUSH, 0);
    let head = driver.chain(0, &[readable(DATA, 16), writable(DATA + 16, 1)]);
    driver.offer(0, head);
    driver.kick(0);
    head
}

#[test]
fn a_held_guest_goes_on_when_the_hold_ends_by_itself() {
    let stage = Stage::new();
    let mut served = stage.serve();
    let socket = stage.path("vhost.sock");
    let mut driver = Driver::connect(&socket).running(VERSION_1 | PROTOCOL_FEATURES | FLUSH, 1, 128);
    assert_eq!(driver.write(0, &[1; 512]), OK);
    let held = |driver: &mut Driver| {
        let before = driver.used_index(0);
        let head = offer_flush(driver);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(driver.used_index(0), before, "held");
        head
    };
    // A refused detach is no end of it; then time is.
    assert_eq!(served.order(Order::Quiesce { hold_ms: 400 }), Outcome::Done);
    assert!(matches!(
        served.order(Order::Detach { force: false }),
        Outcome::Failed(_)
    ));
    let head = held(&mut driver);
    assert_eq!(driver.completion(0), (head, 1));
    // The end of the connection.
    assert_eq!(served.order(Order::Quiesce { hold_ms: 30_000 }), Outcome::Done);
    let head = held(&mut driver);
    served.channel.shutdown();
    let released = Instant::now();
    assert_eq!(driver.completion(0), (head, 1));
    assert!(
        released.elapsed() < Duration::from_secs(25),
        "not by the hold's own end"
    );
    drop(driver);
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
}

#[test]
fn what_was_taken_before_sigterm_is_completed_and_stored() {
    let stage = Stage::new();
    let served = stage.serve();
    let socket = stage.path("vhost.sock");
    let mut driver = Driver::connect(&socket).running(VERSION_1 | PROTOCOL_FEATURES | FLUSH, 1, 128);
    for i in 0..16u64 {
        let base = 0x40_0000 + i * 0x20000;
        driver.header(base, T_OUT, i * 128);
        driver.put(base + 0x1000, &pattern(i, 65536));
        let head = driver.chain(
            0,
            &[
                readable(base, 16),
                readable(base + 0x1000, 65536),
                writable(base + 16, 1),
            ],
        );
        driver.offer(0, head);
    }
    driver.kick(0);
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
    let completed: Vec<u16> = (0..driver.used_index(0))
        .map(|_| driver.completion(0).0)
        .collect();
    let key = LineageKey::new_with(|bytes| bytes.fill(0x42)).unwrap();
    let capacity = sealblk::units::Capacity::new(sealblk::units::ByteLen(SIZE)).unwrap();
    let cipher = sealblk::crypto::DiskCipher::derive(&key, capacity).unwrap();
    for head in completed {
        let number = u64::from(head) / 3;
        let mut stored = vec![0; 65536];
        std::os::unix::fs::FileExt::read_exact_at(&stage.store(), &mut stored, number * 65536).unwrap();
        cipher
            .decrypt_in_place(sealblk::units::Sector(number * 128), &mut stored)
            .unwrap();
        assert_eq!(stored, pattern(number, 65536));
    }
}

#[test]
fn a_refused_claim_ends_the_process_with_the_reason() {
    let stage = Stage::new();
    let mut child = stage.command().spawn().unwrap();
    let channel = stage.claimed();
    channel
        .send(
            &HelloAnswer::Refused(Failure::new(code::NOT_YOURS, "another's")),
            &[],
        )
        .unwrap();
    let (status, log) = exit_of(&mut child);
    assert_eq!(status, Some(1));
    assert!(log.contains("another's"), "{log}");
}

#[test]
fn a_welcome_without_descriptors_or_with_a_false_key_is_refused() {
    let stage = Stage::new();
    for descriptors in [0, 2] {
        let mut child = stage.command().spawn().unwrap();
        let channel = stage.claimed();
        let store = stage.store();
        // A file where the key should be.
        let both = [store.as_fd(), store.as_fd()];
        channel
            .send(&HelloAnswer::Welcome(stage.config()), &both[..descriptors])
            .unwrap();
        drop(channel);
        assert_eq!(exit_of(&mut child).0, Some(1));
    }
}

#[test]
fn what_cannot_be_served_is_told() {
    let failure = |stage: &Stage, config| {
        let (mut child, _channel, readiness) = stage.answer(stage.command(), config);
        assert_eq!(exit_of(&mut child).0, Some(1));
        match readiness {
            Readiness::Failed(failure) => failure.code,
            other => panic!("{other:?}"),
        }
    };
    let stage = Stage::new();
    let config = stage.config();
    assert_eq!(
        failure(
            &stage,
            AttachmentConfig {
                size: 2 * SIZE,
                ..config.clone()
            }
        ),
        code::STORE_UNUSABLE
    );
    assert_eq!(
        failure(
            &stage,
            AttachmentConfig {
                size: 1000,
                ..config.clone()
            }
        ),
        code::STORE_UNUSABLE
    );
    let taken = UnixListener::bind(stage.path("vhost.sock")).unwrap();
    assert_eq!(failure(&stage, config.clone()), code::SOCKET_UNUSABLE);
    drop(taken);
    std::fs::remove_file(stage.path("vhost.sock")).unwrap();
    std::fs::write(stage.path("vhost.sock"), "a file").unwrap();
    assert_eq!(failure(&stage, config), code::SOCKET_UNUSABLE);
}

/// Rule A08.
#[test]
fn rule_a08_two_processes_cannot_serve_one_store() {
    let stage = Stage::new();
    let served = stage.serve();
    let other_socket = stage.path("other.sock").to_str().unwrap().to_owned();
    let config = AttachmentConfig {
        socket: other_socket,
        ..stage.config()
    };
    let (mut child, _channel, readiness) = stage.answer(stage.command(), config);
    assert!(matches!(readiness, Readiness::Failed(failure) if failure.code == code::STORE_IN_USE));
    assert_eq!(exit_of(&mut child).0, Some(1));
    // After a kill the successor takes over at once, also the socket's path.
    served.signal(rustix::process::Signal::KILL);
    let mut served = stage.serve();
    stage.connect();
    assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
}

#[test]
fn an_inherited_socket_and_systemds_are_served() {
    let stage = Stage::new();
    let listener = UnixListener::bind(stage.path("activated.sock")).unwrap();
    // Bash, which knows descriptors above 9, puts the socket where systemd puts it, and knows its process id, as systemd does.
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let fd = listener.as_raw_fd();
    let plain = stage.command();
    let arguments: Vec<_> = plain
        .get_args()
        .map(|argument| argument.to_str().unwrap().to_owned())
        .collect();
    for script in [
        format!("exec 3<&{fd}; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\""),
        format!("exec 9<&{fd}; exec \"$0\" \"$@\" --socket-fd 9"),
    ] {
        let mut command = Command::new("/bin/bash");
        command
            .arg("-c")
            .arg(script)
            .arg(env!("CARGO_BIN_EXE_sealblk"))
            .args(&arguments);
        command.env_clear().stderr(Stdio::piped());
        let mut served = stage.serve_with(command);
        let frontend = UnixStream::connect(stage.path("activated.sock")).unwrap();
        eventually("the frontend is seen", || served.stats().frontend_connected);
        drop(frontend);
        assert_eq!(served.order(Order::Detach { force: true }), Outcome::Done);
        assert_eq!(served.exit().0, Some(0));
        assert!(
            stage.path("activated.sock").exists(),
            "the path belongs to the supervisor"
        );
    }
}

#[test]
fn garbage_from_the_kms_ends_the_connection_and_not_the_process() {
    let stage = Stage::new();
    let mut served = stage.serve();
    served.channel.send(&"what?", &[]).unwrap();
    let closed = served.channel.receive::<Reply>();
    assert!(matches!(closed, Err(ChannelError::Closed)), "{closed:?}");
    served.channel = stage.taken_back(served.child.id());
    served.stats();
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
}

/// Rule K06.
#[test]
fn rule_k06_the_process_cannot_be_dumped_and_shows_no_secret() {
    let stage = Stage::new();
    let served = stage.serve();
    let proc = PathBuf::from(format!("/proc/{}", served.child.id()));
    // A process that is not dumpable belongs to root in /proc, whoever runs it.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(proc.join("status")).unwrap().uid(), 0);
    let read = |name: &str| std::fs::read(proc.join(name)).unwrap_or_default();
    let token = stage.token.to_hex();
    for place in ["cmdline", "environ"] {
        let bytes = read(place);
        assert!(
            !bytes.windows(64).any(|window| window == token.as_bytes()),
            "{place}"
        );
        assert!(!bytes.windows(32).any(|window| window == [0x42; 32]), "{place}");
    }
    let limits = String::from_utf8(read("limits")).unwrap();
    if !limits.is_empty() {
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        assert_eq!(
            core.split_whitespace().filter(|word| *word == "0").count(),
            2,
            "{core}"
        );
    }
    served.signal(rustix::process::Signal::ABORT);
    let mut served = served;
    let status = served.child.wait().unwrap();
    assert!(
        !std::os::unix::process::ExitStatusExt::core_dumped(&status),
        "{status}"
    );
}

#[test]
fn the_command_line_is_checked() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sealblk"))
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(
        run(&[
            "--kms",
            "x",
            "--attachment",
            "y",
            "--socket",
            "a",
            "--socket-fd",
            "3"
        ])
        .0,
        Some(2)
    );
    let (status, help) = run(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(help.contains("Examples:"), "{help}");
    let (status, text) = run(&["--kms", "x", "--attachment", "y"]);
    assert!(status == Some(1) && text.contains("NoToken"), "{text}");
    let (status, text) = run(&["--kms", "x", "--attachment", "y", "--token-fd", "77"]);
    assert!(status == Some(1) && text.contains("NoToken"), "{text}");
    let mut bad = tempfile::NamedTempFile::new().unwrap();
    bad.write_all(b"no token").unwrap();
    let (status, text) = run(&[
        "--kms",
        "x",
        "--attachment",
        "y",
        "--token-file",
        bad.path().to_str().unwrap(),
    ]);
    assert!(
        status == Some(1) && text.contains("64 hexadecimal digits"),
        "{text}"
    );
}

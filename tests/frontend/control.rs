//! How a process that serves is reached by a KMS that has come back: it never dials again.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::process::Uid;
use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::message::{AttachmentConfig, Command as Order, Hello, HelloAnswer, Outcome};

use crate::stage::{PATIENCE, Stage};

fn dial(stage: &Stage, pid: u32) -> Channel {
    let channel = Channel::connect_at_once(&stage.control(pid)).unwrap();
    channel.set_timeout(Some(PATIENCE)).unwrap();
    channel
}

#[test]
fn a_process_that_cannot_dial_is_reached_by_the_kms_that_has_come_back() {
    let stage = Stage::new();
    let mut served = stage.serve();
    // Nobody could find it, were it dialled.
    std::fs::remove_file(stage.path("kms.sock")).unwrap();
    served.channel.shutdown();
    served.channel = stage.taken_back(served.child.id());
    assert!(!served.stats().poisoned);
    assert_eq!(served.order(Order::Detach { force: false }), Outcome::Done);
    assert_eq!(served.exit().0, Some(0));
}

#[test]
fn one_kms_at_a_time_is_served_and_the_next_waits() {
    let stage = Stage::new();
    let mut served = stage.serve();
    let pid = served.child.id();
    // Dead ones, as a KMS that gave up has left them.
    for _ in 0..5 {
        drop(dial(&stage, pid));
    }
    let waiting = dial(&stage, pid);
    waiting
        .set_timeout(Some(std::time::Duration::from_millis(50)))
        .unwrap();
    assert!(matches!(waiting.receive::<Hello>(), Err(ChannelError::Io(_))));
    assert!(!served.stats().poisoned);
    served.channel.shutdown();
    waiting.set_timeout(Some(PATIENCE)).unwrap();
    served.channel = stage.take_back(waiting);
    assert!(!served.stats().poisoned);
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
}

#[test]
fn whoever_dials_and_is_not_the_kms_is_dropped_and_harms_nothing() {
    let stage = Stage::new();
    let mut served = stage.serve();
    let pid = served.child.id();
    served.channel.shutdown();
    let hello = |channel: &Channel| channel.receive::<Hello>().unwrap().0.serving;
    // One hangs up, one talks nonsense, one refuses, one says nothing.
    let gone = dial(&stage, pid);
    assert!(hello(&gone));
    drop(gone);
    let babbling = dial(&stage, pid);
    assert!(hello(&babbling));
    babbling.send(&"what?", &[]).unwrap();
    assert!(matches!(babbling.receive::<Hello>(), Err(ChannelError::Closed)));
    let refusing = dial(&stage, pid);
    assert!(hello(&refusing));
    let failure = sealblk_proto::message::Failure::new("NotYours", "no");
    refusing.send(&HelloAnswer::Refused(failure), &[]).unwrap();
    assert!(matches!(refusing.receive::<Hello>(), Err(ChannelError::Closed)));
    let silent = dial(&stage, pid);
    assert!(hello(&silent));
    if rustix::process::geteuid().is_root() {
        assert_eq!(stage.control(pid).metadata().unwrap().mode() & 0o777, 0o600);
        // Another user, if it could connect.
        std::fs::set_permissions(stage.directory.path(), Permissions::from_mode(0o711)).unwrap();
        std::fs::set_permissions(stage.control(pid), Permissions::from_mode(0o666)).unwrap();
        let stranger = as_user(65_533, || dial(&stage, pid));
        let told = stranger.receive::<Hello>();
        assert!(matches!(told, Err(ChannelError::Closed)), "{told:?}");
    }
    served.channel = stage.taken_back(pid);
    assert!(!served.stats().poisoned);
    drop(silent);
    served.signal(rustix::process::Signal::TERM);
    let (status, log) = served.exit();
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(log.matches("one has dialled").count(), 1, "said once: {log}");
}

/// Started by root, it is found by its own user and number, and its socket is root's.
#[test]
fn whoever_dials_a_process_that_has_given_up_root_sees_its_own_user() {
    const USER: u32 = 1_900_000_123;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let stage = Stage::new();
    std::fs::set_permissions(stage.directory.path(), Permissions::from_mode(0o711)).unwrap();
    std::os::unix::fs::chown(stage.path("kms.sock"), Some(USER), Some(USER)).unwrap();
    let mut command = stage.command();
    command.args(["--user", &USER.to_string()]);
    // It may not make a socket there.
    let socket = String::new();
    let mut served = stage.serve_as(
        command,
        AttachmentConfig {
            socket,
            ..stage.config()
        },
    );
    let pid = served.child.id();
    let file = stage.control(pid).metadata().unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (0, 0o600));
    served.channel.shutdown();
    served.channel = stage.taken_back(pid);
    let peer = served.channel.peer().unwrap();
    assert_eq!((peer.uid, peer.pid), (USER, pid as i32));
    assert!(!served.stats().poisoned);
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
}

/// As in a container: the KMS has no number there.
#[test]
fn a_process_of_another_pid_namespace_knows_its_kms_again() {
    let unshare = || {
        let mut command = std::process::Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--"]);
        command
    };
    if !unshare()
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        return;
    }
    let stage = Stage::new();
    let mut command = unshare();
    let inner = stage.command();
    command.arg(inner.get_program()).args(inner.get_args());
    command.stderr(std::process::Stdio::piped());
    let mut served = stage.serve_with(command);
    served.channel.shutdown();
    // The first of its namespace.
    served.channel = stage.taken_back(1);
    assert_eq!(served.order(Order::Detach { force: false }), Outcome::Done);
    assert_eq!(served.exit().0, Some(0));
}

/// As from a shell that has opened it for itself.
#[test]
fn what_was_left_open_for_nobody_is_closed() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else looks into a process that is not dumpable.
        return;
    }
    let stage = Stage::new();
    let path = stage.path("inherited");
    let file = std::fs::File::create(&path).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let served = stage.serve();
    let open = std::fs::read_dir(format!("/proc/{}/fd", served.child.id()))
        .unwrap()
        .flatten();
    let targets: Vec<_> = open
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .collect();
    assert!(targets.contains(&stage.path("disk").canonicalize().unwrap()));
    assert!(!targets.contains(&path.canonicalize().unwrap()), "{targets:?}");
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.exit().0, Some(0));
}

/// Where its socket cannot be made, the guest is served all the same.
#[test]
fn a_process_without_a_socket_of_its_own_serves_until_it_is_ended() {
    let stage = Stage::new();
    // A name that is taken by what cannot be replaced.
    let mut command = std::process::Command::new("/bin/sh");
    let inner = stage.command();
    let script = "mkdir -p \"$0/control-$$.sock/full\" && exec \"$@\"";
    command
        .args(["-c", script])
        .arg(stage.directory.path())
        .arg(inner.get_program());
    command
        .args(inner.get_args())
        .stderr(std::process::Stdio::piped());
    let mut served = stage.serve_with(command);
    let frontend = stage.connect();
    crate::stage::eventually("the frontend is seen", || served.stats().frontend_connected);
    served.channel.shutdown();
    served.signal(rustix::process::Signal::TERM);
    let (status, log) = served.exit();
    assert_eq!(status, Some(0), "{log}");
    assert!(
        log.contains("no KMS that is started later will reach this process"),
        "{log}"
    );
    drop(frontend);
}

/// What `act` gives, done by a thread that runs as this user.
fn as_user<T: Send>(user: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let acting = scope.spawn(|| {
            let user = Uid::from_raw(user);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            act()
        });
        acting.join().unwrap()
    })
}

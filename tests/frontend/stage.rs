//! The real process, with a KMS of the test's own at the other end of its socket.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sealblk_proto::channel::{Channel, Listener};
use sealblk_proto::control;
use sealblk_proto::key_transfer::KeyInTransit;
use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::{
    AttachmentConfig, Command as Order, Hello, HelloAnswer, Mode, OnFull, Outcome, PROTOCOL_VERSION,
    Readiness, Reply, Request, SessionConfig, Stats, StoreExpected, StoreKind,
};
use sealblk_proto::token::Token;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const ATTACHMENT: &str = "att-test";
pub(crate) const SIZE: u64 = 1 << 20;

/// Where processes are started that serve one disk, one after another.
pub(crate) struct Stage {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) listener: Listener,
    pub(crate) token: Token,
    kind: StoreKind,
    size: u64,
    queues: u16,
    /// Whether several frontends may have it.
    pub(crate) shared: bool,
}

/// A process that serves it.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) channel: Channel,
    next_id: u64,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::of(StoreKind::Raw, SIZE)
    }

    pub(crate) fn of(kind: StoreKind, size: u64) -> Self {
        Self::with(kind, size, 2)
    }

    /// With a layered disk, made by a process that ended afterwards.
    pub(crate) fn layered(size: u64, queues: u16) -> Self {
        Self::with(StoreKind::Layered, size, queues)
    }

    /// With a disk on a device.
    pub(crate) fn on(kind: StoreKind, size: u64, device: &Path) -> Self {
        Self::made(tempfile::tempdir().unwrap(), kind, size, 2, |disk| {
            std::os::unix::fs::symlink(device, disk).unwrap()
        })
    }

    fn with(kind: StoreKind, size: u64, queues: u16) -> Self {
        Self::within(tempfile::tempdir().unwrap(), kind, size, queues)
    }

    /// In this directory.
    pub(crate) fn within(directory: tempfile::TempDir, kind: StoreKind, size: u64, queues: u16) -> Self {
        Self::made(directory, kind, size, queues, |disk| {
            let disk = File::create_new(disk).unwrap();
            if kind == StoreKind::Raw {
                disk.set_len(size).unwrap();
            }
        })
    }

    fn made(
        directory: tempfile::TempDir,
        kind: StoreKind,
        size: u64,
        queues: u16,
        make: impl FnOnce(&Path),
    ) -> Self {
        let listener = Listener::bind(&directory.path().join("kms.sock")).unwrap();
        let token = Token::generate().unwrap();
        std::fs::write(directory.path().join("token"), token.to_hex() + "\n").unwrap();
        make(&directory.path().join("disk"));
        let stage = Stage {
            directory,
            listener,
            token,
            kind,
            size,
            queues,
            shared: false,
        };
        if kind == StoreKind::Layered {
            stage.create();
        }
        stage
    }

    /// Makes the layered store.
    fn create(&self) {
        let mode = Mode::Create {
            lineage: None,
            snapshot: None,
        };
        let config = AttachmentConfig {
            mode,
            ..self.config()
        };
        let (mut child, channel, readiness) = self.answer(self.command(), config);
        assert!(matches!(readiness, Readiness::Ready), "{readiness:?}");
        drop(channel);
        assert_eq!(exit_of(&mut child).0, Some(0));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config(&self) -> AttachmentConfig {
        AttachmentConfig {
            disk: "disk-0123456789abcdef".to_owned(),
            serial: "disk-test".to_owned(),
            size: self.size,
            encrypted: true,
            read_only: false,
            queues: self.queues,
            store: self.kind,
            bases: 0,
            shared: self.shared,
            all_queues: 0,
            on_full: OnFull::Error,
            expected: StoreExpected::default(),
            guest_size: None,
            mode: Mode::Serve,
            socket: self.path("vhost.sock").to_str().unwrap().to_owned(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealblk"));
        command
            .arg("--kms")
            .arg(self.path("kms.sock"))
            .args(["--attachment", ATTACHMENT])
            .arg("--token-file");
        command.arg(self.path("token")).env_clear().stderr(Stdio::piped());
        command
    }

    pub(crate) fn store(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(self.path("disk"))
            .unwrap()
    }

    /// The socket at which a process waits for a KMS that has come back.
    pub(crate) fn control(&self, pid: u32) -> PathBuf {
        self.path(&control::name(pid))
    }

    /// Dials a process that serves and has lost its KMS, and takes it back.
    pub(crate) fn taken_back(&self, pid: u32) -> Channel {
        self.take_back(Channel::connect_at_once(&self.control(pid)).unwrap())
    }

    /// The same, after it has been dialled.
    pub(crate) fn take_back(&self, channel: Channel) -> Channel {
        self.check_claim(&channel, true);
        channel.send(&HelloAnswer::Welcome(self.config()), &[]).unwrap();
        let readiness = readiness(&channel);
        assert!(matches!(readiness, Readiness::Ready), "{readiness:?}");
        channel
    }

    /// Accepts a claim and checks it.
    pub(crate) fn claimed(&self) -> Channel {
        let channel = self.listener.accept().unwrap();
        self.check_claim(&channel, false);
        channel
    }

    fn check_claim(&self, channel: &Channel, serving: bool) {
        channel.set_timeout(Some(PATIENCE)).unwrap();
        let (hello, _) = channel.receive::<Hello>().unwrap();
        assert_eq!(
            (hello.version, hello.attachment.as_str()),
            (PROTOCOL_VERSION, ATTACHMENT)
        );
        assert_eq!(hello.token.hash(), self.token.hash());
        assert_eq!(hello.serving, serving);
    }

    /// Starts the process and answers its claim.
    pub(crate) fn answer(
        &self,
        mut command: Command,
        config: AttachmentConfig,
    ) -> (Child, Channel, Readiness) {
        let child = command.spawn().unwrap();
        let channel = self.claimed();
        let key = LineageKey::new_with(|bytes| bytes.fill(0x42)).unwrap();
        let mut transit = (config.mode == Mode::Serve).then(|| KeyInTransit::new(&key).unwrap());
        let mut stores = vec![self.store()];
        if self.kind == StoreKind::Layered {
            stores.push(self.store());
        }
        let mut descriptors: Vec<BorrowedFd<'_>> = stores.iter().map(AsFd::as_fd).collect();
        descriptors.extend(transit.as_ref().map(KeyInTransit::descriptor));
        channel.send(&HelloAnswer::Welcome(config), &descriptors).unwrap();
        drop(descriptors);
        drop(stores);
        let readiness = readiness(&channel);
        assert!(transit.as_mut().is_none_or(KeyInTransit::is_taken));
        (child, channel, readiness)
    }

    /// Starts a process that takes over from one that serves, as the KMS does. Returns what the old one has answered, and the
    /// new one if it serves.
    pub(crate) fn replace(&self, old: &mut Served) -> (Outcome, Option<Served>) {
        self.replace_with(old, self.config())
    }

    /// The same, by one that is told something else.
    pub(crate) fn replace_with(
        &self,
        old: &mut Served,
        config: AttachmentConfig,
    ) -> (Outcome, Option<Served>) {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut child = self.command().spawn().unwrap();
        let channel = self.claimed();
        old.next_id += 1;
        let request = Request {
            id: old.next_id,
            command: Order::HandOver,
        };
        old.channel.send(&request, &[ours.as_fd()]).unwrap();
        drop(ours);
        let config = AttachmentConfig {
            mode: Mode::TakeOver,
            ..config
        };
        let key = LineageKey::new_with(|bytes| bytes.fill(0x42)).unwrap();
        let mut transit = KeyInTransit::new(&key).unwrap();
        channel
            .send(
                &HelloAnswer::Welcome(config),
                &[theirs.as_fd(), transit.descriptor()],
            )
            .unwrap();
        drop(theirs);
        let readiness = readiness(&channel);
        assert!(transit.is_taken());
        let (reply, _) = old.channel.receive::<Reply>().unwrap();
        let served = match readiness {
            Readiness::Ready => Some(Served {
                child,
                channel,
                next_id: Request::KNOWS_MORE,
            }),
            _ => {
                assert_eq!(exit_of(&mut child).0, Some(1));
                None
            }
        };
        (reply.outcome, served)
    }

    pub(crate) fn serve(&self) -> Served {
        self.serve_with(self.command())
    }

    pub(crate) fn serve_with(&self, command: Command) -> Served {
        self.serve_as(command, self.config())
    }

    pub(crate) fn serve_as(&self, command: Command, config: AttachmentConfig) -> Served {
        let (child, channel, readiness) = self.answer(command, config);
        assert!(matches!(readiness, Readiness::Ready), "{readiness:?}");
        Served {
            child,
            channel,
            next_id: Request::KNOWS_MORE,
        }
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path("vhost.sock")).unwrap()
    }
}

impl Served {
    pub(crate) fn order(&mut self, command: Order) -> Outcome {
        self.order_with(command, &[])
    }

    pub(crate) fn order_with(&mut self, command: Order, descriptors: &[BorrowedFd<'_>]) -> Outcome {
        self.next_id += 1;
        self.channel
            .send(
                &Request {
                    id: self.next_id,
                    command,
                },
                descriptors,
            )
            .unwrap();
        let (reply, _) = self.channel.receive::<Reply>().unwrap();
        assert_eq!(reply.id, self.next_id);
        reply.outcome
    }

    /// Has it serve one more attachment, on a socket of this name.
    pub(crate) fn add_session(&mut self, stage: &Stage, attachment: &str, read_only: bool) -> Outcome {
        let path = stage.path(attachment);
        // As one that died may have left it.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let config = SessionConfig {
            attachment: attachment.to_owned(),
            queues: stage.queues,
            read_only,
        };
        self.order_with(Order::AddSession(config), &[listener.as_fd()])
    }

    /// Whom it serves, and whether they are connected.
    pub(crate) fn sessions(&mut self) -> Vec<(String, bool)> {
        match self.order(Order::Sessions) {
            Outcome::Sessions(sessions) => sessions
                .into_iter()
                .map(|session| (session.attachment, session.frontend_connected))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn stats(&mut self) -> Stats {
        match self.order(Order::Stats) {
            Outcome::Stats(stats) => stats,
            other => panic!("{other:?}"),
        }
    }

    /// Whether it is asked, from now on, by a KMS that understands what later versions say; so it is at first.
    pub(crate) fn asked_by_later(&mut self, later: bool) {
        self.next_id &= !Request::KNOWS_MORE;
        self.next_id |= if later { Request::KNOWS_MORE } else { 0 };
    }

    pub(crate) fn exit(mut self) -> (Option<i32>, String) {
        exit_of(&mut self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

pub(crate) fn exit_of(child: &mut Child) -> (Option<i32>, String) {
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    (child.wait().unwrap().code(), log)
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a process says when it has opened its store, or cannot.
fn readiness(channel: &Channel) -> Readiness {
    loop {
        match channel.receive::<Readiness>().unwrap().0 {
            Readiness::Opening => {}
            readiness => return readiness,
        }
    }
}

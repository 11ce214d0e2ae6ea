//! A sealblk whose KMS is the test: in whatever mode, for as long as wanted.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use sealblk_proto::channel::{Channel, Listener};
use sealblk_proto::key_transfer::KeyInTransit;
use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::{
    AttachmentConfig, Command as Order, CopyPhase, CopySource, FileFormat, Hello, HelloAnswer, Mode, OnFull,
    Readiness, Reply, Request, StoreExpected, StoreKind,
};
use sealblk_proto::token::Token;
use tempfile::TempDir;

use crate::PATIENCE;
use crate::binaries::binary;

/// Bytes of each file.
pub const SIZE: u64 = 1 << 20;

/// Where processes are started.
#[derive(Debug)]
pub struct Stage {
    directory: TempDir,
    listener: Listener,
    token: Token,
}

/// A process that is ready. Dropping it ends it.
#[derive(Debug)]
pub struct Started {
    child: Child,
    channel: Channel,
}

impl Stage {
    /// # Panics
    /// If there is no place for it.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = Listener::bind(&directory.path().join("kms.sock")).expect("a socket");
        let token = Token::generate().expect("random bytes");
        std::fs::write(directory.path().join("token"), token.to_hex()).expect("a file");
        Stage {
            directory,
            listener,
            token,
        }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A configuration to begin with.
    pub fn config(&self, mode: Mode, store: StoreKind) -> AttachmentConfig {
        AttachmentConfig {
            disk: "disk-0123456789abcdef".to_owned(),
            serial: "disk-test".to_owned(),
            size: SIZE,
            encrypted: false,
            read_only: false,
            queues: 2,
            store,
            bases: 0,
            shared: false,
            all_queues: 0,
            on_full: OnFull::Error,
            expected: StoreExpected::default(),
            guest_size: None,
            mode,
            socket: self.path("vhost.sock").to_str().expect("UTF-8").to_owned(),
        }
    }

    /// A process that has done what it is to do first, on the file `name`, which is made if need be.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start(&self, config: AttachmentConfig, name: &str, descriptors: &[BorrowedFd<'_>]) -> Started {
        let (child, channel, readiness) = self.answer(self.command(), config, name, descriptors);
        assert!(matches!(readiness, Readiness::Ready), "{readiness:?}");
        Started { child, channel }
    }

    /// Starts a process, and answers its claim; what it says then.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn answer(
        &self,
        mut command: Command,
        config: AttachmentConfig,
        name: &str,
        descriptors: &[BorrowedFd<'_>],
    ) -> (Child, Channel, Readiness) {
        let child = command.spawn().expect("sealblk runs");
        let channel = self.claimed();
        let copies = matches!(config.mode, Mode::Copy { .. });
        let key = LineageKey::new_with(|bytes| bytes.fill(0x42)).expect("locked memory");
        let key = config
            .encrypted
            .then(|| KeyInTransit::new(&key).expect("a memfd"));
        let count = match config.store {
            _ if config.mode == Mode::TakeOver => 0,
            StoreKind::Raw => 1,
            StoreKind::Layered => 2,
        };
        let files: Vec<_> = (0..count).map(|_| self.file(name)).collect();
        let files = descriptors.iter().copied().chain(files.iter().map(AsFd::as_fd));
        let all: Vec<_> = files.chain(key.as_ref().map(KeyInTransit::descriptor)).collect();
        channel
            .send(&HelloAnswer::Welcome(config), &all)
            .expect("it listens");
        if copies {
            let source = CopySource {
                size: SIZE,
                encrypted: false,
                store: StoreKind::Raw,
                bases: 0,
                foreign: true,
                format: FileFormat::Raw,
                disk: None,
                expected: StoreExpected::default(),
            };
            let file = self.file("source");
            channel.send(&source, &[file.as_fd()]).expect("it listens");
        }
        let readiness = loop {
            match channel.receive::<Readiness>().expect("an answer").0 {
                Readiness::Opening => {}
                readiness => break readiness,
            }
        };
        (child, channel, readiness)
    }

    /// A process that has taken over from `old`.
    ///
    /// # Panics
    /// If it does not.
    pub fn replace(&self, old: &Started) -> Started {
        let (ours, theirs) = Channel::pair().expect("sockets");
        let id = Request::KNOWS_MORE | 1;
        let request = Request {
            id,
            command: Order::HandOver,
        };
        old.channel.send(&request, &[ours.as_fd()]).expect("it serves");
        drop(ours);
        let config = self.config(Mode::TakeOver, StoreKind::Raw);
        let new = self.start(config, "", &[theirs.as_fd()]);
        old.channel.receive::<Reply>().expect("an answer");
        new
    }

    /// The file's, made if need be.
    fn file(&self, name: &str) -> File {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(name));
        file.expect("a file")
    }

    /// The command to start one with.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary("sealblk"));
        self.describe(&mut command);
        command
    }

    /// Adds what every one is started with.
    pub fn describe(&self, command: &mut Command) {
        command
            .arg("--kms")
            .arg(self.path("kms.sock"))
            .args(["--attachment", "att-test", "--token-file"])
            .arg(self.path("token"))
            .env_clear()
            .stdin(Stdio::null())
            .process_group(0);
    }

    fn claimed(&self) -> Channel {
        let channel = self.listener.accept().expect("a claim");
        channel.set_timeout(Some(PATIENCE)).expect("a socket");
        let (hello, _) = channel.receive::<Hello>().expect("a claim");
        assert_eq!(hello.token.hash(), self.token.hash());
        channel
    }
}

impl Default for Stage {
    fn default() -> Self {
        Stage::new()
    }
}

/// A copy from its beginning.
pub fn copy() -> Mode {
    Mode::Copy {
        phase: CopyPhase::Copy,
        position: 0,
        clean: false,
    }
}

impl Started {
    /// Its number.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

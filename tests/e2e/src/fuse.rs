//! A file system with one file in memory, that can be told to stop answering: what a dead network server or a broken device
//! is to those who use it. It speaks the kernel's protocol (fuse(4), `linux/fuse.h`, version 7.31) itself.
//!
//! Nothing in the test's own process may touch the mounted file while it does not answer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};

const MAX_WRITE: u32 = 128 << 10;
const IN_HEADER_BYTES: usize = 40;
const ROOT: u64 = 1;
const FILE: u64 = 2;
const NAME: &str = "file";

// Opcodes.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const ACCESS: u32 = 34;
const INTERRUPT: u32 = 36;
const FALLOCATE: u32 = 43;
const BATCH_FORGET: u32 = 42;

const SETATTR_SIZE: u32 = 1 << 3;
const BIG_WRITES: u32 = 1 << 5;

/// How requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// At once.
    AtOnce,
    /// Not at all: they are not even taken, so that a process that waits for one can be killed.
    Stopped,
    /// Taken and not answered: the kernel does not let go of a process that waits for one.
    Held,
}

/// The mounted file system. Dropping it answers all that waits; later requests fail.
#[derive(Debug)]
pub struct Fuse {
    directory: PathBuf,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    device: File,
    answers: Answers,
    held: Vec<Vec<u8>>,
    contents: Vec<u8>,
    /// User whose file it is.
    owner: u32,
    ended: bool,
}

impl Fuse {
    /// Mounts it at an empty directory; none, with a word about it, where that is not possible.
    ///
    /// # Panics
    /// If there is no thread to be had.
    pub fn mount(directory: &Path) -> Option<Self> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open("/dev/fuse");
        let mounted = device.and_then(|device| Self::mount_at(device, directory));
        mounted
            .inspect_err(|error| eprintln!("SKIPPED: a FUSE file system cannot be mounted here: {error}"))
            .ok()
    }

    fn mount_at(device: File, directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        // The descriptor must be one of the process that mounts: its standard input.
        let mut mount = Command::new("mount");
        mount
            .args(["-i", "-t", "fuse", "-o"])
            .arg("fd=0,rootmode=40000,user_id=0,group_id=0,allow_other")
            .arg("test")
            .arg(directory)
            .stdin(device.try_clone()?);
        let shared = Arc::new(Mutex::new(Shared {
            device,
            answers: Answers::AtOnce,
            held: Vec::new(),
            contents: Vec::new(),
            owner: 0,
            ended: false,
        }));
        let served = Arc::clone(&shared);
        // Before it is mounted: who mounts may look at it.
        let thread = std::thread::spawn(move || while serve_one(&served) {});
        let fuse = Fuse {
            directory: directory.to_owned(),
            shared,
            thread: Some(thread),
        };
        let mounted = mount.output()?;
        if mounted.status.success() {
            Ok(fuse)
        } else {
            let text = String::from_utf8_lossy(&mounted.stderr).into_owned();
            Err(io::Error::other(text))
        }
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// The file belongs to this user.
    pub fn give(&self, owner: u32) {
        lock(&self.shared).owner = owner;
    }

    /// From now on requests are served so. What was held is answered if they are served at once.
    pub fn answer(&self, answers: Answers) {
        let mut shared = lock(&self.shared);
        shared.answers = answers;
        if answers == Answers::AtOnce {
            for request in std::mem::take(&mut shared.held) {
                shared.serve(&request);
            }
        }
    }

    /// How many requests are held.
    pub fn held(&self) -> usize {
        lock(&self.shared).held.len()
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // Who unmounts may look at it. What is mounted no more is served as long as somebody has the file open.
        self.answer(Answers::AtOnce);
        let _ = Command::new("umount").arg("-l").arg(&self.directory).output();
        lock(&self.shared).ended = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// False at the end.
fn serve_one(shared: &Mutex<Shared>) -> bool {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    let device = lock(shared).device.try_clone();
    let Ok(device) = device else { return false };
    let mut fds = [PollFd::new(&device, PollFlags::IN)];
    // Not with the lock: whoever changes something needs it.
    let _ = rustix::event::poll(&mut fds, Some(&pause));
    let ready = fds[0].revents() == PollFlags::IN;
    let mut shared = lock(shared);
    if shared.ended {
        return false;
    }
    // Not mounted yet, or not any more; or it is not to be read.
    if !ready || shared.answers == Answers::Stopped {
        drop(shared);
        std::thread::sleep(std::time::Duration::from_millis(2));
        return true;
    }
    let mut request = vec![0; MAX_WRITE as usize + 4096];
    // An error: nobody asks any more.
    if let Ok(read) = shared.device.read(&mut request) {
        request.truncate(read);
        if shared.answers == Answers::Held {
            shared.held.push(request);
        } else {
            shared.serve(&request);
        }
    }
    true
}

impl Shared {
    fn serve(&mut self, request: &[u8]) {
        let (opcode, node) = (u32_at(request, 4), u64_at(request, 16));
        let unique = u64_at(request, 8);
        let body = &request[IN_HEADER_BYTES..];
        let answer = match opcode {
            FORGET | BATCH_FORGET | INTERRUPT => return,
            INIT => Ok(init()),
            LOOKUP if body.starts_with(NAME.as_bytes()) && body.get(NAME.len()) == Some(&0) => {
                Ok(self.entry())
            }
            LOOKUP => Err(rustix::io::Errno::NOENT),
            GETATTR => Ok(self.attributes(node)),
            SETATTR => {
                if u32_at(body, 0) & SETATTR_SIZE != 0 {
                    self.contents.resize(u64_at(body, 16) as usize, 0);
                }
                Ok(self.attributes(node))
            }
            OPEN | OPENDIR => Ok(vec![0; 16]),
            READ => {
                let from = self.contents.len().min(u64_at(body, 8) as usize);
                let to = self.contents.len().min(from + u32_at(body, 16) as usize);
                Ok(self.contents[from..to].to_vec())
            }
            WRITE => {
                let (from, size) = (u64_at(body, 8) as usize, u32_at(body, 16) as usize);
                if self.contents.len() < from + size {
                    self.contents.resize(from + size, 0);
                }
                self.contents[from..from + size].copy_from_slice(&body[40..40 + size]);
                Ok([(size as u32).to_le_bytes(), [0; 4]].concat())
            }
            FALLOCATE if u32_at(body, 24) == 0 => {
                let end = (u64_at(body, 8) + u64_at(body, 16)) as usize;
                if self.contents.len() < end {
                    self.contents.resize(end, 0);
                }
                Ok(Vec::new())
            }
            STATFS => Ok(statfs()),
            READDIR | RELEASE | RELEASEDIR | FSYNC | ACCESS => Ok(Vec::new()),
            // Also FLUSH, which a process would wait for at its end, however it ends.
            _ => Err(rustix::io::Errno::NOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let len = 16 + body.len() as u32;
        let mut message = [len.to_le_bytes(), error.to_le_bytes()].concat();
        message.extend(unique.to_le_bytes());
        message.extend(body);
        // Whoever has asked may have been killed.
        let _ = self.device.write(&message);
    }

    /// `fuse_entry_out`, of the file. Nothing may be kept by the kernel.
    fn entry(&self) -> Vec<u8> {
        let mut bytes = [FILE, 0, 0, 0, 0].map(u64::to_le_bytes).concat();
        bytes.extend(&self.attributes(FILE)[16..]);
        bytes
    }

    /// `fuse_attr_out`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let file = node == FILE;
        let size = if file { self.contents.len() as u64 } else { 0 };
        // Not to be kept; then the attributes: ino, size, blocks, and three times.
        let mut bytes = [0, 0, node, size, size.div_ceil(512), 0, 0, 0]
            .map(u64::to_le_bytes)
            .concat();
        let (mode, links, owner) = match file {
            true => (0o100_600, 1, self.owner),
            false => (0o040_755, 2, 0),
        };
        // Nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags.
        let rest = [0, 0, 0, mode, links, owner, 0, 0, 4096, 0u32];
        bytes.extend(rest.map(u32::to_le_bytes).concat());
        debug_assert!(ROOT != FILE && bytes.len() == 104);
        bytes
    }
}

/// `fuse_init_out`.
fn init() -> Vec<u8> {
    let words = [7, 31, 0, BIG_WRITES, 0x0010_0010, MAX_WRITE, 1];
    let mut bytes = words.map(u32::to_le_bytes).concat();
    bytes.resize(64, 0);
    bytes
}

/// `fuse_statfs_out`: much room.
fn statfs() -> Vec<u8> {
    let mut bytes = [1 << 30, 1 << 29, 1 << 29, 10, 5].map(u64::to_le_bytes).concat();
    bytes.extend([4096, 255, 4096u32].map(u32::to_le_bytes).concat());
    bytes.resize(80, 0);
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

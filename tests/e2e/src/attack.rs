//! What code that has taken over a sealblk could try.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::inject::{Argument, Outcome, call};

/// A process, and what is around it.
#[derive(Debug)]
pub struct Scene {
    /// The process that was taken over.
    pub process: i32,
    /// Another one that serves a disk.
    pub sibling: i32,
    /// Who has started both.
    pub kms: i32,
    /// Files that are not its own to read or write.
    pub files: Vec<PathBuf>,
    /// Sockets that it could speak to.
    pub sockets: Vec<PathBuf>,
    /// Port of a TCP server on this host.
    pub port: u16,
    /// Its own file, if it does not grow.
    pub store: Option<PathBuf>,
}

/// Calls, each of which may use the result of the one before.
struct Attempt {
    name: String,
    calls: Vec<(i64, Vec<Argument>)>,
}

/// The outcome of an attempt.
#[derive(Debug)]
pub struct Verdict {
    /// What was tried.
    pub name: String,
    /// By which thread.
    pub thread: String,
    /// How it ended: the first call that was not done, or the last.
    pub outcome: Outcome,
}

impl Scene {
    /// Tries everything from each thread that is not one of several alike.
    pub fn attack(&self) -> Vec<Verdict> {
        let attempts = self.attempts();
        let mut verdicts = Vec::new();
        for (thread, id) in threads(self.process) {
            for attempt in &attempts {
                let Some(outcome) = call(id, &attempt.calls) else {
                    break;
                };
                verdicts.push(Verdict {
                    name: attempt.name.clone(),
                    thread: thread.clone(),
                    outcome,
                });
            }
        }
        verdicts
    }

    fn attempts(&self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let mut add = |name: &str, calls: Vec<(i64, Vec<Argument>)>| {
            let name = name.to_owned();
            attempts.push(Attempt { name, calls });
        };
        let here = Argument::Number(libc::AT_FDCWD as u64);
        for file in &self.files {
            let path = path(file);
            let name = |what| format!("{what} {}", file.display());
            add(
                &name("open"),
                vec![(libc::SYS_openat, vec![here.clone(), path.clone(), 0.into()])],
            );
            add(
                &name("open (old call)"),
                vec![(libc::SYS_open, vec![path.clone(), 0.into()])],
            );
            let write = libc::O_RDWR as u64;
            add(
                &name("open for writing"),
                vec![(libc::SYS_openat, vec![here.clone(), path.clone(), write.into()])],
            );
            add(
                &name("cut short"),
                vec![(libc::SYS_truncate, vec![path, (1 << 20).into()])],
            );
        }
        let look = |directory: Argument, path: &str| {
            (
                libc::SYS_newfstatat,
                vec![directory, path.into(), vec![0; 144].into(), 0.into()],
            )
        };
        for path in ["/etc/passwd", "/proc/1", "/root"] {
            add(
                &format!("ask whether there is {path}"),
                vec![look(here.clone(), path)],
            );
        }
        for (number, target) in descriptors(self.process) {
            let directory = Argument::Number(number);
            if target.ends_with("fd") {
                let up = [
                    look(directory.clone(), "../status"),
                    look(directory, "../../mounts"),
                ];
                up.into_iter()
                    .for_each(|call| add("see other files of /proc", vec![call]));
            }
        }
        let directory = vec![here.clone(), "/proc".into(), (libc::O_DIRECTORY as u64).into()];
        add("list /proc", vec![(libc::SYS_openat, directory)]);
        add(
            "open /proc/self/mem",
            vec![(
                libc::SYS_openat,
                vec![
                    here.clone(),
                    "/proc/self/mem".into(),
                    (libc::O_RDWR as u64).into(),
                ],
            )],
        );
        for socket in &self.sockets {
            for (kind, name) in [(libc::SOCK_STREAM, "stream"), (libc::SOCK_SEQPACKET, "packets")] {
                let address = [&1u16.to_ne_bytes(), socket.as_os_str().as_bytes(), &[0]].concat();
                let length = address.len() as u64;
                add(
                    &format!("connect to {} ({name})", socket.display()),
                    vec![
                        socket_call(libc::AF_UNIX, kind),
                        (
                            libc::SYS_connect,
                            vec![Argument::Result, address.into(), length.into()],
                        ),
                    ],
                );
            }
        }
        let [high, low] = self.port.to_be_bytes();
        let address = vec![
            libc::AF_INET as u8,
            0,
            high,
            low,
            127,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        add(
            "connect to a TCP port",
            vec![
                socket_call(libc::AF_INET, libc::SOCK_STREAM),
                (
                    libc::SYS_connect,
                    vec![Argument::Result, address.into(), 16.into()],
                ),
            ],
        );
        add("a UDP socket", vec![socket_call(libc::AF_INET, libc::SOCK_DGRAM)]);
        add(
            "a netlink socket",
            vec![socket_call(libc::AF_NETLINK, libc::SOCK_RAW)],
        );
        add(
            "a vsock socket",
            vec![socket_call(libc::AF_VSOCK, libc::SOCK_STREAM)],
        );
        add(
            "run a program",
            vec![(libc::SYS_execve, vec!["/bin/true".into(), 0.into(), 0.into()])],
        );
        add(
            "run a set-uid program",
            vec![(libc::SYS_execve, vec!["/bin/su".into(), 0.into(), 0.into()])],
        );
        add(
            "run a file in memory",
            vec![
                (libc::SYS_memfd_create, vec!["x".into(), 0.into()]),
                (
                    libc::SYS_execveat,
                    vec![
                        Argument::Result,
                        "".into(),
                        0.into(),
                        0.into(),
                        (libc::AT_EMPTY_PATH as u64).into(),
                    ],
                ),
            ],
        );
        for (name, process) in [("another sealblk", self.sibling), ("the KMS", self.kms)] {
            let process = Argument::Number(process as u64);
            let mut of = |what: &str, calls| add(&format!("{what} {name}"), calls);
            of(
                "trace",
                vec![(
                    libc::SYS_ptrace,
                    vec![
                        (libc::PTRACE_SEIZE as u64).into(),
                        process.clone(),
                        0.into(),
                        0.into(),
                    ],
                )],
            );
            of("signal", vec![(libc::SYS_kill, vec![process.clone(), 0.into()])]);
            of(
                "signal a thread of",
                vec![(
                    libc::SYS_tgkill,
                    vec![process.clone(), process.clone(), (libc::SIGABRT as u64).into()],
                )],
            );
            of(
                "open as a file",
                vec![(libc::SYS_pidfd_open, vec![process.clone(), 0.into()])],
            );
            of(
                "take a descriptor of",
                vec![
                    (libc::SYS_pidfd_open, vec![process.clone(), 0.into()]),
                    (libc::SYS_pidfd_getfd, vec![Argument::Result, 0.into(), 0.into()]),
                ],
            );
            of(
                "read the memory of",
                vec![(
                    libc::SYS_process_vm_readv,
                    vec![process.clone(), 0.into(), 0.into(), 0.into(), 0.into(), 0.into()],
                )],
            );
            of(
                "change the limits of",
                vec![(
                    libc::SYS_prlimit64,
                    vec![
                        process,
                        (libc::RLIMIT_NOFILE as u64).into(),
                        vec![0xff; 16].into(),
                        0.into(),
                    ],
                )],
            );
        }
        let mount = vec!["none".into(), "/".into(), "tmpfs".into(), 0.into(), 0.into()];
        add("mount", vec![(libc::SYS_mount, mount)]);
        for (name, flags) in [
            ("user", libc::CLONE_NEWUSER),
            ("mount", libc::CLONE_NEWNS),
            ("network", libc::CLONE_NEWNET),
        ] {
            add(
                &format!("a new {name} namespace"),
                vec![(libc::SYS_unshare, vec![(flags as u64).into()])],
            );
        }
        add(
            "another namespace",
            vec![
                (libc::SYS_pidfd_open, vec![(self.kms as u64).into(), 0.into()]),
                (
                    libc::SYS_setns,
                    vec![Argument::Result, (libc::CLONE_NEWNET as u64).into()],
                ),
            ],
        );
        add(
            "a program for the kernel",
            vec![(libc::SYS_bpf, vec![0.into(), vec![0; 128].into(), 128.into()])],
        );
        add("a keyring", vec![(libc::SYS_keyctl, vec![1.into(), 0.into()])]);
        add("userfaultfd", vec![(libc::SYS_userfaultfd, vec![1.into()])]);
        add(
            "a ring",
            vec![(libc::SYS_io_uring_setup, vec![4.into(), vec![0; 120].into()])],
        );
        add(
            "perf events",
            vec![(
                libc::SYS_perf_event_open,
                vec![
                    vec![0; 128].into(),
                    0.into(),
                    u64::MAX.into(),
                    u64::MAX.into(),
                    0.into(),
                ],
            )],
        );
        let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
        let map = |bytes: u64, protection: i32| {
            let protection = Argument::Number(protection as u64);
            (
                libc::SYS_mmap,
                vec![
                    0.into(),
                    bytes.into(),
                    protection,
                    private.into(),
                    u64::MAX.into(),
                    0.into(),
                ],
            )
        };
        let write = libc::PROT_READ | libc::PROT_WRITE;
        add("memory to run", vec![map(4096, write | libc::PROT_EXEC)]);
        add(
            "memory to run later",
            vec![
                map(4096, write),
                (
                    libc::SYS_mprotect,
                    vec![Argument::Result, 4096.into(), (libc::PROT_EXEC as u64).into()],
                ),
            ],
        );
        add("256 GiB of memory", vec![map(256 << 30, write)]);
        add("a process", vec![(libc::SYS_fork, vec![])]);
        add(
            "a process by clone",
            vec![(
                libc::SYS_clone,
                vec![
                    (libc::SIGCHLD as u64).into(),
                    0.into(),
                    0.into(),
                    0.into(),
                    0.into(),
                ],
            )],
        );
        add(
            "a process by clone3",
            vec![(libc::SYS_clone3, vec![vec![0; 64].into(), 64.into()])],
        );
        add(
            "a file by its handle",
            vec![(
                libc::SYS_open_by_handle_at,
                vec![
                    here,
                    vec![8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(),
                    0.into(),
                ],
            )],
        );
        add(
            "to be root",
            vec![(libc::SYS_setresuid, vec![0.into(), 0.into(), 0.into()])],
        );
        // Version 3, of this process; then all, of each set.
        let header = [0x2008_0522u32.to_ne_bytes(), [0; 4]].concat();
        add(
            "capabilities",
            vec![(libc::SYS_capset, vec![header.into(), vec![0xff; 24].into()])],
        );
        add(
            "to be traceable",
            vec![(
                libc::SYS_prctl,
                vec![(libc::PR_SET_DUMPABLE as u64).into(), 1.into()],
            )],
        );
        add(
            "higher limits",
            vec![(libc::SYS_setrlimit, vec![0.into(), vec![0xff; 16].into()])],
        );
        if let Some(descriptor) = self
            .store
            .as_deref()
            .and_then(|store| descriptor(self.process, store))
        {
            let at = 1u64 << 40;
            add(
                "a terabyte on the disk's file system",
                vec![(libc::SYS_ftruncate, vec![descriptor.into(), at.into()])],
            );
        }
        attempts
    }
}

/// One of each name.
fn threads(process: i32) -> BTreeMap<String, i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    let ids = tasks
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse::<i32>().ok());
    ids.filter_map(|id| {
        let name = fs::read_to_string(format!("/proc/{process}/task/{id}/comm")).ok()?;
        // The kernel's own, which do I/O for a ring, never come to user space.
        (!name.starts_with("iou-")).then(|| (name.trim().to_owned(), id))
    })
    .collect()
}

/// The process's descriptors, and what they are open on.
fn descriptors(process: i32) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{process}/fd"))
        .expect("a process")
        .flatten();
    let descriptor = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?))
    };
    entries.filter_map(descriptor).collect()
}

/// The number of the process's descriptor that is open on `file`.
fn descriptor(process: i32, file: &Path) -> Option<u64> {
    let mut descriptors = descriptors(process).into_iter();
    descriptors.find_map(|(number, target)| (target == file).then_some(number))
}

fn path(file: &Path) -> Argument {
    Argument::Bytes([file.as_os_str().as_bytes(), b"\0"].concat())
}

fn socket_call(family: i32, kind: i32) -> (i64, Vec<Argument>) {
    (
        libc::SYS_socket,
        vec![(family as u64).into(), (kind as u64).into(), 0.into()],
    )
}

//! The system calls that each [kind of thread](Kind) may make, and why. Whatever is not here ends the process.
//!
//! None opens a path, makes a socket or connects one, runs a program, makes a process, or sees or signals another one. The
//! threads have their memory in common, so that what any thread may do counts for all.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_long;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::kind::Kind;

/// Calls, and the arguments with which they are meant: none of the rules for any.
#[derive(Debug, Default)]
pub(super) struct List(pub(super) BTreeMap<i64, Vec<SeccompRule>>);

/// Of an argument, by its place. What the kernel takes as `int` is compared as such.
#[derive(Clone, Copy)]
enum Check {
    Is(u8, u64),
    IsNot(u8, u64),
    /// Of 64 bits.
    IsWhole(u8, u64),
    /// None of these bits.
    Without(u8, u64),
}

impl List {
    fn any(&mut self, calls: &[c_long]) {
        for call in calls {
            self.0.insert(*call, Vec::new());
        }
    }

    /// Once more for other arguments of the same call.
    fn when(&mut self, call: c_long, checks: &[Check]) -> Result<(), BackendError> {
        let conditions = checks.iter().map(|check| check.condition());
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        self.0.entry(call).or_default().push(rule);
        Ok(())
    }

    fn when_one_of(&mut self, call: c_long, place: u8, values: &[u64]) -> Result<(), BackendError> {
        values
            .iter()
            .try_for_each(|value| self.when(call, &[Check::Is(place, *value)]))
    }

    fn unless_one_of(&mut self, call: c_long, place: u8, values: &[u64]) -> Result<(), BackendError> {
        let checks: Vec<_> = values.iter().map(|value| Check::IsNot(place, *value)).collect();
        self.when(call, &checks)
    }
}

impl Check {
    fn condition(self) -> Result<SeccompCondition, BackendError> {
        use SeccompCmpArgLen::{Dword, Qword};
        let (place, len, operator, value) = match self {
            Check::Is(place, value) => (place, Dword, SeccompCmpOp::Eq, value),
            Check::IsNot(place, value) => (place, Dword, SeccompCmpOp::Ne, value),
            Check::IsWhole(place, value) => (place, Qword, SeccompCmpOp::Eq, value),
            Check::Without(place, bits) => (place, Dword, SeccompCmpOp::MaskedEq(bits), 0),
        };
        SeccompCondition::new(place, len, operator, value)
    }
}

/// What a thread may call. Calls of [`refused`] and [`absent`] are here, too: they do not end the process.
pub(super) fn permitted(kind: Kind) -> Result<List, BackendError> {
    let mut list = List::default();
    list.any(REFUSED);
    list.any(ABSENT);
    list.any(&[libc::SYS_prctl, libc::SYS_madvise, libc::SYS_unlinkat]);
    alive(&mut list)?;
    if kind != Kind::Waiter {
        files(&mut list)?;
    }
    match kind {
        Kind::Waiter => {
            // SIGTERM and SIGINT.
            list.any(&[libc::SYS_rt_sigtimedwait]);
        }
        Kind::Store => {}
        Kind::Copy => keys(&mut list)?,
        Kind::Queue => {
            keys(&mut list)?;
            ring(&mut list)?;
            starting(&mut list)?;
        }
        Kind::Session | Kind::Control | Kind::Main => {
            keys(&mut list)?;
            ring(&mut list)?;
            starting(&mut list)?;
            sockets(&mut list)?;
        }
    }
    if kind == Kind::Main {
        list.any(&[libc::SYS_rt_sigtimedwait]);
    }
    Ok(list)
}

/// To be alive: memory, locks, time, the log, and an end.
fn alive(list: &mut List) -> Result<(), BackendError> {
    list.any(&[
        // malloc, stacks.
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        // Locks, channels, joins; the rest is what a thread begins and ends with.
        libc::SYS_futex,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_exit,
        libc::SYS_exit_group,
        // Back from the handler of SIGBUS; and a wait that a stop has interrupted.
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        // Time, where the vDSO has it not.
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_gettimeofday,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        // Seeds of hash tables.
        libc::SYS_getrandom,
        // The log, and eventfds.
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_read,
        libc::SYS_close,
    ]);
    #[cfg(target_arch = "x86_64")]
    list.any(&[
        libc::SYS_time,
        // Of several threads that end the process one does, and the others wait.
        libc::SYS_pause,
    ]);
    // std looks whether what it closes is open, in builds for tests.
    list.when(libc::SYS_fcntl, &[Check::Is(1, libc::F_GETFD as u64)])?;
    // Nothing that was written can be run.
    list.when(libc::SYS_mmap, &[Check::Without(2, libc::PROT_EXEC as u64)])?;
    list.when(libc::SYS_mprotect, &[Check::Without(2, libc::PROT_EXEC as u64)])?;
    // A fault that is no guest's, an abort and an overflow of the stack go back to what they are by default. glibc has two
    // signals of its own for threads.
    let signals = [libc::SIGBUS, libc::SIGSEGV, libc::SIGABRT, 32, 33].map(|signal| signal as u64);
    list.when_one_of(libc::SYS_rt_sigaction, 0, &signals)?;
    // abort(3), and nobody else.
    let own = u64::from(std::process::id());
    let abort = [Check::Is(0, own), Check::Is(2, libc::SIGABRT as u64)];
    list.when(libc::SYS_tgkill, &abort)?;
    // Of its own, and not to change it: a thread asks how large its stack is.
    let reads = [Check::Is(0, 0), Check::IsWhole(2, 0)];
    list.when(libc::SYS_prlimit64, &reads)
}

/// I/O on what is open.
fn files(list: &mut List) -> Result<(), BackendError> {
    list.any(&[
        // Metadata, and data in memory or of a copy; imago reads images with the vectored ones.
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_preadv,
        libc::SYS_pwritev,
        libc::SYS_preadv2,
        libc::SYS_pwritev2,
        libc::SYS_fdatasync,
        libc::SYS_fsync,
        // Sizes and holes; growth, room and holes to be made; inflight memory.
        libc::SYS_lseek,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        // What a descriptor is. Where there is an empty root directory, there is no path besides; elsewhere somebody could
        // learn what exists.
        libc::SYS_fstat,
        libc::SYS_statx,
        libc::SYS_newfstatat,
        libc::SYS_fstatfs,
        // Wake-ups.
        libc::SYS_eventfd2,
        libc::SYS_ppoll,
    ]);
    #[cfg(target_arch = "x86_64")]
    list.any(&[libc::SYS_poll]);
    let commands = [
        libc::F_SETFD,
        libc::F_DUPFD_CLOEXEC,
        // O_NONBLOCK, O_DIRECT.
        libc::F_GETFL,
        libc::F_SETFL,
        // The store's lock.
        libc::F_OFD_SETLK,
        // Inflight memory; a key on its way.
        libc::F_ADD_SEALS,
        libc::F_GET_SEALS,
    ];
    list.when_one_of(libc::SYS_fcntl, 1, &commands.map(|command| command as u64))?;
    // Whether sockets block; what a block device is, which imago asks.
    let requests = [libc::FIONBIO, BLKSSZGET, BLKGETSIZE64];
    list.when_one_of(libc::SYS_ioctl, 1, &requests)
}

/// `<linux/fs.h>`: `_IO(0x12, 104)`, `_IOR(0x12, 114, size_t)`.
const BLKSSZGET: u64 = 0x1268;
const BLKGETSIZE64: u64 = 0x8008_1272;

/// Memory for keys and plaintext.
fn keys(list: &mut List) -> Result<(), BackendError> {
    list.any(&[
        libc::SYS_memfd_secret,
        libc::SYS_mlock,
        libc::SYS_mlock2,
        libc::SYS_munlock,
    ]);
    // The thread's own processors (`--pin`).
    list.when(libc::SYS_sched_setaffinity, &[Check::Is(0, 0)])
}

/// The rings that there are. What can be done with each is restricted where it is made.
fn ring(list: &mut List) -> Result<(), BackendError> {
    list.any(&[libc::SYS_io_uring_enter]);
    // Buffers and files to be known by number, and whom to interrupt (io_uring_register(2)).
    let operations = [
        0, // IORING_REGISTER_BUFFERS
        2, // IORING_REGISTER_FILES
        4, // IORING_REGISTER_EVENTFD
        5, // IORING_UNREGISTER_EVENTFD
    ];
    list.when_one_of(libc::SYS_io_uring_register, 1, &operations)
}

/// To start a thread, which restricts itself further.
fn starting(list: &mut List) -> Result<(), BackendError> {
    // Just what pthread_create(3) of glibc and of musl ask for. clone3, which takes its flags by reference, is absent.
    let thread = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    for flags in [thread, thread | libc::CLONE_DETACHED] {
        list.when(libc::SYS_clone, &[Check::IsWhole(0, flags as u64)])?;
    }
    let filter = [
        Check::Is(0, libc::SECCOMP_SET_MODE_FILTER.into()),
        Check::IsWhole(1, 0),
    ];
    list.when(libc::SYS_seccomp, &filter)
}

/// Frontends, the KMS, a successor or predecessor: on sockets that are there or are accepted.
fn sockets(list: &mut List) -> Result<(), BackendError> {
    list.any(&[
        libc::SYS_accept4,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_recvfrom,
        libc::SYS_shutdown,
        libc::SYS_getsockname,
        libc::SYS_getsockopt,
        // Memory for chains in flight.
        libc::SYS_memfd_create,
    ]);
    // To nobody but the other end.
    list.when(libc::SYS_sendto, &[Check::IsWhole(4, 0)])?;
    // SO_RCVTIMEO_NEW and SO_SNDTIMEO_NEW, and what they were before Linux 5.1.
    let options = [66, 67, libc::SO_RCVTIMEO, libc::SO_SNDTIMEO];
    for option in options {
        let checks = [Check::Is(1, libc::SOL_SOCKET as u64), Check::Is(2, option as u64)];
        list.when(libc::SYS_setsockopt, &checks)?;
    }
    Ok(())
}

/// Calls that libc and std make where it does not matter whether they succeed.
const REFUSED: &[c_long] = &[
    // malloc, the log and panics look for files: settings, /proc/self/maps, symbols.
    libc::SYS_openat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

/// Calls that have something else to fall back on.
const ABSENT: &[c_long] = &[libc::SYS_clone3, libc::SYS_membarrier, libc::SYS_sysinfo];

/// What is answered with `EACCES`.
pub(super) fn refused(directory: Option<BorrowedFd<'_>>) -> Result<List, BackendError> {
    let mut list = List::default();
    list.any(REFUSED);
    let names = [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS];
    list.unless_one_of(libc::SYS_prctl, 0, &names.map(|option| option as u64))?;
    let advice = [
        libc::MADV_DONTNEED,
        libc::MADV_FREE,
        libc::MADV_DONTFORK,
        libc::MADV_DONTDUMP,
        libc::MADV_HUGEPAGE,
        libc::MADV_POPULATE_WRITE,
        // MADV_GUARD_INSTALL, MADV_GUARD_REMOVE: stacks of glibc 2.42.
        102,
        103,
    ];
    list.unless_one_of(libc::SYS_madvise, 2, &advice.map(|advice| advice as u64))?;
    match directory {
        // The socket that was made here. Landlock sees to it that nothing elsewhere can be removed.
        Some(directory) => {
            list.when(
                libc::SYS_unlinkat,
                &[Check::IsNot(0, directory.as_raw_fd() as u64)],
            )?;
            list.when(libc::SYS_unlinkat, &[Check::IsNot(2, 0)])?;
        }
        None => list.any(&[libc::SYS_unlinkat]),
    }
    Ok(list)
}

/// What is answered with `ENOSYS`.
pub(super) fn absent() -> List {
    let mut list = List::default();
    list.any(ABSENT);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_starts_a_thread_may_do_what_it_may() {
        let starts = [
            (Kind::Main, &Kind::ALL[..]),
            (Kind::Control, &[Kind::Session, Kind::Store, Kind::Copy][..]),
            (Kind::Session, &[Kind::Queue][..]),
        ];
        for (kind, others) in starts {
            let list = permitted(kind).unwrap();
            for other in others {
                for (call, rules) in permitted(*other).unwrap().0 {
                    let own = list.0.get(&call);
                    let own = own.unwrap_or_else(|| panic!("{kind:?} starts {other:?}, which calls {call}"));
                    assert!(
                        own.is_empty() || rules.iter().all(|rule| own.contains(rule)),
                        "{kind:?} {other:?} {call}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_list_has_what_leads_out() {
        let out = [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_io_uring_setup,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_openat2,
            libc::SYS_open_by_handle_at,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_setuid,
            libc::SYS_capset,
            libc::SYS_io_setup,
            libc::SYS_personality,
        ];
        for kind in Kind::ALL {
            let list = permitted(kind).unwrap();
            assert!(out.iter().all(|call| !list.0.contains_key(call)), "{kind:?}");
        }
    }
}

//! What this process can still do once it has what it needs: nothing but its work on what it has open.
//!
//! 1. [`Sandbox::prepare`], first of all: what namespaces can be made with later.
//! 2. The claim. Then paths are needed for the last time: the socket is bound, [`crate::host`] looks around.
//! 3. [`Sandbox::confine`], while there is one thread: namespaces, limits, privileges, Landlock. Threads inherit all of these.
//! 4. [`Confined::filter`]: the list of system calls. Threads that are started later inherit it, and keep of it what they
//!    need, by [`narrow`].
//!
//! Nothing of a guest, of a predecessor, of an image or of a store is looked at before. What the kernel cannot do is in the
//! [`Report`]; the rest holds all the same.

mod calls;
mod filter;
mod limits;
mod namespaces;
mod paths;
mod privileges;
mod report;

use std::io;
use std::os::fd::BorrowedFd;

use sealblk_proto::causes::with_causes;

pub use self::filter::{narrow, narrow_early};
pub use self::report::Report;

/// What a process needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// Most queues that it will serve at a time.
    pub queues: usize,
    /// Bytes of the disk, or of the larger one of two.
    pub size: u64,
    /// Whether a store grows with what is written, or with the disk.
    pub layered: bool,
    /// Whether it copies, and so may read an image.
    pub copies: bool,
    /// Whether no other program has its user.
    pub own_user: bool,
    /// Where it has made a socket that it will remove.
    pub directory: Option<BorrowedFd<'a>>,
}

/// What runs in a thread: each kind has a list of its own. Those of threads that start others have all that these have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first thread.
    Main,
    /// Talks to the KMS.
    Control,
    /// Talks to a frontend.
    Session,
    /// Serves a queue.
    Queue,
    /// Works on a store beside the queues.
    Store,
    /// Copies.
    Copy,
    /// Waits, and tells others.
    Waiter,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] = [
        Kind::Main,
        Kind::Control,
        Kind::Session,
        Kind::Queue,
        Kind::Store,
        Kind::Copy,
        Kind::Waiter,
    ];
}

/// A process that is to be confined.
#[derive(Debug)]
pub struct Sandbox {
    namespaces: Result<(), String>,
}

/// One of which only the system calls are not restricted yet: threads that need others to begin with are started now.
#[derive(Debug)]
pub struct Confined {
    report: Report,
    seccomp: Result<(), String>,
}

impl Sandbox {
    /// To be called while there is one thread, when the process has become the user that it stays. As root it is to have kept
    /// its capabilities over that change; of these it keeps, until it is confined, what it takes to be confined, and to make a
    /// socket anywhere and for anybody, if that is to be done.
    ///
    /// # Errors
    /// The kernel's.
    pub fn prepare(makes_socket: bool) -> io::Result<Self> {
        Ok(Sandbox {
            namespaces: namespaces::prepare(makes_socket)?,
        })
    }

    /// Gives up everything but system calls. To be called while there is one thread; takes effect in all later ones.
    ///
    /// # Errors
    /// The kernel's, if it does what it should not. What it cannot do is in the report.
    pub fn confine(self, needs: &Needs<'_>) -> io::Result<Confined> {
        let mut report = Report::default();
        report.note("namespaces", self.namespaces.and_then(|()| namespaces::enter()));
        report.note("limits", limits::lower(needs));
        report.note("capabilities", privileges::drop_all());
        // The change of credentials may have made it so again.
        sealblk_proto::process::forbid_core_dumps()?;
        let has_landlock = paths::forbid(needs.directory);
        let directory = needs.directory.filter(|_| has_landlock.is_ok());
        report.note("landlock", has_landlock);
        Ok(Confined {
            report,
            seccomp: filter::prepare(directory),
        })
    }
}

impl Confined {
    /// Notes how a part went that is not this module's.
    pub fn note(&mut self, part: &'static str, outcome: Result<(), String>) {
        self.report.note(part, outcome);
    }

    /// From here on this thread, and those that it starts, can make no other system calls than those that are listed.
    pub fn filter(self) -> Report {
        let Confined { mut report, seccomp } = self;
        report.note(
            "seccomp",
            seccomp.and_then(|()| narrow_early(Kind::Main).map_err(|error| with_causes(&error))),
        );
        report
    }
}

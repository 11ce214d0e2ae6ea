//! The steps by which a process is confined, in their order.

use std::io;

use sealblk_proto::causes::with_causes;

use super::filter::{self, narrow_early};
use super::kind::Kind;
use super::needs::Needs;
use super::report::Report;
use super::{limits, namespaces, paths, privileges};

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

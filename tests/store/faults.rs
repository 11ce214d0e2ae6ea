//! Calls of a medium that fail.

use std::io;

/// What a medium is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Sync,
    Size,
    Grow,
    Reserve,
    Punch,
}

/// Which calls fail after the first that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    Once,
    /// Reads of the same pages, until these are written as a whole.
    There,
    /// All of its kind.
    Kind,
    /// All, as with a device that is gone.
    All,
}

/// A failure that is to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Calls before it.
    pub(crate) after: usize,
    /// See errno(3).
    pub(crate) errno: i32,
    pub(crate) lasting: Lasting,
    /// Chance: what a write that fails has done, and what a sync that fails has lost.
    pub(crate) left: u64,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) call: Call,
    /// Which medium, and the offset.
    pub(crate) place: (usize, u64),
    /// It would have written sectors of the disk.
    pub(crate) data: bool,
}

/// How a call fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failing {
    errno: i32,
    pub(crate) lasting: Lasting,
    pub(crate) left: u64,
}

impl From<Failing> for io::Error {
    fn from(failing: Failing) -> Self {
        io::Error::from_raw_os_error(failing.errno)
    }
}

/// What fails, and what has failed, of one medium or of several.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Calls since [`Faults::begin`].
    pub(crate) calls: Vec<Call>,
    to_come: Vec<Fault>,
    /// Those that last, each with the kind of the call that it began with.
    lasting: Vec<(Fault, Call)>,
    pub(crate) hits: Vec<Hit>,
    paused: bool,
}

impl Faults {
    /// Counts calls from now on, of which these will fail.
    pub(crate) fn begin(&mut self, faults: Vec<Fault>) {
        *self = Faults {
            to_come: faults,
            hits: std::mem::take(&mut self.hits),
            ..Faults::default()
        };
    }

    /// Neither counts calls nor fails them meanwhile.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(crate) fn call(&mut self, call: Call, place: (usize, u64), data: bool) -> Result<(), Failing> {
        if self.paused {
            return Ok(());
        }
        let number = self.calls.len();
        self.calls.push(call);
        let fresh = self.to_come.iter().find(|fault| fault.after == number).copied();
        self.lasting.extend(fresh.map(|fault| (fault, call)));
        let covers = |(fault, first): &&(Fault, Call)| match fault.lasting {
            Lasting::Once | Lasting::There => false,
            Lasting::Kind => *first == call,
            Lasting::All => true,
        };
        let Some(fault) = fresh.or_else(|| self.lasting.iter().find(covers).map(|(fault, _)| *fault)) else {
            return Ok(());
        };
        self.hit(call, place, data);
        Err(Failing {
            errno: fault.errno,
            lasting: fault.lasting,
            left: fault.left,
        })
    }

    pub(crate) fn hit(&mut self, call: Call, place: (usize, u64), data: bool) {
        self.hits.push(Hit { call, place, data });
    }
}

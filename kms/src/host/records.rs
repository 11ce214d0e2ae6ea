//! What the host needs of those above it: that they remember who has a store and what that is, and give the keys that
//! processes need. Declared here, and carried out where catalogue and keys are.

use std::future::Future;
use std::pin::Pin;

use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::{StoreExpected, StoreState};
use sealblk_proto::token::TokenHash;

use crate::error::Error;
use crate::host::backends::process::Identity;

/// What comes of a question, later.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A lineage key that a process is to be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyUse<'a> {
    pub(crate) account: &'a str,
    pub(crate) lineage: &'a str,
    /// What it is used for, in the audit log.
    pub(crate) object: &'a str,
    /// The volume whose data the process reads or writes with it.
    pub(crate) volume: &'a str,
}

/// The volumes whose stores a process is to be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volumes<'a> {
    pub(crate) own: &'a str,
    /// Whether the volume's own store is to be made: what is known of another is forgotten.
    pub(crate) is_new: bool,
    /// What is copied from.
    pub(crate) source: Option<&'a str>,
}

/// A store that is about to be given to a process.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// What it must be.
    pub(crate) expected: StoreExpected,
    /// Whether the last process that had it has said its end.
    pub(crate) was_closed: bool,
}

/// What is remembered durably, each time before the answer comes.
pub(crate) trait Records: Send + Sync {
    /// Notes which process gets the store of a service, before it does.
    fn process<'a>(&'a self, service: &'a str, process: &'a Identity) -> Answer<'a, ()>;

    /// The token that a new process of a service is given, beside the one of the process that may still serve.
    fn next_token<'a>(&'a self, service: &'a str, token: TokenHash) -> Answer<'a, ()>;

    /// The process with this token serves: no other token is good any more.
    fn token<'a>(&'a self, service: &'a str, token: TokenHash) -> Answer<'a, ()>;

    /// The key of a lineage, after the audit log has its use (rules M04 and A06).
    fn lineage_key<'a>(&'a self, wanted: KeyUse<'a>) -> Answer<'a, LineageKey>;

    /// The stores of these volumes are given away: what they must be, that of the source last.
    fn open<'a>(&'a self, volumes: Volumes<'a>) -> Answer<'a, (Opened, Opened)>;

    /// Nobody has written to the stores of these volumes since they were said to be closed.
    fn close_again<'a>(&'a self, volumes: &'a [&'a str]) -> Answer<'a, ()>;

    /// A process serves, and has said what its store is, unless it is of an earlier version.
    fn serves<'a>(&'a self, volume: &'a str, state: Option<&'a StoreState>) -> Answer<'a, ()>;

    /// What the stores of these volumes are, which have been closed.
    fn closed<'a>(&'a self, stores: &'a [(&'a str, &'a StoreState)]) -> Answer<'a, ()>;
}

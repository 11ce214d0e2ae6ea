//! Live upgrade: the process that serves a disk hands it over to its successor, over a socket that the KMS has made
//! between the two.
//!
//! ```text
//! predecessor                                   successor
//!    │                    Begin {version}          │   it has the configuration and the key, from the KMS
//!    │◄────────────────────────────────────────────│
//!    │  (its queues drain, its store rests)        │
//!    │  State {numbers}, More…, with descriptors   │
//!    │────────────────────────────────────────────►│   maps and checks everything, and touches nothing
//!    │                    Prepared | Failed        │
//!    │◄────────────────────────────────────────────│
//!    │  Go                                         │
//!    │────────────────────────────────────────────►│   opens the store and serves
//! ```
//!
//! Until Go is sent the predecessor can go on as if nothing had been; from then on it does nothing more. A successor that
//! fails after that has died like any other process: the next one takes up what was in flight. The store's lock stays
//! with its open file, which both have.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::message::{AttachmentConfig, Failure, StoreKind};
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::vhost::{Adopted, Server, ServerState, Suspended};

/// Of these messages.
const VERSION: u32 = 1;
/// How long the other side may take for a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long requests in flight may take to end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Descriptors in one packet.
const DESCRIPTORS_AT_ONCE: usize = 32;
/// Most descriptors of one hand-over: two of the store, and those of a session with all its regions and queues.
const MAX_DESCRIPTORS: usize = 128;

/// Why a hand-over was not made.
const NOT_HANDED_OVER: &str = "NotHandedOver";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Word {
    Begin {
        version: u32,
    },
    State {
        server: ServerState,
        /// How many come, with this message and the next ones.
        descriptors: usize,
    },
    More,
    Prepared,
    Failed(Failure),
    Go,
}

/// What a successor has been given.
pub struct Taken {
    /// The store's open file, locked.
    pub data: File,
    /// Its second description, if it is layered.
    pub metadata: Option<File>,
    /// The sockets and the session.
    pub server: Adopted,
}

/// Hands everything over. After an error everything goes on as before.
///
/// # Errors
/// Why it goes on.
pub(super) fn give(bridge: &Channel, server: &Server, disk: &Disk) -> Result<(), Failure> {
    bridge
        .set_timeout(Some(PATIENCE))
        .map_err(|error| failure(&error))?;
    match receive(bridge)?.0 {
        Word::Begin { version: VERSION } => {}
        _ => return Err(failure(&"the successor is of another version")),
    }
    if disk.is_poisoned() {
        return Err(failure(&"the disk is poisoned: detach and attach it"));
    }
    let suspended = server.suspend(DRAIN_PATIENCE).map_err(|error| failure(&error))?;
    disk.store().rest();
    let offered = offer(bridge, &suspended, disk);
    if offered.is_err() {
        if let Err(error) = disk.store().go_on() {
            log::error!("the store's threads cannot be started again: {error}");
        }
        if let Err(error) = server.resume(suspended) {
            // The next process takes up what is in flight.
            log::error!("the queues cannot be served again: {error}");
            std::process::abort();
        }
    }
    offered
}

fn offer(bridge: &Channel, suspended: &Suspended, disk: &Disk) -> Result<(), Failure> {
    let (state, files) = suspended.export().map_err(|error| failure(&error))?;
    let descriptors: Vec<BorrowedFd<'_>> = disk
        .store()
        .descriptors()
        .into_iter()
        .chain(files.iter().map(AsFd::as_fd))
        .collect();
    let mut word = Word::State {
        server: state,
        descriptors: descriptors.len(),
    };
    for some in descriptors.chunks(DESCRIPTORS_AT_ONCE) {
        bridge.send(&word, some).map_err(|error| failure(&error))?;
        word = Word::More;
    }
    match receive(bridge)?.0 {
        Word::Prepared => bridge.send(&Word::Go, &[]).map_err(|error| failure(&error)),
        Word::Failed(failure) => Err(failure),
        _ => Err(failure(&"the successor has said something else")),
    }
}

/// Takes everything over from the process at the other end of `bridge`, which does nothing more afterwards.
///
/// # Errors
/// Why not; then the predecessor goes on.
pub fn take_over(bridge: &Channel, config: &AttachmentConfig) -> Result<Taken, Failure> {
    bridge
        .set_timeout(Some(PATIENCE))
        .map_err(|error| failure(&error))?;
    send(bridge, &Word::Begin { version: VERSION })?;
    match prepare(bridge, config) {
        Ok(taken) => {
            send(bridge, &Word::Prepared)?;
            match receive(bridge)?.0 {
                Word::Go => Ok(taken),
                _ => Err(failure(&"the predecessor has said something else")),
            }
        }
        Err(failure) => {
            // The connection's end says as much.
            let _ = bridge.send(&Word::Failed(failure.clone()), &[]);
            Err(failure)
        }
    }
}

fn prepare(bridge: &Channel, config: &AttachmentConfig) -> Result<Taken, Failure> {
    let (word, mut files) = receive(bridge)?;
    let Word::State { server, descriptors } = word else {
        return Err(failure(&"the predecessor has said something else"));
    };
    while files.len() < descriptors && descriptors <= MAX_DESCRIPTORS {
        match receive(bridge)? {
            (Word::More, more) if !more.is_empty() => files.extend(more),
            _ => return Err(failure(&"the predecessor has said something else")),
        }
    }
    let thin = config.store == StoreKind::Layered;
    let own = 1 + usize::from(thin);
    if files.len() != descriptors || files.len() < own {
        return Err(failure(&"the predecessor has sent too few descriptors"));
    }
    let rest = files.split_off(own);
    let mut own = files.into_iter().map(File::from);
    let data = own.next().ok_or_else(|| failure(&"there is no store"))?;
    let server =
        Adopted::new(server, rest, config.queues, config.read_only, thin).map_err(|error| failure(&error))?;
    Ok(Taken {
        data,
        metadata: own.next(),
        server,
    })
}

fn send(bridge: &Channel, word: &Word) -> Result<(), Failure> {
    bridge.send(word, &[]).map_err(|error| failure(&error))
}

fn receive(bridge: &Channel) -> Result<(Word, Vec<OwnedFd>), Failure> {
    bridge.receive().map_err(|error: ChannelError| failure(&error))
}

fn failure(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(NOT_HANDED_OVER, why.to_string())
}

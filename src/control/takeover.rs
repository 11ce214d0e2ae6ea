//! Live upgrade: the process that serves a disk hands it over to its successor, over a socket that the KMS has made
//! between the two.
//!
//! ```text
//! predecessor                                   successor
//!    │                    Begin {version}          │   it has the configuration and the key, from the KMS
//!    │◄────────────────────────────────────────────│
//!    │  (its queues drain, its store rests)        │
//!    │  State {numbers}, More…, with descriptors   │
//!    │  Session {numbers}, More…, for each further │
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

use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::message::{AttachmentConfig, Failure, SessionConfig, StoreKind, code};
use serde::{Deserialize, Serialize};

use super::sessions::Sessions;
use crate::barrier::Barrier;
use crate::disk::Disk;
use crate::limits::{MAX_SESSION_DESCRIPTORS, MAX_SESSIONS};
use crate::vhost::{Adopted, ServerState, Suspended};

/// Of these messages.
const VERSION: u32 = 1;
/// How long the other side may take for a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long requests in flight may take to end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long frontends may take to finish a message that they have begun, while all wait.
const SUSPEND_PATIENCE: Duration = Duration::from_secs(1);
/// Descriptors in one packet.
const DESCRIPTORS_AT_ONCE: usize = 32;
/// Most descriptors with one session; with the first come two of the store.
const MAX_DESCRIPTORS: usize = MAX_SESSION_DESCRIPTORS + 2;

/// Why a hand-over was not made.
const NOT_HANDED_OVER: &str = "NotHandedOver";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Word {
    Begin {
        version: u32,
    },
    /// The first session. What an earlier version does not know is left out where it is as it always was.
    State {
        server: ServerState,
        /// How many come, with this message and the next ones.
        descriptors: usize,
        /// None: of the attachment that the process has claimed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionConfig>,
        /// How many sessions follow.
        #[serde(default, skip_serializing_if = "is_zero")]
        further: usize,
    },
    /// A further one.
    Session {
        config: SessionConfig,
        server: ServerState,
        descriptors: usize,
    },
    More,
    Prepared,
    Failed(Failure),
    Go,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// One session that a successor has been given.
pub struct TakenSession {
    /// Whose it is.
    pub config: SessionConfig,
    /// Its socket, and the frontend that is connected.
    pub server: Adopted,
}

/// What a successor has been given.
pub struct Taken {
    /// The store's open file, locked.
    pub data: File,
    /// Its second description, if it is layered.
    pub metadata: Option<File>,
    /// The sessions.
    pub sessions: Vec<TakenSession>,
}

/// Hands everything over. After an error everything goes on as before.
///
/// # Errors
/// Why it goes on.
pub(super) fn give(
    bridge: &Channel,
    attachment: &str,
    sessions: &Sessions,
    disk: &Disk,
    barrier: &Barrier,
) -> Result<(), Failure> {
    bridge
        .set_timeout(Some(PATIENCE))
        .map_err(|error| failure(&error))?;
    match receive(bridge)?.0 {
        Word::Begin { version: VERSION } => {}
        _ => return Err(refusal("the successor is of another version")),
    }
    ensure_sound(disk)?;
    // Here all queues of all sessions are waited for at once, and none is kept from going on by another that does not end.
    barrier.raise(DRAIN_PATIENCE).map_err(|error| failure(&error))?;
    let given = give_at_rest(bridge, attachment, sessions, disk);
    if given.is_err() {
        barrier.lower();
    }
    given
}

/// The same, of queues that have nothing in flight and take nothing.
fn give_at_rest(bridge: &Channel, attachment: &str, sessions: &Sessions, disk: &Disk) -> Result<(), Failure> {
    let store = disk.store();
    if !store.quiesce_background(DRAIN_PATIENCE) {
        return Err(refusal("the store's threads did not come to rest in time"));
    }
    let suspended = sessions
        .suspend(SUSPEND_PATIENCE)
        .map_err(|error| failure(&error))
        .inspect_err(|_| store.go_on())?;
    // The last of the guest's flushes, or what the store's threads were doing, may have failed meanwhile.
    let offered = ensure_sound(disk).and_then(|()| offer(bridge, attachment, &suspended, disk));
    if offered.is_err() {
        store.go_on();
        sessions.resume(suspended);
    }
    offered
}

/// A successor would open the store anew, and so vouch, without the guest's noticing, for data that is lost.
fn ensure_sound(disk: &Disk) -> Result<(), Failure> {
    let sound = disk.store().poison().check();
    sound.map_err(|poisoned| {
        let text = format!("{poisoned}; detach the disk and attach it again");
        Failure::new(code::STORE_UNUSABLE, text)
    })
}

fn offer(
    bridge: &Channel,
    attachment: &str,
    suspended: &[(SessionConfig, Suspended)],
    disk: &Disk,
) -> Result<(), Failure> {
    let Some(((first, server), further)) = suspended.split_first() else {
        return Err(refusal("nobody is served"));
    };
    let (server, files) = server.export().map_err(|error| failure(&error))?;
    let descriptors: Vec<BorrowedFd<'_>> = disk
        .store()
        .descriptors()
        .into_iter()
        .chain(files.iter().map(AsFd::as_fd))
        .collect();
    let state = Word::State {
        server,
        descriptors: descriptors.len(),
        session: (first.attachment != attachment).then(|| first.clone()),
        further: further.len(),
    };
    send_with(bridge, state, &descriptors)?;
    for (config, server) in further {
        let (server, files) = server.export().map_err(|error| failure(&error))?;
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let session = Word::Session {
            config: config.clone(),
            server,
            descriptors: descriptors.len(),
        };
        send_with(bridge, session, &descriptors)?;
    }
    match receive(bridge)?.0 {
        Word::Prepared => bridge.send(&Word::Go, &[]).map_err(|error| failure(&error)),
        Word::Failed(failure) => Err(failure),
        _ => Err(refusal("the successor has said something else")),
    }
}

/// Sends a word with more descriptors than one packet takes.
fn send_with(bridge: &Channel, word: Word, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    let mut word = word;
    for some in descriptors.chunks(DESCRIPTORS_AT_ONCE) {
        bridge.send(&word, some).map_err(|error| failure(&error))?;
        word = Word::More;
    }
    Ok(())
}

/// Takes everything over from the process at the other end of `bridge`, which does nothing more afterwards. `attachment` is
/// the one that both have claimed.
///
/// # Errors
/// Why not; then the predecessor goes on.
pub fn take_over(bridge: &Channel, attachment: &str, config: &AttachmentConfig) -> Result<Taken, Failure> {
    bridge
        .set_timeout(Some(PATIENCE))
        .map_err(|error| failure(&error))?;
    send(bridge, &Word::Begin { version: VERSION })?;
    match prepare(bridge, attachment, config) {
        Ok(taken) => {
            send(bridge, &Word::Prepared)?;
            match receive(bridge)?.0 {
                Word::Go => Ok(taken),
                _ => Err(refusal("the predecessor has said something else")),
            }
        }
        Err(failure) => {
            // The connection's end says as much.
            let _ = bridge.send(&Word::Failed(failure.clone()), &[]);
            Err(failure)
        }
    }
}

fn prepare(bridge: &Channel, attachment: &str, config: &AttachmentConfig) -> Result<Taken, Failure> {
    let (word, files) = receive(bridge)?;
    let Word::State {
        server,
        descriptors,
        session,
        further,
    } = word
    else {
        return Err(strange());
    };
    let mut files = receive_rest(bridge, files, descriptors)?;
    let layered = config.store == StoreKind::Layered;
    let own = 1 + usize::from(layered);
    if files.len() < own || further >= MAX_SESSIONS {
        return Err(refusal("the predecessor has sent too few descriptors"));
    }
    let rest = files.split_off(own);
    let mut own = files.into_iter().map(File::from);
    let data = own.next().ok_or_else(|| refusal("there is no store"))?;
    let first = session.unwrap_or_else(|| SessionConfig {
        attachment: attachment.to_owned(),
        queues: config.queues,
        read_only: config.read_only,
    });
    let mut sessions = vec![adopt(first, server, rest, layered)?];
    for _ in 0..further {
        let (word, files) = receive(bridge)?;
        let Word::Session {
            config,
            server,
            descriptors,
        } = word
        else {
            return Err(strange());
        };
        let files = receive_rest(bridge, files, descriptors)?;
        sessions.push(adopt(config, server, files, layered)?);
    }
    Ok(Taken {
        data,
        metadata: own.next(),
        sessions,
    })
}

fn adopt(
    config: SessionConfig,
    server: ServerState,
    files: Vec<OwnedFd>,
    layered: bool,
) -> Result<TakenSession, Failure> {
    let server = Adopted::new(server, files, config.queues, config.read_only, layered);
    Ok(TakenSession {
        server: server.map_err(|error| failure(&error))?,
        config,
    })
}

/// The descriptors that did not come with a word.
fn receive_rest(
    bridge: &Channel,
    mut files: Vec<OwnedFd>,
    descriptors: usize,
) -> Result<Vec<OwnedFd>, Failure> {
    while files.len() < descriptors && descriptors <= MAX_DESCRIPTORS {
        match receive(bridge)? {
            (Word::More, more) if !more.is_empty() => files.extend(more),
            _ => return Err(strange()),
        }
    }
    if files.len() == descriptors {
        Ok(files)
    } else {
        Err(refusal("the predecessor has sent too few descriptors"))
    }
}

fn strange() -> Failure {
    refusal("the predecessor has said something else")
}

fn send(bridge: &Channel, word: &Word) -> Result<(), Failure> {
    bridge.send(word, &[]).map_err(|error| failure(&error))
}

fn receive(bridge: &Channel) -> Result<(Word, Vec<OwnedFd>), Failure> {
    bridge.receive().map_err(|error: ChannelError| failure(&error))
}

fn failure(error: &dyn std::error::Error) -> Failure {
    refusal(with_causes(error))
}

fn refusal(why: impl Into<String>) -> Failure {
    Failure::new(NOT_HANDED_OVER, why)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::store::{RawStore, Store};
    use crate::units::{ByteLen, Capacity};
    use crate::vhost::{Crew, QueueContext, Tuning};

    #[test]
    fn a_store_that_has_failed_is_not_handed_over() {
        let capacity = Capacity::new(ByteLen(4096)).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let store = Store::Raw(RawStore::open(file, capacity).unwrap());
        let disk = Arc::new(Disk::new(capacity, false, "", None, store));
        let barrier = Arc::new(Barrier::default());
        let crew = Crew::new(0).unwrap();
        let context = QueueContext::new(disk.clone(), barrier.clone(), Tuning::default(), crew);
        let sessions = Sessions::new(context);
        let why = || {
            let (ours, theirs) = Channel::pair().unwrap();
            theirs.send(&Word::Begin { version: VERSION }, &[]).unwrap();
            give(&ours, "att-1", &sessions, &disk, &barrier)
                .unwrap_err()
                .message
        };
        assert_eq!(why(), "nobody is served");
        disk.poison(&io::Error::from_raw_os_error(libc::EIO));
        let refused = why();
        assert!(refused.contains("Input/output error"), "{refused}");
        assert!(
            refused.ends_with("detach the disk and attach it again"),
            "{refused}"
        );
    }
}

//! Claiming an attachment: dialling the KMS at first, and answering one that has come back.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::key_transfer::take_key;
use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::{
    AttachmentConfig, CopySource, Failure, Hello, HelloAnswer, Mode, OLDEST_VERSION, PROTOCOL_VERSION,
    Readiness, StoreKind, code,
};
use sealblk_proto::token::Token;

use crate::store::FilePair;

/// How long the KMS may take for one message.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a KMS that is not there (yet) is waited for at the start.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);
/// Time between two words of a store that is being opened.
const OPENING_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two attempts.
const DIAL_INTERVAL: Duration = Duration::from_millis(200);

/// The claim failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens at the KMS's socket.
    #[error("the KMS cannot be reached at {path}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The exchange broke off.
    #[error("the exchange with the KMS failed")]
    Channel(#[from] ChannelError),
    /// The KMS said no.
    #[error("the KMS refused")]
    Refused(#[source] Failure),
    /// The KMS's answer lacks a descriptor.
    #[error("the KMS's answer has {got} descriptors instead of {need}")]
    Descriptors {
        /// Received.
        got: usize,
        /// Needed.
        need: usize,
    },
    /// The key could not be taken.
    #[error("the key could not be taken")]
    Key(#[source] io::Error),
    /// A process that is not the KMS has dialled.
    #[error("who has dialled is user {uid}, and not the KMS's")]
    Stranger {
        /// The other side's user.
        uid: u32,
    },
}

/// What is claimed, and by what right.
pub struct Claim {
    /// The KMS's backend socket.
    pub kms: PathBuf,
    /// Id of the attachment.
    pub attachment: String,
    /// The right to it.
    pub token: Token,
    /// What is spoken: an earlier version from when a KMS has refused the present one.
    version: AtomicU32,
}

/// The KMS's answer to the first claim.
pub struct Claimed {
    /// The connection, for [`Claimed::report`] and for commands.
    pub channel: Channel,
    /// What to serve.
    pub config: AttachmentConfig,
    /// The store, or from whom to take it.
    pub own: Own,
    /// The files that it reads besides, if it is layered.
    pub bases: Vec<FilePair>,
    /// The lineage key, if the disk is encrypted.
    pub key: Option<LineageKey>,
    /// What is to be copied from, in [`Mode::Copy`].
    pub source: Option<ClaimedSource>,
}

/// What is copied from.
pub struct ClaimedSource {
    /// What it is.
    pub config: CopySource,
    /// The open file or block device.
    pub data: File,
    /// Another description of it, for metadata, if it is layered.
    pub metadata: Option<File>,
    /// The files that it reads besides, if it is layered.
    pub bases: Vec<FilePair>,
    /// The lineage key, if its data is encrypted.
    pub key: Option<LineageKey>,
}

/// Where the store comes from.
pub enum Own {
    /// From the KMS.
    Store {
        /// The open file or block device.
        data: File,
        /// Another description of it, for metadata, if it is layered.
        metadata: Option<File>,
    },
    /// From the process at the other end, with all that it serves.
    Predecessor(Channel),
}

impl Claim {
    /// The claim to an attachment.
    pub fn new(kms: PathBuf, attachment: String, token: Token) -> Self {
        Claim {
            kms,
            attachment,
            token,
            version: AtomicU32::new(PROTOCOL_VERSION),
        }
    }

    /// The version that is spoken.
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    /// The first claim: waits for the KMS, and takes store and key.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn take(&self) -> Result<Claimed, LinkError> {
        let mut channel = self.dial_patiently()?;
        let (config, descriptors) = match self.hello(&channel, false) {
            Err(LinkError::Refused(refusal)) if self.speak_older(&refusal) => {
                channel = self.dial_patiently()?;
                self.hello(&channel, false)?
            }
            answer => answer?,
        };
        let takes_over = config.mode == Mode::TakeOver;
        let copies = matches!(config.mode, Mode::Copy { .. });
        let has_key = config.encrypted && (config.mode == Mode::Serve || takes_over || copies);
        let layered = config.store == StoreKind::Layered;
        let bases = if layered { config.bases } else { 0 };
        let given = Given::sort(descriptors, layered && !takes_over, bases, has_key);
        let given = given.map_err(|error| say_key(&channel, error))?;
        let source = if copies { Some(source(&channel)?) } else { None };
        Ok(Claimed {
            channel,
            config,
            own: if takes_over {
                Own::Predecessor(Channel::from(given.first))
            } else {
                Own::Store {
                    data: File::from(given.first),
                    metadata: given.metadata,
                }
            },
            bases: given.bases,
            key: given.key,
            source,
        })
    }

    /// A later claim, by a process that serves already, to whoever has dialled it: the KMS runs as user `kms`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(super) fn renew(&self, channel: &Channel, kms: u32) -> Result<AttachmentConfig, LinkError> {
        let uid = channel.peer().map_err(ChannelError::Io)?.uid;
        if uid != kms {
            return Err(LinkError::Stranger { uid });
        }
        channel
            .set_timeout(Some(ANSWER_PATIENCE))
            .map_err(ChannelError::Io)?;
        let (config, _) = self.hello(channel, true).inspect_err(|error| {
            // The KMS dials again.
            if let LinkError::Refused(refusal) = error {
                self.speak_older(refusal);
            }
        })?;
        channel.send(&Readiness::Ready, &[])?;
        Ok(config)
    }

    /// After a refusal: whether the earlier version is to be tried, which then is spoken from now on.
    fn speak_older(&self, refusal: &Failure) -> bool {
        refusal.code == code::VERSION
            && self.version.swap(OLDEST_VERSION, Ordering::Relaxed) != OLDEST_VERSION
    }

    fn dial_patiently(&self) -> Result<Channel, LinkError> {
        let deadline = Instant::now() + DIAL_PATIENCE;
        loop {
            match self.dial() {
                Err(LinkError::Unreachable { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(DIAL_INTERVAL);
                }
                outcome => return outcome,
            }
        }
    }

    fn dial(&self) -> Result<Channel, LinkError> {
        let unreachable = |source| LinkError::Unreachable {
            path: self.kms.clone(),
            source,
        };
        let channel = Channel::connect(&self.kms).map_err(unreachable)?;
        channel.set_timeout(Some(ANSWER_PATIENCE)).map_err(unreachable)?;
        Ok(channel)
    }

    fn hello(&self, channel: &Channel, serving: bool) -> Result<(AttachmentConfig, Vec<OwnedFd>), LinkError> {
        let hello = Hello {
            version: self.version(),
            attachment: self.attachment.clone(),
            token: self.token.clone(),
            serving,
        };
        channel.send(&hello, &[])?;
        match channel.receive()? {
            (HelloAnswer::Welcome(config), descriptors) => Ok((config, descriptors)),
            (HelloAnswer::Refused(failure), _) => Err(LinkError::Refused(failure)),
        }
    }
}

/// What comes with a message, in its order.
struct Given {
    first: OwnedFd,
    metadata: Option<File>,
    bases: Vec<FilePair>,
    key: Option<LineageKey>,
}

impl Given {
    fn sort(
        mut descriptors: Vec<OwnedFd>,
        layered: bool,
        bases: u16,
        has_key: bool,
    ) -> Result<Self, LinkError> {
        let pairs = usize::from(bases);
        let need = 1 + usize::from(layered) + 2 * pairs + usize::from(has_key);
        let got = descriptors.len();
        if got != need {
            return Err(LinkError::Descriptors { got, need });
        }
        let key = has_key.then(|| descriptors.pop()).flatten().map(take_key);
        let mut descriptors = descriptors.into_iter();
        let first = descriptors.next().ok_or(LinkError::Descriptors { got, need })?;
        let mut files = descriptors.map(File::from);
        let metadata = if layered { files.next() } else { None };
        let mut bases = Vec::new();
        while let (Some(data), Some(metadata)) = (files.next(), files.next()) {
            bases.push(FilePair { data, metadata });
        }
        Ok(Given {
            first,
            metadata,
            bases,
            key: key.transpose().map_err(LinkError::Key)?,
        })
    }
}

/// What a copy is made from comes in a message of its own, since all of it would be too many descriptors for one.
fn source(channel: &Channel) -> Result<ClaimedSource, LinkError> {
    let (config, descriptors) = channel.receive::<CopySource>()?;
    let layered = config.store == StoreKind::Layered;
    let bases = if layered { config.bases } else { 0 };
    let given = Given::sort(descriptors, layered, bases, config.encrypted);
    let given = given.map_err(|error| say_key(channel, error))?;
    Ok(ClaimedSource {
        config,
        data: File::from(given.first),
        metadata: given.metadata,
        bases: given.bases,
        key: given.key,
    })
}

/// Tells the KMS of a key that could not be taken.
fn say_key(channel: &Channel, error: LinkError) -> LinkError {
    if let LinkError::Key(error) = &error {
        let failure = Failure::new(code::KEY_UNUSABLE, with_causes(error));
        // The connection's end tells the KMS as much.
        let _ = channel.send(&Readiness::Failed(failure), &[]);
    }
    error
}

impl Claimed {
    /// All files that have come with it.
    pub fn files(&self) -> Vec<&File> {
        let own = match &self.own {
            Own::Store { data, .. } => Some(data),
            Own::Predecessor(_) => None,
        };
        let source = self.source.as_ref();
        let bases = source.map_or(&[][..], |source| &source.bases);
        let bases = self.bases.iter().chain(bases).map(|base| &base.data);
        own.into_iter()
            .chain(source.map(|source| &source.data))
            .chain(bases)
            .collect()
    }

    /// Tells the KMS, each second at most, that the opening of the store gets on.
    pub fn opening(channel: &Channel, version: u32) -> impl Fn() {
        let told = Cell::new(Instant::now());
        move || {
            if version > OLDEST_VERSION && told.get().elapsed() >= OPENING_INTERVAL {
                told.set(Instant::now());
                // If it cannot be said, the connection's end or the silence says as much.
                let _ = channel.send(&Readiness::Opening, &[]);
            }
        }
    }

    /// Tells the KMS that the attachment is served now, or why it cannot be.
    ///
    /// # Errors
    /// [`LinkError::Channel`].
    pub fn report(channel: &Channel, outcome: Result<(), Failure>) -> Result<(), LinkError> {
        let readiness = match outcome {
            Ok(()) => Readiness::Ready,
            Err(failure) => Readiness::Failed(failure),
        };
        Ok(channel.send(&readiness, &[])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opens_a_store_says_so_once_a_second_to_who_understands_it() {
        for (version, expected) in [(OLDEST_VERSION, 0), (PROTOCOL_VERSION, 1)] {
            let (ours, theirs) = Channel::pair().unwrap();
            let tell = Claimed::opening(&theirs, version);
            let begun = Instant::now();
            while begun.elapsed() < OPENING_INTERVAL * 3 / 2 {
                tell();
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(tell);
            theirs.send(&Readiness::Ready, &[]).unwrap();
            let mut words = 0;
            while let Readiness::Opening = ours.receive::<Readiness>().unwrap().0 {
                words += 1;
            }
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn a_kms_of_an_earlier_version_is_spoken_to_in_that() {
        let directory = tempfile::tempdir().unwrap();
        let kms = directory.path().join("kms.sock");
        let listener = sealblk_proto::channel::Listener::bind(&kms).unwrap();
        let claim = Claim::new(kms, "att-1".to_owned(), Token::generate().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for version in [PROTOCOL_VERSION, OLDEST_VERSION] {
                    let channel = listener.accept().unwrap();
                    assert_eq!(channel.receive::<Hello>().unwrap().0.version, version);
                    let refusal = Failure::new(code::VERSION, "another version");
                    channel.send(&HelloAnswer::Refused(refusal), &[]).unwrap();
                }
            });
            assert!(
                matches!(claim.take(), Err(LinkError::Refused(_))),
                "twice is enough"
            );
            assert_eq!(claim.version(), OLDEST_VERSION);
        });
    }
}

//! Dialling the KMS and claiming an attachment.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::key_transfer::take_key;
use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::{
    AttachmentConfig, Failure, Hello, HelloAnswer, Mode, PROTOCOL_VERSION, Readiness, StoreKind, code,
};
use sealblk_proto::token::Token;

use crate::store::FilePair;

/// How long the KMS may take for one message.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a KMS that is not there (yet) is waited for at the start.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);
/// Time between two attempts.
pub(super) const DIAL_INTERVAL: Duration = Duration::from_millis(200);

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
}

/// What is claimed, and by what right.
pub struct Claim {
    /// The KMS's backend socket.
    pub kms: PathBuf,
    /// Id of the attachment.
    pub attachment: String,
    /// The right to it.
    pub token: Token,
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
    /// The first claim: waits for the KMS, and takes store and key.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn take(&self) -> Result<Claimed, LinkError> {
        let deadline = Instant::now() + DIAL_PATIENCE;
        let channel = loop {
            match self.dial() {
                Err(LinkError::Unreachable { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(DIAL_INTERVAL);
                }
                outcome => break outcome?,
            }
        };
        let (config, mut descriptors) = self.hello(&channel, false)?;
        let takes_over = config.mode == Mode::TakeOver;
        let has_key = config.encrypted && (config.mode == Mode::Serve || takes_over);
        let layered = config.store == StoreKind::Layered;
        let pairs = if layered { usize::from(config.bases) } else { 0 };
        let need = 1 + usize::from(layered && !takes_over) + 2 * pairs + usize::from(has_key);
        let got = descriptors.len();
        if got != need {
            return Err(LinkError::Descriptors { got, need });
        }
        let key = has_key.then(|| descriptors.pop()).flatten().map(take_key);
        let mut descriptors = descriptors.into_iter();
        let first = descriptors.next().ok_or(LinkError::Descriptors { got, need })?;
        let mut files = descriptors.map(File::from);
        let own = if takes_over {
            Own::Predecessor(Channel::from(first))
        } else {
            Own::Store {
                data: File::from(first),
                metadata: if layered { files.next() } else { None },
            }
        };
        let mut bases = Vec::new();
        while let (Some(data), Some(metadata)) = (files.next(), files.next()) {
            bases.push(FilePair { data, metadata });
        }
        match key.transpose() {
            Ok(key) => Ok(Claimed {
                channel,
                config,
                own,
                bases,
                key,
            }),
            Err(error) => {
                let failure = Failure::new(code::KEY_UNUSABLE, error.to_string());
                // The connection's end tells the KMS as much.
                let _ = channel.send(&Readiness::Failed(failure), &[]);
                Err(LinkError::Key(error))
            }
        }
    }

    /// A later claim, by a process that serves already.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(super) fn renew(&self) -> Result<(Channel, AttachmentConfig), LinkError> {
        let channel = self.dial()?;
        let (config, _) = self.hello(&channel, true)?;
        channel.send(&Readiness::Ready, &[])?;
        Ok((channel, config))
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
            version: PROTOCOL_VERSION,
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

impl Claimed {
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

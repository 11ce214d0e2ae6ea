//! The messages, as JSON objects of at most [`crate::channel::MAX_MESSAGE_BYTES`]. No key material is ever in one.

use serde::{Deserialize, Serialize};

use crate::token::Token;

/// Version of this exchange. Both sides refuse another one.
pub const PROTOCOL_VERSION: u32 = 1;

/// First message, from sealblk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// Id of the attachment that is claimed.
    pub attachment: String,
    /// The right to claim it.
    pub token: Token,
    /// False at the first connection: store and key are asked for. True when the KMS has come back to a process
    /// that is serving already; then no descriptor is sent.
    pub serving: bool,
}

/// The KMS's answer to [`Hello`].
///
/// With `Welcome` and `serving: false` come the descriptors: the open store, then, if the disk is encrypted, the
/// memfd of [`crate::key_transfer`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HelloAnswer {
    /// The claim is good.
    Welcome(AttachmentConfig),
    /// The claim is not, and will not become so by trying again: sealblk exits, unless it is serving.
    Refused(Failure),
}

/// Second message from sealblk, when it serves (or cannot).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Readiness {
    /// The store is locked, the keys are taken (and the memfd is zeroed), the socket listens.
    Ready,
    /// It cannot serve and exits.
    Failed(Failure),
}

/// What one attachment serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentConfig {
    /// Id of the disk.
    pub disk: String,
    /// What GET_ID answers: at most 20 ASCII bytes (virtio 1.2, section 5.2.6).
    pub serial: String,
    /// Virtual size in bytes, a multiple of 512.
    pub size: u64,
    /// Whether the data is encrypted; then a key came along.
    pub encrypted: bool,
    /// Writes are refused and VIRTIO_BLK_F_RO is offered.
    pub read_only: bool,
    /// Most virtqueues a frontend may use, 1 to 16.
    pub queues: u16,
    /// Layout of the store's bytes.
    pub store: StoreKind,
    /// Where the vhost-user socket is, if sealblk was told none and inherits none.
    pub socket: String,
}

/// Layout of a store's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// Flat: virtual sector = physical sector.
    Raw,
}

/// A command from the KMS.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by the sender, given back in the reply.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// What the KMS can ask of a serving process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Counters and state.
    Stats,
    /// Finish what is in flight, make it durable, and hold new requests until [`Command::Resume`], until the
    /// connection ends or until the time is over, whichever is first.
    Quiesce {
        /// Longest hold, in milliseconds.
        hold_ms: u64,
    },
    /// End of a quiesce.
    Resume,
    /// Finish what is in flight, make it durable, close the socket, answer and exit with status 0.
    Detach {
        /// Also while a frontend is connected.
        force: bool,
    },
}

/// Answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Answer to [`Command::Stats`].
    Stats(Stats),
    /// Done.
    Done,
    /// Not done; nothing has changed.
    Failed(Failure),
}

/// Counters since the start of the process, and its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Whether a frontend (a virtual machine) is connected.
    pub frontend_connected: bool,
    /// Whether a failed fsync has poisoned the disk; all its I/O fails until it is attached anew.
    pub poisoned: bool,
    /// Completed read requests.
    pub reads: u64,
    /// Completed write requests.
    pub writes: u64,
    /// Completed flush requests.
    pub flushes: u64,
    /// Bytes that reads have returned.
    pub bytes_read: u64,
    /// Bytes that writes have stored.
    pub bytes_written: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes that the store takes on its medium.
    pub allocated: u64,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Stable code in CamelCase.
    pub code: String,
    /// A sentence for the operator.
    pub message: String,
}

impl Failure {
    /// A failure with a stable code and a sentence.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Failure {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// Codes of [`Failure`] that the other side acts on.
pub mod code {
    /// Detach without force while a frontend is connected.
    pub const FRONTEND_CONNECTED: &str = "FrontendConnected";
    /// The store's lock is held by another process.
    pub const STORE_IN_USE: &str = "StoreInUse";
    /// The store is not what the configuration says (missing, smaller, not a file or block device).
    pub const STORE_UNUSABLE: &str = "StoreUnusable";
    /// The key did not arrive or cannot be used.
    pub const KEY_UNUSABLE: &str = "KeyUnusable";
    /// The vhost-user socket cannot be bound.
    pub const SOCKET_UNUSABLE: &str = "SocketUnusable";
    /// Unknown attachment, wrong token or wrong user.
    pub const NOT_YOURS: &str = "NotYours";
    /// Another process serves this attachment.
    pub const ALREADY_SERVED: &str = "AlreadyServed";
    /// Another protocol version.
    pub const VERSION: &str = "ProtocolVersion";
}

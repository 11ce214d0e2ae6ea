//! The messages, as JSON objects of at most [`crate::channel::MAX_MESSAGE_BYTES`]. No key material is ever in one.
//!
//! What a process is told has no field that it does not know: it might matter. Of what a process says the KMS takes what it
//! knows, so that one of a later version can say more.

use serde::{Deserialize, Serialize};

use crate::token::Token;

/// Version of this exchange. From the second on a process understands [`StoreExpected`], and a KMS [`Readiness::Opening`].
pub const PROTOCOL_VERSION: u32 = 2;

/// The version before, which both sides speak as well: a process whose version the KMS [refuses](code::VERSION) tries that.
pub const OLDEST_VERSION: u32 = 1;

/// First message, from sealblk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// What the sender speaks: [`OLDEST_VERSION`] to [`PROTOCOL_VERSION`].
    pub version: u32,
    /// Id of the attachment that is claimed.
    pub attachment: String,
    /// The right to claim it.
    pub token: Token,
    /// False at the first connection: store and key are asked for. True when the KMS has come back to a process
    /// that is serving already, and has dialled that; then no descriptor is sent.
    pub serving: bool,
}

/// The KMS's answer to [`Hello`].
///
/// With `Welcome` and `serving: false` come the descriptors. First the open store. If it is layered: a second
/// description of the same file, for metadata through the page cache, and two read-only ones of the same kinds for each
/// of [`AttachmentConfig::bases`]. In [`Mode::TakeOver`] a socket to the predecessor comes in the place of the store. Last, if
/// the disk is encrypted and [`Mode::Serve`]d, taken over or copied to, the memfd of [`crate::key_transfer`]. In
/// [`Mode::Copy`] a [`CopySource`] follows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HelloAnswer {
    /// The claim is good.
    Welcome(AttachmentConfig),
    /// The claim is not, and will not become so by trying again: sealblk exits, unless it is serving.
    Refused(Failure),
}

/// Second message from sealblk, when it serves (or cannot), and before that as often as it has got on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Readiness {
    /// The store is locked, the keys are taken (and the memfd is zeroed), the socket listens.
    Ready,
    /// The process cannot serve, and exits.
    Failed(Failure),
    /// The process is opening the store, which takes its time, and has got on since it said so last. Only from a process that speaks the
    /// second version, at least every second.
    Opening,
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
    /// Files that a clone reads besides its own, in the order of their slots: the file it was made from, then that file's
    /// own bases.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bases: u16,
    /// Whether several machines may have it: requests that overlap are served one after the other.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared: bool,
    /// Of a shared disk, the queues of all its attachments together, this one included; 0 if they are this one's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub all_queues: u16,
    /// What becomes of writes that the host has no room for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_full: OnFull,
    /// What the store must be, if it is layered. Only to a process of the second version.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expected: StoreExpected,
    /// What guests see of the size, in bytes, where the disk has grown since it was attached and they are to see that when it is
    /// attached anew (rule D06). None: all of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guest_size: Option<u64>,
    /// What the process is for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Where the vhost-user socket is, if sealblk was told none and inherits none. Empty: nobody is served to begin with,
    /// whatever sealblk was told; sessions come with [`Command::AddSession`].
    pub socket: String,
}

/// What is known of a layered store before it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreExpected {
    /// Id of the lineage that it was made for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lineage: Option<String>,
    /// What the last process has said of it: an older one is not opened.
    #[serde(default, skip_serializing_if = "is_default")]
    pub last: Option<StoreState>,
    /// That was said when the store was [closed](Outcome::Closed): since then nobody has written to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub closed: bool,
}

/// One state of a layered store, told from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreState {
    /// Of its superblock: it only grows.
    pub sequence: u64,
    /// SHA-256 of the superblock, but for the sequence, in 64 hexadecimal digits.
    pub digest: String,
}

/// What a process has left when it has closed its stores; none of a store that is not layered, or that has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosedStores {
    /// Its own.
    pub store: Option<StoreState>,
    /// What it has copied from.
    pub source: Option<StoreState>,
}

/// What one session serves: an attachment besides the one that the process has claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionConfig {
    /// Id of the attachment.
    pub attachment: String,
    /// Most virtqueues a frontend may use, 1 to 16.
    pub queues: u16,
    /// Writes are refused and VIRTIO_BLK_F_RO is offered.
    pub read_only: bool,
}

/// A session, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Id of the attachment.
    pub attachment: String,
    /// Whether a frontend (a virtual machine) is connected.
    pub frontend_connected: bool,
    /// More of it. Only for who [understands](Request::KNOWS_MORE) it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<SessionDetail>,
}

/// What a frontend has set up, and what is wrong with it. Later versions may say more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionDetail {
    /// Names of the virtio features that the driver has acknowledged.
    pub features: Vec<String>,
    /// Names of the vhost-user protocol features that the frontend has acknowledged.
    pub protocol_features: Vec<String>,
    /// Regions of memory that the frontend shares.
    pub regions: u32,
    /// Bytes of all these.
    pub memory: u64,
    /// Queues that have been told where their rings are.
    pub queues_set_up: u32,
    /// Queues that are served.
    pub queues_running: u32,
    /// What the operator should look at; also what the last connection has ended for.
    pub troubles: Vec<Failure>,
}

/// What becomes of writes that the host has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// Writes are answered with an error.
    #[default]
    Error,
    /// Writes are held until there is room.
    Stop,
}

/// What a process knows of the room for its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomStats {
    /// What it does.
    pub on_full: OnFull,
    /// The last write that needed room has found none.
    pub is_short: bool,
    /// Requests that are held.
    pub held: u64,
}

/// Layout of a store's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// Flat: virtual sector = physical sector.
    Raw,
    /// Thin, with snapshots inside (`docs/format.md`).
    Layered,
}

/// What is as it always was is left out, so that a process of an earlier version understands the rest.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a process is started for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// To serve a guest.
    #[default]
    Serve,
    /// To serve a guest in the place of a process that hands it over.
    TakeOver,
    /// To carry out commands on a layered store that is not attached: without socket and without key.
    Maintain,
    /// To make a layered store in an empty file or device, and then as [`Mode::Maintain`]. Ready: it is made and
    /// durable.
    Create {
        /// Id of the lineage, for who looks into the file.
        lineage: Option<String>,
        /// Id of the pinned snapshot, in the first base, that the disk begins as.
        snapshot: Option<String>,
    },
    /// To copy the data of another store, of which [`CopySource`] tells, into this one, and to compare the two then.
    /// Ready: it has begun.
    Copy {
        /// What is to be done first.
        phase: CopyPhase,
        /// Where that goes on, in bytes: as [`CopyProgress::position`] said.
        position: u64,
        /// The store reads zeros wherever this copy has not written: zeros are left out.
        clean: bool,
    },
}

/// What is copied from: the KMS's second message in [`Mode::Copy`]. With it come descriptors as with a welcome: of the
/// store, of its bases, and the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopySource {
    /// Virtual size in bytes, a multiple of 512.
    pub size: u64,
    /// Whether the data is encrypted; then a key came along.
    pub encrypted: bool,
    /// Layout of the store's bytes.
    pub store: StoreKind,
    /// Files that a clone reads besides its own.
    pub bases: u16,
    /// A file that is no disk's: open for reading only, not locked, and it may end within a sector.
    pub foreign: bool,
    /// How the data lies in that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub format: FileFormat,
    /// Id of the disk that the store was made for. Only to a process of the second version; so is what follows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disk: Option<String>,
    /// What the store must be, if it is layered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expected: StoreExpected,
}

/// How data lies in a file that is no disk's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// As on a disk.
    #[default]
    Raw,
    /// In a qcow2 image.
    Qcow2,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyPhase {
    /// Data is being copied.
    Copy,
    /// Both sides are being read again and compared.
    Verify,
    /// All is copied, durable, and alike.
    Done,
}

/// Answer to [`Command::Progress`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyProgress {
    /// What is being done.
    pub phase: CopyPhase,
    /// Bytes, from the beginning, of which it is done for good: copied and durable, or compared.
    pub position: u64,
    /// Bytes of which it is done, more or less.
    pub done: u64,
    /// Bytes of which it is to be done.
    pub total: u64,
    /// Why it does not go on.
    pub failure: Option<Failure>,
}

/// A command from the KMS.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by the sender, given back in the reply; [`Request::KNOWS_MORE`] and the like are part of it.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

impl Request {
    /// Set in the ids of a sender that understands what has been added to replies since the first version, which would
    /// not take a reply with an unknown field: [`Stats::cause`], [`Stats::room`], [`SessionStatus::detail`]. Who answers in that
    /// version gives any id back.
    pub const KNOWS_MORE: u64 = 1 << 62;

    /// Set in the ids of a sender that understands [`Stats::sandbox`].
    pub const KNOWS_SANDBOX: u64 = 1 << 61;

    /// Set in the ids of a sender that understands [`Stats::store`], and [`Outcome::Closed`] after the answer to
    /// [`Command::Detach`].
    pub const KNOWS_STORE: u64 = 1 << 60;

    /// Set in the ids of a sender that understands [`Stats::guest_size`].
    pub const KNOWS_SIZE: u64 = 1 << 59;

    /// The marks of all that this version understands.
    pub const KNOWS_ALL: u64 =
        Request::KNOWS_MORE | Request::KNOWS_SANDBOX | Request::KNOWS_STORE | Request::KNOWS_SIZE;
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
    /// Do this from now on. Only to a process that tells of its [room](Stats::room).
    OnFull(OnFull),
    /// Finish what is in flight, make it durable, close all sockets, answer and exit with status 0. Between the answer and the
    /// exit the store is closed, and [`Outcome::Closed`] follows as a second reply of the same id, for who
    /// [understands](Request::KNOWS_STORE) it.
    Detach {
        /// Also while a frontend is connected.
        force: bool,
    },
    /// Serve one more attachment of the disk, on the listening socket that comes with this.
    AddSession(SessionConfig),
    /// Finish what is in flight for one attachment, make it durable, and close its socket; also if it is the only one. One
    /// that is not served is answered [`Outcome::Done`].
    RemoveSession {
        /// Id of the attachment.
        attachment: String,
        /// Also while a frontend is connected.
        force: bool,
    },
    /// Serve an attachment, which is served already, on the listening socket that comes with this, and no more on the one that
    /// it had. Only to a process whose answers to [`Command::Sessions`] come with sockets.
    Listen {
        /// Id of the attachment.
        attachment: String,
    },
    /// Which attachments are served; answered [`Outcome::Sessions`].
    Sessions,
    /// Hand over, to the successor at the other end of the socket that comes with this: sockets, sessions, guests' memory and
    /// the store's open files. Answered [`Outcome::Done`] when the successor has all of it, and the process exits with
    /// status 0; after a failure it serves on.
    HandOver,
    /// Change a layered store. The change is durable when it is answered.
    Change {
        /// Id of the operation, `op-` and 16 characters. A change that the store remembers having made under this id is
        /// answered [`Outcome::Done`] and not made again. It remembers the last 64.
        operation: String,
        /// What to do.
        change: Change,
    },
    /// Whether a layered store has made the change of this operation; answered [`Outcome::Made`].
    WasMade {
        /// Id of the operation.
        operation: String,
    },
    /// What a layered store holds; answered [`Outcome::Store`].
    Store {
        /// Id of the snapshot to go on after.
        after: Option<String>,
    },
    /// How far a copy has come; answered [`Outcome::Progress`]. Only in [`Mode::Copy`].
    Progress,
    /// Examine all metadata of a layered store; answered [`Outcome::Check`].
    Check {
        /// Repair what can be derived. Only in [`Mode::Maintain`].
        repair: bool,
    },
}

/// A change of a layered store. Ids of snapshots are `snap-` and 16 characters, those of disks `disk-` and 16.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Take a snapshot of the disk as it is now.
    Snapshot {
        /// Its id.
        snapshot: String,
    },
    /// Delete a snapshot: at once for whoever looks, its space in the background. One that is pinned stays until its last
    /// pin has gone.
    DeleteSnapshot {
        /// Its id.
        snapshot: String,
    },
    /// Make the disk what the snapshot holds; it keeps its size.
    Rollback {
        /// The snapshot's id.
        snapshot: String,
        /// Also while a frontend is connected.
        force: bool,
    },
    /// Make the disk empty: it reads zeros.
    Reinitialise {
        /// Also while a frontend is connected.
        force: bool,
    },
    /// Make the disk larger.
    Resize {
        /// The new size, in bytes.
        size: u64,
        /// Guests see it when the disk is attached anew: until then this process shows them what they see now. Only to one that
        /// says [what that is](Stats::guest_size).
        #[serde(default, skip_serializing_if = "is_default")]
        hidden: bool,
    },
    /// Keep a snapshot for a clone.
    Pin {
        /// The snapshot's id.
        snapshot: String,
        /// The clone's id.
        disk: String,
    },
    /// The clone has gone.
    Unpin {
        /// The snapshot's id.
        snapshot: String,
        /// The clone's id.
        disk: String,
    },
}

/// Answer to a [`Request`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
}

impl Reply {
    /// The reply to the request of this id, without what its sender does not [understand](Request::KNOWS_MORE).
    pub fn to(id: u64, mut outcome: Outcome) -> Self {
        if id & Request::KNOWS_MORE == 0 {
            match &mut outcome {
                Outcome::Stats(stats) => (stats.cause, stats.room) = (None, None),
                Outcome::Sessions(sessions) => {
                    sessions.iter_mut().for_each(|session| session.detail = None);
                }
                _ => {}
            }
        }
        if let Outcome::Stats(stats) = &mut outcome {
            if id & Request::KNOWS_SANDBOX == 0 {
                stats.sandbox = None;
            }
            if id & Request::KNOWS_STORE == 0 {
                stats.store = None;
            }
            if id & Request::KNOWS_SIZE == 0 {
                stats.guest_size = None;
            }
        }
        Reply { id, outcome }
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Answer to [`Command::Stats`].
    Stats(Stats),
    /// Answer to [`Command::WasMade`].
    Made(bool),
    /// Answer to [`Command::Store`].
    Store(StoreReport),
    /// Answer to [`Command::Check`].
    Check(CheckReport),
    /// Answer to [`Command::Progress`].
    Progress(CopyProgress),
    /// Answer to [`Command::Sessions`]. With it come the listening sockets, one for each and in their order, for the KMS to give
    /// to the next process; from a process of an earlier version none.
    Sessions(Vec<SessionStatus>),
    /// Done.
    Done,
    /// All stores are closed, and nothing more is written; see [`Command::Detach`].
    Closed(ClosedStores),
    /// Not done; nothing has changed.
    Failed(Failure),
}

/// Counters since the start of the process, and its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Whether a frontend (a virtual machine) is connected, to whichever session.
    pub frontend_connected: bool,
    /// Whether the store has failed, by a failed fsync or otherwise: all I/O fails until the disk is attached anew.
    pub poisoned: bool,
    /// Why it has, a clause. Only for who [understands](Request::KNOWS_MORE) it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cause: Option<String>,
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
    /// The room for it. None from a process of an earlier version; only for who [understands](Request::KNOWS_MORE) it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub room: Option<RoomStats>,
    /// What the process's sandbox lacks, each as `name: cause`; empty if it lacks nothing. None from a process of an earlier
    /// version, which has none; only for who [understands](Request::KNOWS_SANDBOX) it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sandbox: Option<Vec<String>>,
    /// What the store is, if it is layered; the medium has it. Only for who [understands](Request::KNOWS_STORE) it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub store: Option<StoreState>,
    /// What guests see of the disk's size, in bytes. None from a process of an earlier version, which shows them all; only for who
    /// [understands](Request::KNOWS_SIZE) it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guest_size: Option<u64>,
}

/// What a layered store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Size of the disk, in bytes.
    pub size: u64,
    /// Bytes in use in the file: data and metadata, of the disk and of its snapshots.
    pub allocated: u64,
    /// Of the disk's data, bytes that it shares with a snapshot or reads from a base.
    pub shared: u64,
    /// Bytes that are still to be freed in the background.
    pub deleting: u64,
    /// Snapshots, by id, at most 128 at a time.
    pub snapshots: Vec<SnapshotReport>,
    /// Whether there are more.
    pub more: bool,
}

/// One snapshot in a layered store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Its id.
    pub id: String,
    /// The snapshot that it was taken after, if that exists.
    pub parent: Option<String>,
    /// Size of the disk when it was taken, in bytes.
    pub size: u64,
    /// Bytes of data that nobody else references.
    pub unique_bytes: u64,
    /// Ids of the clones that pin it.
    pub pins: Vec<String>,
    /// The snapshot has been deleted, and waits for its pins or for the snapshots after it.
    pub hidden: bool,
}

/// What an examination has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Pages that were read.
    pub pages: u64,
    /// Clusters or pages in use that nothing references.
    pub leaked: u64,
    /// Clusters or pages that two places reference, or that are referenced and count as free or as younger than they are.
    pub double_used: u64,
    /// Damaged pages.
    pub bad_pages: u64,
    /// The first 100 findings, one sentence each.
    pub findings: Vec<String>,
    /// Findings that were repaired.
    pub repaired: u64,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
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
    /// The store's metadata is damaged; the message names the page.
    pub const STORE_DAMAGED: &str = "StoreDamaged";
    /// The store is another disk's.
    pub const STORE_FOREIGN: &str = "StoreForeign";
    /// The store is older than the KMS knows it, or has been changed since it was closed.
    pub const STORE_ROLLED_BACK: &str = "StoreRolledBack";
    /// The store's format is of a later version.
    pub const STORE_VERSION: &str = "StoreVersion";
    /// The host has no room for the store's metadata.
    pub const NO_SPACE: &str = "NoSpace";
    /// There is no such snapshot in the store.
    pub const NO_SNAPSHOT: &str = "NoSnapshot";
    /// There is a snapshot of this id already.
    pub const SNAPSHOT_EXISTS: &str = "SnapshotExists";
    /// The store has as many snapshots, or pins, or bases, as it can have.
    pub const TOO_MANY: &str = "TooMany";
    /// The new size is smaller than the present one, or not one that a disk can have.
    pub const INVALID_SIZE: &str = "InvalidSize";
    /// The store is of a kind, or the process in a mode, in which this cannot be done.
    pub const NOT_SUPPORTED: &str = "NotSupported";
    /// What was copied is not what is read afterwards.
    pub const COPY_DIFFERS: &str = "CopyDiffers";
    /// The key did not arrive or cannot be used.
    pub const KEY_UNUSABLE: &str = "KeyUnusable";
    /// A queue has been broken by its driver, or by what the frontend has brought.
    pub const QUEUE_BROKEN: &str = "QueueBroken";
    /// A queue is served without a note of what is in flight.
    pub const NOT_RECORDED: &str = "NotRecorded";
    /// The guest's memory, or the part with its queues, is not shared with the process.
    pub const MEMORY_NOT_SHARED: &str = "MemoryNotShared";
    /// The guest's memory lies on a file system that may never answer.
    pub const MEMORY_REFUSED: &str = "MemoryRefused";
    /// The guest's addresses are a vIOMMU's.
    pub const ADDRESSES_TRANSLATED: &str = "AddressesTranslated";
    /// A frontend's message was not carried out.
    pub const MESSAGE_REFUSED: &str = "MessageRefused";
    /// The vhost-user socket cannot be bound.
    pub const SOCKET_UNUSABLE: &str = "SocketUnusable";
    /// Unknown attachment, wrong token or wrong user.
    pub const NOT_YOURS: &str = "NotYours";
    /// No process serves this attachment at the moment.
    pub const NOT_SERVED: &str = "NotServed";
    /// Another process serves this attachment.
    pub const ALREADY_SERVED: &str = "AlreadyServed";
    /// A protocol version that is not spoken.
    pub const VERSION: &str = "ProtocolVersion";
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_HELLO: &str = r#"{"version":1,"attachment":"att-0123456789abcdef","token":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","serving":true}"#;

    fn understood<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// What processes of the first version say, as it was recorded.
    #[test]
    fn processes_of_the_first_version_are_understood() {
        let hello: Hello = understood(FIRST_HELLO);
        assert!((OLDEST_VERSION..=PROTOCOL_VERSION).contains(&hello.version));
        assert_eq!(
            (hello.attachment.as_str(), hello.serving),
            ("att-0123456789abcdef", true)
        );
        assert!(matches!(understood(r#""ready""#), Readiness::Ready));
        let failed: Readiness = understood(r#"{"failed":{"code":"StoreInUse","message":"locked"}}"#);
        assert!(matches!(failed, Readiness::Failed(failure) if failure.code == code::STORE_IN_USE));
        for (text, expected) in [
            (r#"{"id":1,"outcome":"done"}"#, Outcome::Done),
            (r#"{"id":1,"outcome":{"made":true}}"#, Outcome::Made(true)),
            (
                r#"{"id":1,"outcome":{"failed":{"code":"FrontendConnected","message":"a"}}}"#,
                Outcome::Failed(Failure::new(code::FRONTEND_CONNECTED, "a")),
            ),
            (
                r#"{"id":1,"outcome":{"stats":{"frontend_connected":true,"poisoned":false,"reads":1,"writes":2,"flushes":3,"bytes_read":4,"bytes_written":5,"errors":6,"allocated":7}}}"#,
                Outcome::Stats(Stats {
                    frontend_connected: true,
                    reads: 1,
                    writes: 2,
                    flushes: 3,
                    bytes_read: 4,
                    bytes_written: 5,
                    errors: 6,
                    allocated: 7,
                    ..Stats::default()
                }),
            ),
            (
                r#"{"id":1,"outcome":{"sessions":[{"attachment":"att-1","frontend_connected":false}]}}"#,
                Outcome::Sessions(vec![SessionStatus {
                    attachment: "att-1".to_owned(),
                    frontend_connected: false,
                    detail: None,
                }]),
            ),
            (
                r#"{"id":1,"outcome":{"store":{"size":512,"allocated":1,"shared":2,"deleting":3,"snapshots":[{"id":"snap-1","parent":null,"size":512,"unique_bytes":4,"pins":["disk-1"],"hidden":false}],"more":false}}}"#,
                Outcome::Store(StoreReport {
                    size: 512,
                    allocated: 1,
                    shared: 2,
                    deleting: 3,
                    snapshots: vec![SnapshotReport {
                        id: "snap-1".to_owned(),
                        parent: None,
                        size: 512,
                        unique_bytes: 4,
                        pins: vec!["disk-1".to_owned()],
                        hidden: false,
                    }],
                    ..StoreReport::default()
                }),
            ),
            (
                r#"{"id":1,"outcome":{"check":{"pages":1,"leaked":0,"double_used":0,"bad_pages":0,"findings":["f"],"repaired":0}}}"#,
                Outcome::Check(CheckReport {
                    pages: 1,
                    findings: vec!["f".to_owned()],
                    ..CheckReport::default()
                }),
            ),
        ] {
            let reply: Reply = understood(text);
            assert_eq!(reply.outcome, expected);
        }
    }

    /// What the first version understands has these fields and no others.
    #[test]
    fn processes_of_the_first_version_understand_what_they_are_told() {
        let plain = AttachmentConfig {
            disk: "disk-1".to_owned(),
            serial: "1".to_owned(),
            size: 512,
            encrypted: true,
            read_only: false,
            queues: 4,
            store: StoreKind::Layered,
            bases: 0,
            shared: false,
            all_queues: 0,
            on_full: OnFull::Error,
            expected: StoreExpected::default(),
            guest_size: None,
            mode: Mode::Serve,
            socket: "/s".to_owned(),
        };
        assert_eq!(
            serde_json::to_string(&HelloAnswer::Welcome(plain)).unwrap(),
            r#"{"welcome":{"disk":"disk-1","serial":"1","size":512,"encrypted":true,"read_only":false,"queues":4,"store":"layered","socket":"/s"}}"#
        );
        let snapshot = Change::Snapshot {
            snapshot: "snap-1".to_owned(),
        };
        for (command, expected) in [
            (Command::Stats, r#""stats""#),
            (Command::Sessions, r#""sessions""#),
            (Command::Quiesce { hold_ms: 5 }, r#"{"quiesce":{"hold_ms":5}}"#),
            (Command::Detach { force: true }, r#"{"detach":{"force":true}}"#),
            (Command::HandOver, r#""hand_over""#),
            (Command::Store { after: None }, r#"{"store":{"after":null}}"#),
            (Command::Check { repair: false }, r#"{"check":{"repair":false}}"#),
            (
                Command::Change {
                    operation: "op-1".to_owned(),
                    change: snapshot,
                },
                r#"{"change":{"operation":"op-1","change":{"snapshot":{"snapshot":"snap-1"}}}}"#,
            ),
        ] {
            let request = Request { id: 1, command };
            assert_eq!(
                serde_json::to_string(&request).unwrap(),
                format!(r#"{{"id":1,"command":{expected}}}"#)
            );
        }
    }

    #[test]
    fn a_process_of_a_later_version_can_say_more() {
        let later = FIRST_HELLO.replace(r#""serving""#, r#""more":[1],"serving""#);
        assert!(understood::<Hello>(&later).serving);
        let reply: Reply =
            understood(r#"{"id":1,"outcome":{"failed":{"code":"a","message":"b","more":{}}},"more":1}"#);
        assert_eq!(reply.outcome, Outcome::Failed(Failure::new("a", "b")));
        // And is told nothing that it might misunderstand.
        let told = r#"{"id":1,"command":{"detach":{"force":true,"more":1}}}"#;
        assert!(serde_json::from_str::<Request>(told).is_err());
    }

    #[test]
    fn only_who_understands_it_is_told_what_the_store_is() {
        let state = StoreState {
            sequence: 7,
            digest: "ab".repeat(32),
        };
        let stats = Stats {
            store: Some(state),
            ..Stats::default()
        };
        let told = |id: u64| serde_json::to_string(&Reply::to(id, Outcome::Stats(stats.clone()))).unwrap();
        assert!(!told(Request::KNOWS_MORE | Request::KNOWS_SANDBOX | 7).contains("store"));
        let reply: Reply = serde_json::from_str(&told(Request::KNOWS_ALL | 7)).unwrap();
        assert_eq!(reply.outcome, Outcome::Stats(stats));
    }

    #[test]
    fn only_who_understands_it_is_told_of_the_sandbox() {
        let stats = Stats {
            sandbox: Some(Vec::new()),
            ..Stats::default()
        };
        let told = |id: u64| serde_json::to_string(&Reply::to(id, Outcome::Stats(stats.clone()))).unwrap();
        assert!(!told(Request::KNOWS_MORE | 7).contains("sandbox"));
        let id = Request::KNOWS_MORE | Request::KNOWS_SANDBOX | 7;
        let reply: Reply = serde_json::from_str(&told(id)).unwrap();
        assert_eq!(reply, Reply::to(id, Outcome::Stats(stats.clone())));
    }

    #[test]
    fn only_who_understands_it_is_told_why_a_store_has_failed() {
        let stats = Stats {
            poisoned: true,
            cause: Some("a sync failed".to_owned()),
            ..Stats::default()
        };
        let told = |id: u64| serde_json::to_string(&Reply::to(id, Outcome::Stats(stats.clone()))).unwrap();
        assert!(
            !told(7).contains("cause"),
            "a process of an earlier version refuses it"
        );
        let (id, with_cause) = (Request::KNOWS_MORE | 7, told(Request::KNOWS_MORE | 7));
        let reply: Reply = serde_json::from_str(&with_cause).unwrap();
        assert_eq!(reply, Reply::to(id, Outcome::Stats(stats.clone())));
        // What an earlier version says is understood.
        let reply: Reply = serde_json::from_str(&told(7)).unwrap();
        let without = Stats { cause: None, ..stats };
        assert_eq!(reply.outcome, Outcome::Stats(without));
    }
}

//! All that a backend is started with.

use std::path::PathBuf;
use std::sync::Arc;

use sealblk_proto::channel::MAX_BASES;
use sealblk_proto::message::{
    AttachmentConfig, CopySource, FileFormat, Mode, OnFull, StoreExpected, StoreKind,
};

use super::process::Identity;
use super::vhost_socket::SocketAccess;
use crate::host::passed::Passed;
use crate::host::store::Expected;
use crate::state::StateDir;
use crate::{id, limits};

/// A file or device to be opened.
#[derive(Debug)]
pub(crate) struct StorePlace {
    pub(crate) path: PathBuf,
    pub(crate) expected: Expected,
    /// What is at the path, where a caller has passed that instead of naming it.
    pub(crate) passed: Option<Arc<Passed>>,
}

/// A disk, or the volume of one that was deleted.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) lineage: Option<String>,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) encrypted: bool,
    pub(crate) kind: StoreKind,
    pub(crate) store: StorePlace,
    /// What a clone reads besides, in the order of its slots.
    pub(crate) bases: Vec<StorePlace>,
}

/// The service of a disk's attachments.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) id: String,
    /// Whether the KMS starts the process.
    pub(crate) start: bool,
    /// Whether the process has a user of its own, if the KMS is root's.
    pub(crate) own_user: bool,
    pub(crate) serial: i64,
    /// What guests see of the disk's size, in bytes; none: all of it.
    pub(crate) guest_size: Option<u64>,
    /// The process that was last given the store.
    pub(crate) backend: Option<Identity>,
}

/// What is copied from.
#[derive(Debug)]
pub(crate) struct SourcePlan {
    /// Id of the volume, or the file.
    pub(crate) object: String,
    pub(crate) lineage: Option<String>,
    pub(crate) config: CopySource,
    pub(crate) store: StorePlace,
    pub(crate) bases: Vec<StorePlace>,
}

impl SourcePlan {
    /// A volume.
    pub(crate) fn disk(disk: Disk) -> Self {
        SourcePlan {
            config: CopySource {
                size: disk.size,
                encrypted: disk.encrypted,
                store: disk.kind,
                bases: number_of(&disk.bases),
                foreign: false,
                format: FileFormat::Raw,
                disk: None,
                expected: StoreExpected::default(),
            },
            object: disk.id,
            lineage: disk.lineage,
            store: disk.store,
            bases: disk.bases,
        }
    }

    /// A file or device that is no volume's, of plain data.
    pub(crate) fn file(path: &str, identity: Option<&str>, size: u64, format: FileFormat) -> Self {
        SourcePlan {
            object: path.to_owned(),
            lineage: None,
            config: CopySource {
                size,
                encrypted: false,
                store: StoreKind::Raw,
                bases: 0,
                foreign: true,
                format,
                disk: None,
                expected: StoreExpected::default(),
            },
            store: StorePlace {
                path: path.into(),
                expected: Expected::of(Some(path), identity),
                passed: None,
            },
            bases: Vec::new(),
        }
    }
}

/// How one attachment is served.
#[derive(Clone, Debug)]
pub(crate) struct SessionPlan {
    /// Id of the attachment.
    pub(crate) attachment: String,
    pub(crate) queues: u16,
    pub(crate) read_only: bool,
    /// The vhost-user socket.
    pub(crate) socket: PathBuf,
    pub(crate) access: SocketAccess,
    /// Where the socket is found by the names of instance and disk.
    pub(crate) by_name: Option<PathBuf>,
    pub(crate) runtime: PathBuf,
}

/// How one disk is served, or one volume maintained.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Id of the service, or of the maintenance.
    pub(crate) service: String,
    pub(crate) account: String,
    pub(crate) lineage: Option<String>,
    pub(crate) config: AttachmentConfig,
    pub(crate) store: StorePlace,
    /// What a clone reads besides, in the order of its slots.
    pub(crate) bases: Vec<StorePlace>,
    /// What is copied to the store, where that is what the process is for.
    pub(crate) source: Option<SourcePlan>,
    pub(crate) backend_socket: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) log: PathBuf,
    /// The disk's attachments, oldest first; none where nobody is served.
    pub(crate) sessions: Vec<SessionPlan>,
    /// Whether there may be several.
    pub(crate) shared: bool,
    /// Whether the KMS starts the backend itself.
    pub(crate) start: bool,
    /// The process that was last given the store, when this was read.
    pub(crate) backend: Option<Identity>,
    /// User that the backend runs as.
    pub(crate) uid: u32,
}

impl Plan {
    /// For a disk and all its attachments; with whether there may be several, and what becomes of writes without room.
    pub(crate) fn serving(
        state: &StateDir,
        disk: Disk,
        (shared, on_full): (bool, OnFull),
        service: Service,
        sessions: Vec<SessionPlan>,
    ) -> Self {
        let lineage = disk.lineage.clone();
        let uid = backend_uid(service.own_user, service.serial);
        let plan = Plan::of(state, disk, Mode::Serve, service.id, uid);
        Plan {
            lineage,
            config: AttachmentConfig {
                shared,
                on_full,
                guest_size: service.guest_size,
                ..plan.config
            },
            sessions,
            shared,
            start: service.start,
            backend: service.backend,
            ..plan
        }
    }

    /// For a short-lived process on a volume, without socket and without key. `id` is of [`crate::id::Kind::Maintenance`],
    /// `serial` a number that no attachment has.
    pub(crate) fn maintenance(state: &StateDir, disk: Disk, mode: Mode, (id, serial): (String, i64)) -> Self {
        Plan::of(state, disk, mode, id, backend_uid(true, serial))
    }

    fn of(state: &StateDir, disk: Disk, mode: Mode, id: String, uid: u32) -> Self {
        Plan {
            account: disk.account,
            lineage: None,
            config: AttachmentConfig {
                serial: id::serial(&disk.id),
                disk: disk.id,
                size: disk.size,
                encrypted: disk.encrypted,
                read_only: false,
                queues: 1,
                store: disk.kind,
                bases: number_of(&disk.bases),
                shared: false,
                all_queues: 0,
                on_full: OnFull::Error,
                expected: StoreExpected::default(),
                guest_size: None,
                mode,
                socket: String::new(),
            },
            store: disk.store,
            bases: disk.bases,
            source: None,
            backend_socket: state.backend_socket(&id),
            runtime: state.runtime(&id),
            log: state.backend_log(&id),
            service: id,
            sessions: Vec::new(),
            shared: false,
            start: true,
            backend: None,
            uid,
        }
    }

    /// To copy `source` to the volume, with the keys of both.
    pub(crate) fn copying(self, lineage: Option<String>, source: SourcePlan) -> Self {
        Plan {
            lineage,
            source: Some(source),
            ..self
        }
    }

    /// The session of an attachment.
    pub(crate) fn session(&self, attachment: &str) -> Option<&SessionPlan> {
        self.sessions
            .iter()
            .find(|session| session.attachment == attachment)
    }

    /// Whether the catalogue knows who is served; otherwise it is a maintenance.
    pub(crate) fn is_attachment(&self) -> bool {
        self.config.mode == Mode::Serve
    }
}

/// No clone is made with more than [`MAX_BASES`].
fn number_of(bases: &[StorePlace]) -> u16 {
    debug_assert!(bases.len() <= MAX_BASES);
    u16::try_from(bases.len()).unwrap_or(u16::MAX)
}

/// Under a root KMS each backend has a user of its own; otherwise all have the KMS's.
fn backend_uid(own_user: bool, serial: i64) -> u32 {
    let own = rustix::process::geteuid();
    if !own.is_root() || !own_user {
        return own.as_raw();
    }
    let number = serial.rem_euclid(i64::from(limits::BACKEND_UIDS));
    limits::BACKEND_UID_FIRST + u32::try_from(number).unwrap_or(0)
}

//! All that a backend is started with, from rows of the catalogue.

use std::path::PathBuf;
use std::sync::Arc;

use sealblk_proto::channel::MAX_BASES;
use sealblk_proto::message::{
    AttachmentConfig, CopySource, FileFormat, Mode, OnFull, StoreExpected, StoreKind,
};

use super::process::Identity;
use super::vhost_socket::SocketAccess;
use crate::catalogue::attachments::AttachmentRow;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::kinds::{self, Store};
use crate::catalogue::services::ServiceRow;
use crate::catalogue::volumes::VolumeRow;
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
    pub(crate) fn new(state: &StateDir, volume: &VolumeRow, bases: &[VolumeRow]) -> Self {
        SourcePlan {
            object: volume.id.clone(),
            lineage: volume.lineage.clone(),
            config: CopySource {
                size: volume.size.unsigned_abs(),
                encrypted: volume.encrypted,
                store: store_kind(volume.store),
                bases: number_of(bases),
                foreign: false,
                format: FileFormat::Raw,
                disk: None,
                expected: StoreExpected::default(),
            },
            store: StorePlace {
                path: volume.location(state),
                expected: volume.expected(),
                passed: None,
            },
            bases: places(state, bases),
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
    /// Its id.
    pub(crate) attachment: String,
    pub(crate) queues: u16,
    pub(crate) read_only: bool,
    /// The vhost-user socket.
    pub(crate) socket: PathBuf,
    pub(crate) access: SocketAccess,
    pub(crate) runtime: PathBuf,
}

impl SessionPlan {
    fn new(state: &StateDir, row: &AttachmentRow) -> Self {
        SessionPlan {
            attachment: row.id.clone(),
            queues: row.queues,
            read_only: row.read_only,
            socket: state.vhost_socket(&row.id, row.socket.as_deref()),
            access: SocketAccess {
                uid: row.socket_uid,
                gid: row.socket_gid,
                mode: row.socket_mode,
            },
            runtime: state.runtime(&row.id),
        }
    }
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
    /// Who was last given the store, when this was read.
    pub(crate) backend: Option<Identity>,
    /// User that the backend runs as.
    pub(crate) uid: u32,
}

impl Plan {
    /// For a disk and all its attachments. `bases` are those of the disk's volume.
    pub(crate) fn new(
        state: &StateDir,
        disk: &DiskRow,
        bases: &[VolumeRow],
        service: &ServiceRow,
        attachments: &[AttachmentRow],
    ) -> Self {
        let service_id = &service.id;
        Plan {
            service: service_id.clone(),
            account: disk.account.clone(),
            lineage: disk.lineage.clone(),
            config: AttachmentConfig {
                disk: disk.id.clone(),
                serial: id::serial(&disk.id),
                size: disk.size.unsigned_abs(),
                encrypted: disk.encrypted,
                read_only: false,
                queues: 1,
                store: store_kind(disk.store),
                bases: number_of(bases),
                shared: disk.shared,
                all_queues: 0,
                on_full: on_full_of(disk.on_full),
                expected: StoreExpected::default(),
                mode: Mode::Serve,
                socket: String::new(),
            },
            store: StorePlace {
                path: state.store(&disk.id, disk.path.as_deref()),
                expected: Expected::of(disk.path.as_deref(), disk.identity.as_deref()),
                passed: None,
            },
            bases: places(state, bases),
            source: None,
            backend_socket: state.backend_socket(service_id),
            runtime: state.runtime(service_id),
            log: state.backend_log(service_id),
            sessions: attachments
                .iter()
                .map(|row| SessionPlan::new(state, row))
                .collect(),
            shared: disk.shared,
            start: service.start,
            backend: backend(service),
            uid: backend_uid(service.own_user, service.serial),
        }
    }

    /// For a short-lived process on a volume, without socket and without key. `id` is of [`crate::id::Kind::Maintenance`],
    /// `serial` a number that no attachment has.
    pub(crate) fn maintenance(
        state: &StateDir,
        volume: &VolumeRow,
        bases: &[VolumeRow],
        mode: Mode,
        (id, serial): (String, i64),
    ) -> Self {
        Plan {
            account: volume.account.clone(),
            lineage: None,
            config: AttachmentConfig {
                disk: volume.id.clone(),
                serial: id::serial(&volume.id),
                size: volume.size.unsigned_abs(),
                encrypted: volume.encrypted,
                read_only: false,
                queues: 1,
                store: store_kind(volume.store),
                bases: number_of(bases),
                shared: false,
                all_queues: 0,
                on_full: OnFull::Error,
                expected: StoreExpected::default(),
                mode,
                socket: String::new(),
            },
            store: StorePlace {
                path: volume.location(state),
                expected: volume.expected(),
                passed: None,
            },
            bases: places(state, bases),
            source: None,
            backend_socket: state.backend_socket(&id),
            runtime: state.runtime(&id),
            log: state.backend_log(&id),
            service: id,
            sessions: Vec::new(),
            shared: false,
            start: true,
            backend: None,
            uid: backend_uid(true, serial),
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

fn store_kind(store: Store) -> StoreKind {
    match store {
        Store::Layered => StoreKind::Layered,
        Store::Raw => StoreKind::Raw,
    }
}

/// As the catalogue has it.
pub(crate) fn on_full_of(on_full: kinds::OnFull) -> OnFull {
    match on_full {
        kinds::OnFull::Stop => OnFull::Stop,
        kinds::OnFull::Error => OnFull::Error,
    }
}

/// No clone is made with more than [`MAX_BASES`].
fn number_of(bases: &[VolumeRow]) -> u16 {
    debug_assert!(bases.len() <= MAX_BASES);
    u16::try_from(bases.len()).unwrap_or(u16::MAX)
}

fn places(state: &StateDir, volumes: &[VolumeRow]) -> Vec<StorePlace> {
    let place = |volume: &VolumeRow| StorePlace {
        path: volume.location(state),
        expected: volume.expected(),
        passed: None,
    };
    volumes.iter().map(place).collect()
}

fn backend(row: &ServiceRow) -> Option<Identity> {
    Some(Identity {
        pid: row.backend_pid?,
        start: row.backend_start?,
        boot: row.backend_boot.clone()?,
    })
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

//! All that a backend is started with, from rows of the catalogue.

use std::path::PathBuf;

use sealblk_proto::channel::MAX_BASES;
use sealblk_proto::message::{AttachmentConfig, CopySource, FileFormat, Mode, StoreKind};

use super::process::Identity;
use super::vhost_socket::SocketAccess;
use crate::catalogue::attachments::AttachmentRow;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::volumes::VolumeRow;
use crate::limits;
use crate::state::StateDir;
use crate::store::Expected;

/// Length of what GET_ID answers (virtio 1.2, section 5.2.6).
const SERIAL_BYTES: usize = 20;

/// A file or device to be opened.
#[derive(Debug)]
pub(crate) struct StorePlace {
    pub(crate) path: PathBuf,
    pub(crate) expected: Expected,
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
                store: store_kind(&volume.store),
                bases: number_of(bases),
                foreign: false,
                format: FileFormat::Raw,
            },
            store: StorePlace {
                path: volume.location(state),
                expected: volume.expected(),
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
            },
            store: StorePlace {
                path: path.into(),
                expected: Expected::of(Some(path), identity),
            },
            bases: Vec::new(),
        }
    }
}

/// How one attachment is served, or one volume maintained.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Id of the attachment, or of the maintenance.
    pub(crate) attachment: String,
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
    /// The vhost-user socket; none where nobody is served.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) access: SocketAccess,
    /// Whether the KMS starts the backend itself.
    pub(crate) start: bool,
    /// Who was last given the store, when this was read.
    pub(crate) backend: Option<Identity>,
    /// User that the backend runs as.
    pub(crate) uid: u32,
}

impl Plan {
    /// For an attachment. `bases` are those of the disk's volume.
    pub(crate) fn new(state: &StateDir, disk: &DiskRow, bases: &[VolumeRow], row: &AttachmentRow) -> Self {
        let socket = state.vhost_socket(&row.id, row.socket.as_deref());
        Plan {
            attachment: row.id.clone(),
            account: row.account.clone(),
            lineage: disk.lineage.clone(),
            config: AttachmentConfig {
                disk: disk.id.clone(),
                serial: disk.id.chars().take(SERIAL_BYTES).collect(),
                size: disk.size.unsigned_abs(),
                encrypted: disk.encrypted,
                read_only: row.read_only,
                queues: row.queues,
                store: store_kind(&disk.store),
                bases: number_of(bases),
                mode: Mode::Serve,
                socket: socket.to_string_lossy().into_owned(),
            },
            store: StorePlace {
                path: state.store(&disk.id, disk.path.as_deref()),
                expected: Expected::of(disk.path.as_deref(), disk.identity.as_deref()),
            },
            bases: places(state, bases),
            source: None,
            backend_socket: state.backend_socket(&row.id),
            runtime: state.runtime(&row.id),
            log: state.backend_log(&row.id),
            socket: Some(socket),
            access: SocketAccess {
                uid: row.socket_uid,
                gid: row.socket_gid,
                mode: row.socket_mode,
            },
            start: row.start,
            backend: backend(row),
            uid: backend_uid(row.start, row.serial),
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
                serial: volume.id.chars().take(SERIAL_BYTES).collect(),
                size: volume.size.unsigned_abs(),
                encrypted: volume.encrypted,
                read_only: false,
                queues: 1,
                store: store_kind(&volume.store),
                bases: number_of(bases),
                mode,
                socket: String::new(),
            },
            store: StorePlace {
                path: volume.location(state),
                expected: volume.expected(),
            },
            bases: places(state, bases),
            source: None,
            backend_socket: state.backend_socket(&id),
            runtime: state.runtime(&id),
            log: state.backend_log(&id),
            attachment: id,
            socket: None,
            access: SocketAccess {
                uid: None,
                gid: None,
                mode: 0,
            },
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

    /// Whether the catalogue knows who is served; otherwise it is a maintenance.
    pub(crate) fn is_attachment(&self) -> bool {
        self.config.mode == Mode::Serve
    }
}

fn store_kind(name: &str) -> StoreKind {
    match name {
        "layered" => StoreKind::Layered,
        _ => StoreKind::Raw,
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
    };
    volumes.iter().map(place).collect()
}

fn backend(row: &AttachmentRow) -> Option<Identity> {
    Some(Identity {
        pid: row.backend_pid?,
        start: row.backend_start?,
        boot: row.backend_boot.clone()?,
    })
}

/// Under a root KMS each backend that it starts has a user of its own; otherwise all have the KMS's.
fn backend_uid(start: bool, serial: i64) -> u32 {
    let own = rustix::process::geteuid();
    if !own.is_root() || !start {
        return own.as_raw();
    }
    let number = serial.rem_euclid(i64::from(limits::BACKEND_UIDS));
    limits::BACKEND_UID_FIRST + u32::try_from(number).unwrap_or(0)
}

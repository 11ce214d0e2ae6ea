//! All that is needed to serve one attachment, from its rows in the catalogue.

use std::path::PathBuf;

use sealblk_proto::message::{AttachmentConfig, Mode, StoreKind};

use super::process::Identity;
use super::vhost_socket::SocketAccess;
use crate::catalogue::attachments::AttachmentRow;
use crate::catalogue::disks::DiskRow;
use crate::limits;
use crate::state::StateDir;
use crate::store::Expected;

/// Length of what GET_ID answers (virtio 1.2, section 5.2.6).
const SERIAL_BYTES: usize = 20;

/// How one attachment is served.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) attachment: String,
    pub(crate) account: String,
    pub(crate) lineage: Option<String>,
    pub(crate) config: AttachmentConfig,
    pub(crate) store: PathBuf,
    pub(crate) store_expected: Expected,
    pub(crate) backend_socket: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) access: SocketAccess,
    /// Whether the KMS starts the backend itself.
    pub(crate) start: bool,
    /// Who was last given the store, when this was read.
    pub(crate) backend: Option<Identity>,
    /// User that the backend runs as.
    pub(crate) uid: u32,
}

impl Plan {
    /// From the rows.
    pub(crate) fn new(state: &StateDir, disk: &DiskRow, row: &AttachmentRow) -> Self {
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
                store: StoreKind::Raw,
                bases: 0,
                mode: Mode::Serve,
                socket: socket.to_string_lossy().into_owned(),
            },
            store: state.store(&disk.id, disk.path.as_deref()),
            store_expected: Expected::of(disk.path.as_deref(), disk.identity.as_deref()),
            backend_socket: state.backend_socket(&row.id),
            runtime: state.runtime(&row.id),
            log: state.backend_log(&row.id),
            socket,
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

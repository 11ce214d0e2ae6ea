//! What processes are started with, from rows of the catalogue.

use std::path::PathBuf;

use sealblk_proto::message::{Mode, OnFull, StoreKind};

use crate::catalogue::attachments::AttachmentRow;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::kinds::{self, Store};
use crate::catalogue::meta;
use crate::catalogue::services::ServiceRow;
use crate::catalogue::volumes::VolumeRow;
use crate::host::backends::by_name;
use crate::host::backends::process::Identity;
use crate::host::backends::vhost_socket::SocketAccess;
use crate::host::backends::{Disk, Plan, Service, SessionPlan, SourcePlan, StorePlace};
use crate::host::store::Expected;
use crate::state::StateDir;

/// For a disk and all its attachments. `bases` are those of the disk's volume.
pub(crate) fn of_service(
    state: &StateDir,
    disk: &DiskRow,
    bases: &[VolumeRow],
    service: &ServiceRow,
    attachments: &[AttachmentRow],
) -> Plan {
    let store = StorePlace {
        path: state.store(&disk.id, disk.path.as_deref()),
        expected: Expected::of(disk.path.as_deref(), disk.identity.as_deref()),
        passed: None,
    };
    let given = Disk {
        id: disk.id.clone(),
        account: disk.account.clone(),
        lineage: disk.lineage.clone(),
        size: disk.size.unsigned_abs(),
        encrypted: disk.encrypted,
        kind: store_kind(disk.store),
        store,
        bases: places(state, bases),
    };
    let sessions = attachments.iter().map(|row| session(state, row)).collect();
    Plan::serving(
        state,
        given,
        (disk.shared, on_full_of(disk.on_full)),
        service_of(service),
        sessions,
    )
}

/// For a short-lived process on a volume, without socket and without key. `id` is of [`crate::id::Kind::Maintenance`],
/// `serial` a number that no attachment has.
pub(crate) fn maintenance(
    state: &StateDir,
    volume: &VolumeRow,
    bases: &[VolumeRow],
    mode: Mode,
    name: (String, i64),
) -> Plan {
    Plan::maintenance(state, disk_of(state, volume, bases), mode, name)
}

/// To copy from a volume.
pub(crate) fn source(state: &StateDir, volume: &VolumeRow, bases: &[VolumeRow]) -> SourcePlan {
    SourcePlan::disk(disk_of(state, volume, bases))
}

/// What is known of a volume's store besides its path.
pub(crate) fn expected(volume: &VolumeRow) -> Expected {
    Expected::of(volume.path.as_deref(), volume.identity.as_deref())
}

/// As the protocol has it.
pub(crate) fn on_full_of(on_full: kinds::OnFull) -> OnFull {
    match on_full {
        kinds::OnFull::Stop => OnFull::Stop,
        kinds::OnFull::Error => OnFull::Error,
    }
}

fn store_kind(store: Store) -> StoreKind {
    match store {
        Store::Layered => StoreKind::Layered,
        Store::Raw => StoreKind::Raw,
    }
}

fn disk_of(state: &StateDir, volume: &VolumeRow, bases: &[VolumeRow]) -> Disk {
    Disk {
        id: volume.id.clone(),
        account: volume.account.clone(),
        lineage: volume.lineage.clone(),
        size: volume.size.unsigned_abs(),
        encrypted: volume.encrypted,
        kind: store_kind(volume.store),
        store: place(state, volume),
        bases: places(state, bases),
    }
}

fn place(state: &StateDir, volume: &VolumeRow) -> StorePlace {
    StorePlace {
        path: volume.location(state),
        expected: expected(volume),
        passed: None,
    }
}

fn places(state: &StateDir, volumes: &[VolumeRow]) -> Vec<StorePlace> {
    volumes.iter().map(|volume| place(state, volume)).collect()
}

fn session(state: &StateDir, row: &AttachmentRow) -> SessionPlan {
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
        by_name: by_name(state, row),
        runtime: state.runtime(&row.id),
    }
}

/// Where the attachment's socket is to be found by names; none where the caller has chosen its path.
pub(crate) fn by_name(state: &StateDir, row: &AttachmentRow) -> Option<PathBuf> {
    match row.socket {
        Some(_) => None,
        None => named(state, &row.account, &row.instance_name, &row.disk_name),
    }
}

/// Where the socket of a disk of the account is found by names.
pub(crate) fn named(state: &StateDir, account: &str, instance: &str, disk: &str) -> Option<PathBuf> {
    by_name::path(state, (account != meta::OWNER).then_some(account), instance, disk)
}

fn service_of(row: &ServiceRow) -> Service {
    let backend = || {
        Some(Identity {
            pid: row.backend_pid?,
            start: row.backend_start?,
            boot: row.backend_boot.clone()?,
        })
    };
    Service {
        id: row.id.clone(),
        start: row.start,
        own_user: row.own_user,
        serial: row.serial,
        guest_size: row.guest_size.map(i64::unsigned_abs),
        backend: backend(),
    }
}

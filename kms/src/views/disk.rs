//! `GET /v1/disks` and `/v1/disks/{disk}`.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealblk_proto::message::{Failure, SessionDetail, Stats};

use super::qemu_form;
use crate::audit::Caller;
use crate::catalogue::Page;
use crate::catalogue::attachments::{self, AttachmentRow};
use crate::catalogue::copies::{self, CopyRow};
use crate::catalogue::disks::{self, DiskRow};
use crate::catalogue::key_state::KeyState;
use crate::catalogue::kinds::Store;
use crate::catalogue::states::DiskState;
use crate::catalogue::{services, snapshots};
use crate::context::{Kms, find};
use crate::copies::job;
use crate::error::Result;
use crate::host::backends::{Phase, sandbox};
use crate::host::machines::Rights;
use crate::host::{aside, store};
use crate::rules::risks::Risks;
use crate::views;
use crate::volumes::{on_full, report};
use crate::{id, limits};
use sealblk_api::{
    Disk, DiskAttachment, DiskList, DiskSession, DiskStats, FrontendArguments, QemuVersion, Sandbox, Trouble,
};

/// A page of the account's disks, for a QEMU of this version. Neither processes nor machines are asked here; see [`show`].
pub(crate) async fn list(
    kms: &Kms,
    caller: &Caller,
    page: &Page,
    qemu: Option<QemuVersion>,
) -> Result<DiskList> {
    let (rows, next) = {
        let mut db = kms.catalogue.read().await?;
        disks::list(&mut db, &caller.account, page).await?
    };
    let disks = listed(kms, rows, qemu).await?;
    Ok(DiskList { disks, next })
}

/// Some disks, as lists have them.
pub(super) async fn listed(kms: &Kms, rows: Vec<DiskRow>, qemu: Option<QemuVersion>) -> Result<Vec<Disk>> {
    let measured = measure_all(kms, &rows).await;
    let mut related = Related::of(kms, &rows).await?;
    let mut list = Vec::with_capacity(rows.len());
    for (row, measured) in rows.into_iter().zip(measured) {
        list.push(shown(kms, row, (None, qemu), measured, &mut related).await?);
    }
    Ok(list)
}

/// One disk, with the counters of its backend, for a QEMU of this version or else for its machine's.
pub(crate) async fn show(
    kms: &Arc<Kms>,
    caller: &Caller,
    wanted: &str,
    qemu: Option<QemuVersion>,
) -> Result<Disk> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        find::disk(&mut db, caller, wanted).await?
    };
    if row.store != Store::Layered {
        return answer(kms, row, Some(Rights::of(caller.uid)), qemu).await;
    }
    let known = report::of(kms, &row.id).await?;
    let report = known.as_ref().map(|known| &*known.report);
    let rows = {
        let mut db = kms.catalogue.read().await?;
        snapshots::of_volume(&mut db, &row.id).await?
    };
    let mut disk = answer(kms, row, Some(Rights::of(caller.uid)), qemu).await?;
    let unique = views::snapshot::unique_bytes(report);
    let snapshots = rows.into_iter().filter(|row| !row.state.is_gone()).map(|row| {
        let bytes = unique.get(row.id.as_str()).copied();
        views::snapshot::answer(row, bytes)
    });
    disk.snapshots = Some(snapshots.collect());
    disk.shared_bytes = report.map(|report| report.shared);
    disk.deleting = report.map(|report| report.deleting);
    let Some(known) = &known else { return Ok(disk) };
    if let Some(time) = &known.as_of {
        let text = format!("its store cannot be asked at the moment: what it holds is as of {time}");
        disk.warnings.push(text);
        return Ok(disk);
    }
    if let Some(None) = aside::look(Path::new(&disk.path), limits::LOOK_TIME, store::room).await {
        // Of a device that is all of it.
        let device = store::Room::of_device(disk.allocated, known.report.allocated);
        disk.warnings.extend(on_full::scarcity(&device));
    }
    disk.allocated = known.report.allocated;
    Ok(disk)
}

/// The disk after something was done with it, without what only its processes know.
pub(crate) async fn after(kms: &Kms, disk: &str) -> Result<Disk> {
    let row = {
        let mut db = kms.catalogue.read().await?;
        disks::get(&mut db, disk).await?
    };
    answer(kms, row, None, None).await
}

/// As the API gives it. With `ask` its process is asked for counters, and
/// its machines, with these rights, for their version unless that is given.
pub(crate) async fn answer(
    kms: &Kms,
    row: DiskRow,
    ask: Option<Rights>,
    qemu: Option<QemuVersion>,
) -> Result<Disk> {
    let measured = measure(kms, &row, limits::LOOK_TIME).await;
    let mut related = Related::of(kms, std::slice::from_ref(&row)).await?;
    shown(kms, row, (ask, qemu), measured, &mut related).await
}

/// What goes with some disks in the catalogue, by their ids.
struct Related {
    attachments: HashMap<String, Vec<AttachmentRow>>,
    copies: HashMap<String, CopyRow>,
    /// States of the disks with a copy: as of its end, if it has just ended.
    states: HashMap<String, DiskState>,
    /// The disks whose processes are not started since the catalogue was restored.
    held: HashSet<String>,
    /// How many snapshots a disk has, where it has any.
    snapshots: HashMap<String, u32>,
    /// What keeps keys from being used, by account.
    risks: HashMap<String, Risks>,
}

impl Related {
    /// By few statements, however many disks they are.
    async fn of(kms: &Kms, rows: &[DiskRow]) -> Result<Self> {
        let ids = || rows.iter().map(|row| row.id.as_str());
        let attached = || rows.iter().filter(|row| row.attachment.is_some());
        let attached = || attached().map(|row| row.id.as_str());
        let mut db = kms.catalogue.read().await?;
        let copies = copies::of_volumes(&mut db, ids()).await?;
        let mut risks = HashMap::new();
        for row in rows.iter().filter(|row| row.key.is_some()) {
            if !risks.contains_key(&row.account) {
                let of_account = Risks::of(kms, &mut db, &row.account).await?;
                risks.insert(row.account.clone(), of_account);
            }
        }
        Ok(Related {
            risks,
            states: disks::states(&mut db, copies.keys().map(String::as_str)).await?,
            copies,
            snapshots: snapshots::counts(&mut db, ids()).await?,
            attachments: attachments::of_disks(&mut db, attached()).await?,
            held: services::held(&mut db, attached()).await?,
        })
    }
}

/// Bytes that a disk's file takes; 0 if that does not answer.
pub(crate) async fn allocated(kms: &Kms, row: &DiskRow) -> u64 {
    measure(kms, row, limits::LOOK_TIME).await.unwrap_or_default().0
}

/// Bytes that a disk's file takes, and the room where it lies; none if it does not answer.
type Measured = Option<(u64, Option<store::Room>)>;

async fn measure(kms: &Kms, row: &DiskRow, time: Duration) -> Measured {
    if hangs(kms, row) {
        return None;
    }
    let path = kms.state.store(&row.id, row.path.as_deref());
    aside::look(&path, time, measured).await
}

/// Of all of them, in their order. What is in the state directory is looked at by one thread.
async fn measure_all(kms: &Kms, rows: &[DiskRow]) -> Vec<Measured> {
    let (inside, outside): (Vec<_>, Vec<_>) =
        rows.iter().enumerate().partition(|(_, row)| row.path.is_none());
    let inside = inside.into_iter().filter(|(_, row)| !hangs(kms, row));
    let (places, paths): (Vec<_>, Vec<_>) = inside
        .map(|(at, row)| (at, kms.state.store(&row.id, None)))
        .unzip();
    let look = move |_: &Path| paths.iter().map(|path| measured(path)).collect::<Vec<_>>();
    let found = match places.is_empty() {
        true => None,
        false => aside::look(&kms.state.disks(), limits::LOOK_TIME, look).await,
    };
    let mut all = vec![None; rows.len()];
    for (at, found) in places.into_iter().zip(found.unwrap_or_default()) {
        all[at] = Some(found);
    }
    let mut time = limits::LOOK_TIME;
    for (at, row) in outside {
        all[at] = measure(kms, row, time).await;
        if all[at].is_none() {
            // Once is enough for all of them.
            time = limits::LOOK_AGAIN_TIME;
        }
    }
    all
}

fn measured(path: &Path) -> (u64, Option<store::Room>) {
    (store::allocated(path), store::room(path))
}

/// Whether the kernel could keep this process with its thread, too, if it looked at the disk's file.
fn hangs(kms: &Kms, row: &DiskRow) -> bool {
    row.attachment.as_ref().is_some_and(|attachment| {
        row.state == DiskState::Error || kms.supervisor.status(attachment).phase == Phase::Stuck
    })
}

async fn shown(
    kms: &Kms,
    mut row: DiskRow,
    (ask, qemu): (Option<Rights>, Option<QemuVersion>),
    measured: Measured,
    related: &mut Related,
) -> Result<Disk> {
    let path = kms.state.store(&row.id, row.path.as_deref());
    let status = row
        .attachment
        .as_ref()
        .map(|attachment| kms.supervisor.status(attachment));
    let stats = match &row.attachment {
        Some(attachment) if ask.is_some() => kms.supervisor.stats(attachment).await,
        _ => None,
    };
    let attached = related.attachments.remove(&row.id).unwrap_or_default();
    let attachments = attachments_of(kms, &row, attached, stats.as_ref(), (ask, qemu)).await?;
    let copy = related.copies.remove(&row.id).map(|copy| job::shown(kms, copy));
    row.state = related.states.remove(&row.id).unwrap_or(row.state);
    let mut warnings = Vec::new();
    if measured.is_none() {
        warnings.push(format!("its storage does not answer: {}", path.display()));
    }
    if status.as_ref().is_some_and(|status| status.phase == Phase::Stuck) {
        row.state = DiskState::Error;
    }
    if ask.is_some() {
        for attachment in &attachments {
            warnings.extend(kms.supervisor.socket_warning(&attachment.id).await);
        }
    }
    let is_served = status.as_ref().is_some_and(|status| status.pid.is_some());
    if related.held.contains(&row.id) && !is_served {
        warnings.push(format!(
            "it is not served since the catalogue was restored from a backup: see whether it is what it should be, then \
             `sealctl backend start {}`",
            row.name
        ));
    } else if let Some(status) = &status {
        warn_of_backend(status, stats.as_ref(), &mut warnings);
        if kms.require_sandbox && status.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_full()) {
            warnings.push(
                "the serving process lacks a part of its sandbox, all of which is required: `sealctl backend restart`"
                    .to_owned(),
            );
        }
    }
    warn_of_sessions(&row, &attachments, &mut warnings);
    if let (Some(key), Some(state)) = (&row.key, row.key_state) {
        let risks = related.risks.get(&row.account);
        let obstacle = risks.and_then(|risks| risks.obstacle(key, state));
        warnings.extend(obstacle.map(|obstacle| key_warning(&obstacle, state, row.attachment.is_some())));
    }
    let size = row.size.unsigned_abs();
    let guest_size = stats.as_ref().and_then(|stats| stats.guest_size);
    let guest_size = guest_size.filter(|guest| *guest < size);
    warnings.extend(guest_size.map(|guest| {
        format!("its guest sees {guest} of its {size} bytes until it is detached and attached again (D06)")
    }));
    let layered = row.store == Store::Layered;
    let snapshot_count = layered.then(|| related.snapshots.remove(&row.id).unwrap_or(0));
    let (allocated, room) = measured.unwrap_or_default();
    warnings.extend(on_full::warning(&row, stats.as_ref(), room.as_ref()));
    Ok(Disk {
        serial: id::serial(&row.id),
        id: row.id,
        name: row.name,
        state: row.state.to_string(),
        encrypted: row.encrypted,
        kind: row.kind.to_string(),
        disk_type: row.disk_type.to_string(),
        role: row.role.to_string(),
        system_of: row.system_of,
        shared: row.shared,
        on_full: row.on_full.to_string(),
        size,
        guest_size,
        allocated,
        shared_bytes: None,
        deleting: None,
        snapshots: None,
        snapshot_count,
        snapshot: row.base,
        store: row.store.to_string(),
        path: path.to_string_lossy().into_owned(),
        zone: row.zone,
        key: row.key,
        key_version: row.key_version,
        lineage: row.lineage,
        attachment: row.attachment,
        instance: row.instance,
        pid: status.as_ref().and_then(|status| status.pid),
        sandbox: status.and_then(|status| status.sandbox).map(Sandbox::from),
        socket: attachments.first().map(|first| first.socket.clone()),
        attachments,
        connected: stats.as_ref().map(|stats| stats.frontend_connected),
        stats: stats.map(stats_of),
        copy,
        warnings,
        created: row.created,
        deleted: None,
        removal: None,
    })
}

/// Rule A06.
fn key_warning(obstacle: &str, state: KeyState, attached: bool) -> String {
    let consequence = match (state, attached) {
        (KeyState::Enabled, true) => "once detached, the disk cannot be attached again (A06)",
        (KeyState::Enabled, false) => "the disk cannot be attached",
        (KeyState::Destroyed, true) => "its data cannot be read any more once the serving process ends",
        (KeyState::Destroyed, false) => "its data can never be read again",
        (_, true) => "once detached, the disk cannot be attached again until the key is Enabled (A06)",
        (_, false) => "the disk cannot be attached until the key is Enabled (A05)",
    };
    format!("{obstacle}: {consequence}")
}

fn warn_of_backend(
    status: &crate::host::backends::Status,
    stats: Option<&Stats>,
    warnings: &mut Vec<String>,
) {
    if status.phase == Phase::Restarting {
        let why = status.failure.as_deref().unwrap_or("it has died");
        warnings.push(format!("the serving process is being restarted: {why}"));
    }
    if status.phase == Phase::Stuck {
        warnings.extend(status.failure.clone());
    }
    if let Some(stats) = stats.filter(|stats| stats.poisoned) {
        // A process of an earlier version does not say why.
        let why = stats.cause.as_deref().map(|cause| format!(" ({cause})"));
        warnings.push(format!(
            "the store has failed{}: all I/O fails until the disk is detached and attached again",
            why.unwrap_or_default()
        ));
    }
}

fn warn_of_sessions(row: &DiskRow, attachments: &[DiskAttachment], warnings: &mut Vec<String>) {
    for attachment in attachments {
        let troubles = attachment.session.iter().flat_map(|session| &session.troubles);
        warnings.extend(troubles.map(|trouble| match row.shared {
            true => format!(
                "{} ({}): {}",
                attachment.id, attachment.instance_name, trouble.message
            ),
            false => trouble.message.clone(),
        }));
    }
}

/// All attachments; with counters asked for, also who is connected.
async fn attachments_of(
    kms: &Kms,
    row: &DiskRow,
    rows: Vec<AttachmentRow>,
    stats: Option<&Stats>,
    (ask, qemu): (Option<Rights>, Option<QemuVersion>),
) -> Result<Vec<DiskAttachment>> {
    let Some(first) = &row.attachment else {
        return Ok(Vec::new());
    };
    let mut sessions = match stats {
        Some(_) => kms.supervisor.sessions(first).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let mut session_of = |id: &str| {
        let at = sessions.iter().position(|session| session.attachment == id)?;
        Some(sessions.swap_remove(at))
    };
    let versions = match ask {
        Some(rights) => qemu_form::of(kms, rights, &rows, qemu).await?,
        None => vec![qemu; rows.len()],
    };
    let answer = |(attachment, qemu): (AttachmentRow, Option<QemuVersion>)| {
        let session = session_of(&attachment.id);
        let connected = match (&session, stats) {
            (Some(session), _) => Some(session.frontend_connected),
            (None, Some(stats)) if !row.shared => Some(stats.frontend_connected),
            _ => None,
        };
        let socket = views::attachment::socket(kms, &attachment);
        let named_socket = views::attachment::named_socket(kms, &attachment);
        let lasting = named_socket.as_ref().unwrap_or(&socket);
        DiskAttachment {
            state: kms.supervisor.status(&attachment.id).phase.name().to_owned(),
            connected,
            session: session.and_then(|session| session.detail).map(session_with),
            queues: attachment.queues,
            read_only: attachment.read_only,
            plugged: attachment.plugged,
            arguments: FrontendArguments::new(&attachment.disk, lasting, attachment.queues, qemu),
            socket,
            named_socket,
            instance: attachment.instance,
            instance_name: attachment.instance_name,
            id: attachment.id,
        }
    };
    Ok(rows.into_iter().zip(versions).map(answer).collect())
}

fn session_with(detail: SessionDetail) -> DiskSession {
    let trouble = |trouble: Failure| Trouble {
        code: trouble.code,
        message: trouble.message,
    };
    DiskSession {
        features: detail.features,
        protocol_features: detail.protocol_features,
        regions: detail.regions,
        memory: detail.memory,
        queues_set_up: detail.queues_set_up,
        queues_running: detail.queues_running,
        troubles: detail.troubles.into_iter().map(trouble).collect(),
    }
}

impl From<sandbox::Sandbox> for Sandbox {
    fn from(sandbox: sandbox::Sandbox) -> Self {
        let level = match &sandbox {
            full if full.is_full() => "full",
            sandbox::Sandbox::Lacks(_) => "partial",
            sandbox::Sandbox::None => "none",
        };
        Sandbox {
            level: level.to_owned(),
            missing: match sandbox {
                sandbox::Sandbox::Lacks(missing) => missing,
                sandbox::Sandbox::None => Vec::new(),
            },
        }
    }
}

fn stats_of(stats: Stats) -> DiskStats {
    DiskStats {
        reads: stats.reads,
        writes: stats.writes,
        flushes: stats.flushes,
        bytes_read: stats.bytes_read,
        bytes_written: stats.bytes_written,
        errors: stats.errors,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::backends::Status;

    #[test]
    fn a_store_that_has_failed_is_told_with_its_cause() {
        let status = Status {
            phase: Phase::Serving,
            pid: Some(1),
            failure: None,
            sandbox: None,
        };
        let warned = |cause: Option<&str>| {
            let stats = Stats {
                poisoned: true,
                cause: cause.map(str::to_owned),
                ..Stats::default()
            };
            let mut warnings = Vec::new();
            warn_of_backend(&status, Some(&stats), &mut warnings);
            warnings
        };
        assert_eq!(
            warned(Some("its journal cannot be written: Input/output error")),
            [
                "the store has failed (its journal cannot be written: Input/output error): all I/O fails until the disk is \
              detached and attached again"
            ]
        );
        assert_eq!(
            warned(None),
            ["the store has failed: all I/O fails until the disk is detached and attached again"]
        );
    }
}

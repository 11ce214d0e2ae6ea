//! All that `sealctl` says about a disk.

use sealblk_api as api;

use super::copy;
use crate::output::{Block, Column, fixed, flexible, name_or, named, or_dash, yes_no};
use crate::size;

/// Everything about a disk.
pub(super) fn fields(disk: &api::Disk) -> Vec<Block> {
    let mut fields = vec![
        ("id", disk.id.clone()),
        ("name", disk.name.clone()),
        ("serial", disk.serial.clone()),
        ("state", disk.state.clone()),
        ("encrypted", yes_no(disk.encrypted)),
        ("kind", disk.kind.clone()),
        ("type", disk.disk_type.clone()),
        ("role", role(disk)),
        ("shared", yes_no(disk.shared)),
        ("on full host", disk.on_full.clone()),
        ("size", size::exact(disk.size)),
        ("allocated", size::human(disk.allocated)),
        ("store", disk.store.clone()),
    ];
    if let Some(seen) = disk.guest_size {
        fields.push((
            "size in the guest",
            format!("{} ({seen} bytes)", size::human(seen)),
        ));
    }
    if let Some(shared) = disk.shared_bytes {
        fields.push(("shared data", size::human(shared)));
    }
    if let Some(deleting) = disk.deleting.filter(|bytes| *bytes > 0) {
        fields.push(("deleting", size::human(deleting)));
    }
    if let Some(snapshot) = &disk.snapshot {
        fields.push(("snapshot", snapshot.clone()));
    }
    fields.extend([("path", disk.path.clone()), ("zone", disk.zone.clone())]);
    if let Some(key) = &disk.key {
        let version = disk.key_version.map(|version| format!(" version {version}"));
        fields.push(("key", format!("{key}{}", version.unwrap_or_default())));
        fields.push(("lineage", or_dash(&disk.lineage)));
    }
    if disk.attachment.is_some() {
        fields.extend(attached_fields(disk));
    }
    if let Some(copy) = disk.copy.as_ref().filter(|copy| copy.phase != "done") {
        fields.push(("copy", copy::sentence(copy)));
    }
    fields.push(("created", disk.created.clone()));
    let warnings = disk
        .warnings
        .iter()
        .map(|warning| Block::Line(format!("warning: {warning}")));
    let snapshots = disk.snapshots.iter().filter(|rows| !rows.is_empty());
    let snapshots =
        snapshots.flat_map(|rows| [Block::Line(String::new()), super::snapshot::table_of(rows, false)]);
    std::iter::once(Block::Fields(fields))
        .chain(warnings)
        .chain(sessions(disk))
        .chain(snapshots)
        .collect()
}

/// `data`, or `system` and whose.
fn role(disk: &api::Disk) -> String {
    let of = disk.system_of.as_ref().map(|instance| format!(" of {instance}"));
    format!("{}{}", disk.role, of.unwrap_or_default())
}

/// The attachments of a shared disk.
fn sessions(disk: &api::Disk) -> Vec<Block> {
    if !disk.shared || disk.attachments.is_empty() {
        return Vec::new();
    }
    vec![
        Block::Line(String::new()),
        Block::table(&disk.attachments, SESSIONS),
    ]
}

const SESSIONS: &[Column<api::DiskAttachment>] = &[
    fixed("ATTACHMENT", |attachment| attachment.id.clone()),
    flexible("INSTANCE", |attachment| {
        name_or(&attachment.instance_name, &attachment.instance).to_owned()
    }),
    fixed("STATE", |attachment| attachment.state.clone()),
    fixed("READ-ONLY", |attachment| yes_no(attachment.read_only)),
    fixed("CONNECTED", |attachment| {
        attachment.connected.map_or("unknown".to_owned(), yes_no)
    }),
    fixed("PLUGGED", |attachment| yes_no(attachment.plugged)),
    flexible("SOCKET", |attachment| attachment.socket.clone()),
];

fn attached_fields(disk: &api::Disk) -> Vec<(&'static str, String)> {
    let connected = disk.connected.map_or("unknown".to_owned(), yes_no);
    let mut fields = vec![
        ("attachment", or_dash(&disk.attachment)),
        ("instance", first_instance(disk)),
        ("pid", or_dash(&disk.pid)),
        (
            "sandbox",
            disk.sandbox.as_ref().map_or("unknown".to_owned(), sandbox),
        ),
        ("socket", or_dash(&disk.socket)),
        (
            "socket by name",
            or_dash(
                &disk
                    .attachments
                    .first()
                    .and_then(|first| first.named_socket.clone()),
            ),
        ),
        ("connected", connected),
    ];
    if let [only] = &disk.attachments[..] {
        fields.push(("plugged", yes_no(only.plugged)));
    }
    if let [only] = &disk.attachments[..]
        && let Some(session) = only.session.as_ref().filter(|_| disk.connected == Some(true))
    {
        fields.extend(session_fields(session));
    }
    if let Some(stats) = &disk.stats {
        fields.push((
            "reads",
            format!("{} ({})", stats.reads, size::human(stats.bytes_read)),
        ));
        fields.push((
            "writes",
            format!("{} ({})", stats.writes, size::human(stats.bytes_written)),
        ));
        fields.push(("flushes", stats.flushes.to_string()));
        fields.push(("I/O errors", stats.errors.to_string()));
    }
    fields
}

/// The instance of the oldest attachment.
fn first_instance(disk: &api::Disk) -> String {
    let first = disk.attachments.first();
    first.map_or_else(
        || or_dash(&disk.instance),
        |first| named(&first.instance_name, &first.instance),
    )
}

/// What keeps a serving process in bounds.
pub(super) fn sandbox(sandbox: &api::Sandbox) -> String {
    match (sandbox.level.as_str(), &sandbox.missing[..]) {
        ("none", _) => "none: the process is of an earlier version".to_owned(),
        (state, []) => state.to_owned(),
        (state, missing) => format!("{state}: without {}", missing.join("; ")),
    }
}

/// What the one virtual machine has set up.
fn session_fields(session: &api::DiskSession) -> [(&'static str, String); 3] {
    let regions = if session.regions == 1 { "region" } else { "regions" };
    let memory = format!("{} in {} {regions}", size::human(session.memory), session.regions);
    let queues = format!(
        "{} set up, {} served",
        session.queues_set_up, session.queues_running
    );
    [
        ("guest memory", memory),
        ("queues", queues),
        ("features", session.features.join(" ")),
    ]
}

//! What the audit log says of the objects that a call is about: their ids, whatever they were called.

use crate::audit::Facts;
use crate::catalogue::backups::BackupRow;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::images::ImageRow;
use crate::catalogue::snapshots::SnapshotRow;
use crate::catalogue::volumes::VolumeRow;

/// The call is about this disk; its key is found by the lineage.
pub(crate) fn disk(facts: &Facts, row: &DiskRow) {
    facts.note("disk", row.id.as_str());
    lineage(facts, row.lineage.as_deref());
    facts.note_if("attachment", row.attachment.as_deref());
    facts.note_if("instance", row.instance.as_deref());
}

/// The call is about this new disk, whatever it is made of.
pub(crate) fn volume(facts: &Facts, row: &VolumeRow) {
    facts.note("disk", row.id.as_str());
    lineage(facts, row.lineage.as_deref());
    facts.note_if("attachment", None::<&str>);
    facts.note_if("instance", None::<&str>);
}

/// The call is about this snapshot, of a disk that may have been deleted.
pub(crate) fn snapshot(facts: &Facts, row: &SnapshotRow) {
    facts.note("snapshot", row.id.as_str());
    facts.note("disk", row.volume.as_str());
    lineage(facts, row.lineage.as_deref());
}

/// The call is about this image.
pub(crate) fn image(facts: &Facts, row: &ImageRow) {
    facts.note("image", row.id.as_str());
    facts.note("snapshot", row.snapshot.as_str());
    lineage(facts, row.lineage.as_deref());
}

/// The call is about this backup, of a disk that may have been deleted.
pub(crate) fn backup(facts: &Facts, row: &BackupRow) {
    facts.note("backup", row.id.as_str());
    facts.note("source", row.disk.as_str());
    lineage(facts, row.lineage.as_deref());
}

/// What the call is about has this lineage, or is plain.
pub(crate) fn lineage(facts: &Facts, lineage: Option<&str>) {
    facts.note_if("lineage", lineage);
    // Of the lineage, when that is recorded.
    facts.note_if("key", None::<&str>);
    facts.note_if("key_version", None::<u32>);
}

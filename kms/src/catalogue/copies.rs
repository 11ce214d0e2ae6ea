//! Copies of data: those that go on, and the last one to each volume.

use std::collections::HashMap;

use sqlx::FromRow;

use super::named::named;
use super::{Db, execute, find_row, rows, several, values};
use crate::caller::{Caller, Facts};

pub(crate) use super::copy_ends::{CopiedFile, Destination, Format, Origin};

named! {
    /// How far a copy is.
    pub(crate) enum Phase {
        Copy = "copy",
        /// All is copied, and is compared.
        Verify = "verify",
        Done = "done",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

impl Phase {
    /// Whether the copy has not ended.
    pub(crate) fn goes_on(self) -> bool {
        matches!(self, Phase::Copy | Phase::Verify)
    }
}

/// A copy.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct CopyRow {
    /// Id of the copy, and of the operation in the destination's store.
    pub(crate) id: String,
    pub(crate) account: String,
    /// As in the audit log.
    pub(crate) call: String,
    #[sqlx(flatten)]
    pub(crate) origin: Origin,
    #[sqlx(flatten)]
    pub(crate) destination: Destination,
    pub(crate) phase: Phase,
    /// Bytes of which the phase is done for good.
    pub(crate) position: i64,
    /// Bytes of which it is to be done.
    pub(crate) total: i64,
    /// The destination reads zeros wherever this copy has not written.
    pub(crate) clean: bool,
    /// The destination has yet to be made empty.
    pub(crate) unprepared: bool,
    /// Why it has failed, or does not go on for the moment.
    pub(crate) trouble: Option<String>,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    pub(crate) request: String,
    pub(crate) created: String,
}

impl CopyRow {
    /// Who has begun the copy.
    pub(crate) fn caller(&self) -> Caller {
        let facts = Facts::default();
        facts.note("copy", self.id.as_str());
        facts.note("copied_by", self.call.as_str());
        facts.note("bytes", self.total);
        facts.note_if("file", self.file().map(|file| file.path.as_str()));
        facts.note_if("source", self.origin.volume());
        facts.note_if("snapshot", self.origin.snapshot());
        match &self.destination {
            Destination::Disk(disk) => facts.note("disk", disk.as_str()),
            Destination::Backup(backup) => facts.note("backup", backup.as_str()),
            Destination::Image { image, .. } => facts.note("image", image.as_str()),
            Destination::File { image, .. } => facts.note_if("image", image.as_deref()),
        }
        Caller {
            account: self.account.clone(),
            uid: self.uid,
            pid: self.pid,
            request: self.request.clone(),
            facts,
        }
    }

    /// Whether the copy has not ended.
    pub(crate) fn goes_on(&self) -> bool {
        self.phase.goes_on()
    }

    /// The file at one of its ends, if there is one.
    pub(crate) fn file(&self) -> Option<&CopiedFile> {
        match (&self.origin, &self.destination) {
            (_, Destination::File { file, .. }) | (Origin::File { file, .. }, _) => Some(file),
            _ => None,
        }
    }

    /// The image that is written to the file, or made.
    pub(crate) fn image(&self) -> Option<&str> {
        self.destination.image()
    }

    /// Whether an image is made, and not written to a file.
    pub(crate) fn makes_image(&self) -> bool {
        matches!(self.destination, Destination::Image { .. })
    }

    /// The volume that is copied to, or else the one that is copied from.
    pub(crate) fn object(&self) -> Option<&str> {
        self.destination.volume().or(self.origin.volume())
    }

    /// The volumes that nothing else may be done with.
    pub(crate) fn volumes(&self) -> Vec<String> {
        let both = [self.origin.volume(), self.destination.volume()];
        let mut volumes: Vec<_> = both.into_iter().flatten().map(str::to_owned).collect();
        volumes.sort();
        volumes
    }
}

/// Stores a new copy, in the place of the last one to the same destination, or of the same object to a file.
pub(crate) async fn insert(db: &mut Db, copy: &CopyRow) -> sqlx::Result<()> {
    execute!(
        db,
        "DELETE FROM copies WHERE destination = ?1 AND phase NOT IN ('copy', 'verify')";
        copy.destination.volume()
    )
    .await?;
    if let Destination::File { image, .. } = &copy.destination {
        execute!(
            db,
            "DELETE FROM copies WHERE (source = ?1 OR image = ?2) AND destination IS NULL
             AND phase NOT IN ('copy', 'verify')";
            copy.origin.volume(), image
        )
        .await?;
    }
    let file = copy.file();
    let path = copy
        .origin
        .stand_in()
        .or_else(|| file.map(|file| file.path.as_str()));
    execute!(
        db,
        "INSERT INTO copies (id, account, call, source, destination, file, identity, size, format, snapshot, image, phase, position,
                             total, clean, unprepared, trouble, uid, pid, request, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)";
        &copy.id, &copy.account, &copy.call, copy.origin.volume(), copy.destination.volume(), path,
        file.and_then(|file| file.identity.as_ref()), file.map(|file| file.size), copy.origin.format(),
        copy.origin.snapshot(), copy.image(), copy.phase, copy.position, copy.total, copy.clean,
        copy.unprepared, &copy.trouble, copy.uid, copy.pid, &copy.request, &copy.created
    )
    .await
}

/// The copy of this id, if there still is one.
pub(crate) async fn get(db: &mut Db, id: &str) -> sqlx::Result<Option<CopyRow>> {
    find_row!(db, "SELECT * FROM copies WHERE id = ?1"; id).await
}

/// Ids of the copies that go on, and whose destination is there.
pub(crate) async fn startable(db: &mut Db) -> sqlx::Result<Vec<String>> {
    values!(
        db,
        "SELECT id FROM copies
         WHERE phase IN ('copy', 'verify') AND NOT EXISTS (SELECT 1 FROM intents WHERE intents.disk = copies.destination)
         ORDER BY rowid"
    )
    .await
}

/// Ids of all copies that go on.
pub(crate) async fn unended(db: &mut Db) -> sqlx::Result<Vec<String>> {
    values!(
        db,
        "SELECT id FROM copies WHERE phase IN ('copy', 'verify') ORDER BY rowid"
    )
    .await
}

/// The copy that goes on from or to a volume.
pub(crate) async fn on_volume(db: &mut Db, volume: &str) -> sqlx::Result<Option<CopyRow>> {
    find_row!(
        db,
        "SELECT * FROM copies WHERE (source = ?1 OR destination = ?1) AND phase IN ('copy', 'verify')";
        volume
    )
    .await
}

/// What is to be shown of a volume: the copy that goes on, or else the last one to it, or from it to a file.
pub(crate) async fn of_volume(db: &mut Db, volume: &str) -> sqlx::Result<Option<CopyRow>> {
    Ok(of_volumes(db, [volume]).await?.into_values().next())
}

/// Of several volumes, by volume: the copy that goes on, or else the last one; see [`of_volume`].
pub(crate) async fn of_volumes(
    db: &mut Db,
    volumes: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, CopyRow>> {
    let rows: Vec<Shown> = rows!(
        db,
        "SELECT wanted.value AS shown_with, copies.* FROM json_each(?1) AS wanted
         JOIN copies ON copies.rowid = coalesce(
             (SELECT rowid FROM copies WHERE (source = wanted.value OR destination = wanted.value)
              AND phase IN ('copy', 'verify')),
             (SELECT rowid FROM copies
              WHERE destination = wanted.value OR (source = wanted.value AND destination IS NULL)
              ORDER BY rowid DESC LIMIT 1))";
        several(volumes)
    )
    .await?;
    Ok(by_object(rows))
}

/// The copy that makes an image or writes it to a file: the one that goes on, or else the last one.
pub(crate) async fn of_image(db: &mut Db, image: &str) -> sqlx::Result<Option<CopyRow>> {
    Ok(of_images(db, [image]).await?.into_values().next())
}

/// Of several images, by image: the copy that goes on, or else the last one.
pub(crate) async fn of_images(
    db: &mut Db,
    images: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, CopyRow>> {
    let rows: Vec<Shown> = rows!(
        db,
        "SELECT wanted.value AS shown_with, copies.* FROM json_each(?1) AS wanted
         JOIN copies ON copies.rowid = (SELECT rowid FROM copies WHERE image = wanted.value
             ORDER BY phase IN ('copy', 'verify') DESC, rowid DESC LIMIT 1)";
        several(images)
    )
    .await?;
    Ok(by_object(rows))
}

/// A copy, and the object with which it is shown.
#[derive(FromRow)]
struct Shown {
    shown_with: String,
    #[sqlx(flatten)]
    copy: CopyRow,
}

fn by_object(rows: Vec<Shown>) -> HashMap<String, CopyRow> {
    rows.into_iter().map(|row| (row.shown_with, row.copy)).collect()
}

/// Which file a copy goes to. What is on a device is overwritten.
pub(crate) async fn set_file(db: &mut Db, id: &str, identity: &str, clean: bool) -> sqlx::Result<()> {
    execute!(db, "UPDATE copies SET identity = ?2, clean = ?3 WHERE id = ?1"; id, identity, clean).await
}

/// The destination has been made empty.
pub(crate) async fn set_prepared(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE copies SET unprepared = 0 WHERE id = ?1"; id).await
}

/// Writes down from where it goes on.
pub(crate) async fn set_position(
    db: &mut Db,
    id: &str,
    phase: Phase,
    position: u64,
    total: u64,
) -> sqlx::Result<()> {
    let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    execute!(
        db,
        "UPDATE copies SET phase = ?2, position = ?3, total = ?4, trouble = NULL WHERE id = ?1";
        id, phase, number(position), number(total)
    )
    .await
}

/// Writes down why it does not go on for the moment, or with `phase` for good.
pub(crate) async fn set_trouble(
    db: &mut Db,
    id: &str,
    phase: Option<Phase>,
    trouble: Option<&str>,
) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE copies SET phase = coalesce(?2, phase), trouble = ?3 WHERE id = ?1";
        id, phase, trouble
    )
    .await
}

/// Ends a copy of which nobody knows how far it came; a file that it went to is no more known as ours.
pub(crate) async fn set_cut_off(db: &mut Db, id: &str, trouble: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE copies SET phase = 'cancelled', identity = NULL, trouble = ?2 WHERE id = ?1";
        id, trouble
    )
    .await
}

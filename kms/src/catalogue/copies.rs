//! Copies of data: those that go on, and the last one to each volume.

use std::collections::HashMap;

use sqlx::{FromRow, SqliteConnection};

use super::several;

use crate::host::passed::PASSED;

/// A copy.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct CopyRow {
    /// Also that of the operation in the destination's store.
    pub(crate) id: String,
    pub(crate) account: String,
    /// As in the audit log.
    pub(crate) call: String,
    /// None: a file, or a volume that has gone since.
    pub(crate) source: Option<String>,
    /// None: a file.
    pub(crate) destination: Option<String>,
    /// What is no volume's.
    pub(crate) file: Option<String>,
    /// Which file that is; see `store::Identity`. None: not made yet.
    pub(crate) identity: Option<String>,
    /// Bytes of data in the file.
    pub(crate) size: Option<i64>,
    /// How they lie in it: `raw` or `qcow2`.
    pub(crate) format: String,
    /// The snapshot whose data it is, which may have gone since: the source is a clone of it, made for this copy alone.
    pub(crate) snapshot: Option<String>,
    /// The image that is written to the file, or made from it.
    pub(crate) image: Option<String>,
    /// `copy` or `verify` while it goes on; `done`, `failed`, `cancelled`.
    pub(crate) phase: String,
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
    /// Whether it has not ended.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self.phase.as_str(), "copy" | "verify")
    }

    /// Whether the file is one that the caller has passed, which none but the daemon that got it can open.
    pub(crate) fn is_passed(&self) -> bool {
        self.file.as_deref() == Some(PASSED)
    }

    /// Whether an image is made, and not written to a file.
    pub(crate) fn makes_image(&self) -> bool {
        self.image.is_some() && self.destination.is_some()
    }

    /// The volumes that nothing else may be done with.
    pub(crate) fn volumes(&self) -> Vec<String> {
        let mut volumes: Vec<_> = self.source.iter().chain(&self.destination).cloned().collect();
        volumes.sort();
        volumes
    }
}

/// Stores a new copy, in the place of the last one to the same destination, or of the same object to a file.
pub(crate) async fn insert(db: &mut SqliteConnection, copy: &CopyRow) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM copies WHERE destination = ?1 AND phase NOT IN ('copy', 'verify')")
        .bind(&copy.destination)
        .execute(&mut *db)
        .await?;
    if copy.destination.is_none() {
        sqlx::query(
            "DELETE FROM copies WHERE (source = ?1 OR image = ?2) AND destination IS NULL
             AND phase NOT IN ('copy', 'verify')",
        )
        .bind(&copy.source)
        .bind(&copy.image)
        .execute(&mut *db)
        .await?;
    }
    sqlx::query(
        "INSERT INTO copies (id, account, call, source, destination, file, identity, size, format, snapshot, image, phase, position,
                             total, clean, unprepared, trouble, uid, pid, request, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )
    .bind(&copy.id)
    .bind(&copy.account)
    .bind(&copy.call)
    .bind(&copy.source)
    .bind(&copy.destination)
    .bind(&copy.file)
    .bind(&copy.identity)
    .bind(copy.size)
    .bind(&copy.format)
    .bind(&copy.snapshot)
    .bind(&copy.image)
    .bind(&copy.phase)
    .bind(copy.position)
    .bind(copy.total)
    .bind(copy.clean)
    .bind(copy.unprepared)
    .bind(&copy.trouble)
    .bind(copy.uid)
    .bind(copy.pid)
    .bind(&copy.request)
    .bind(&copy.created)
    .execute(db)
    .await?;
    Ok(())
}

/// The copy of this id, if there still is one.
pub(crate) async fn get(db: &mut SqliteConnection, id: &str) -> Result<Option<CopyRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM copies WHERE id = ?1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// Ids of the copies that go on, and whose destination is there.
pub(crate) async fn startable(db: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT id FROM copies
         WHERE phase IN ('copy', 'verify') AND NOT EXISTS (SELECT 1 FROM intents WHERE intents.disk = copies.destination)
         ORDER BY rowid",
    )
    .fetch_all(db)
    .await
}

/// Ids of all copies that go on.
pub(crate) async fn unended(db: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM copies WHERE phase IN ('copy', 'verify') ORDER BY rowid")
        .fetch_all(db)
        .await
}

/// The copy that goes on from or to a volume.
pub(crate) async fn on_volume(
    db: &mut SqliteConnection,
    volume: &str,
) -> Result<Option<CopyRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT * FROM copies WHERE (source = ?1 OR destination = ?1) AND phase IN ('copy', 'verify')",
    )
    .bind(volume)
    .fetch_optional(db)
    .await
}

/// What is to be shown of a volume: the copy that goes on, or else the last one to it, or from it to a file.
pub(crate) async fn of_volume(
    db: &mut SqliteConnection,
    volume: &str,
) -> Result<Option<CopyRow>, sqlx::Error> {
    Ok(of_volumes(db, [volume]).await?.into_values().next())
}

/// The same of several volumes, by volume.
pub(crate) async fn of_volumes(
    db: &mut SqliteConnection,
    volumes: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, CopyRow>, sqlx::Error> {
    let rows: Vec<Shown> = sqlx::query_as(
        "SELECT wanted.value AS shown_with, copies.* FROM json_each(?1) AS wanted
         JOIN copies ON copies.rowid = coalesce(
             (SELECT rowid FROM copies WHERE (source = wanted.value OR destination = wanted.value)
              AND phase IN ('copy', 'verify')),
             (SELECT rowid FROM copies
              WHERE destination = wanted.value OR (source = wanted.value AND destination IS NULL)
              ORDER BY rowid DESC LIMIT 1))",
    )
    .bind(several(volumes))
    .fetch_all(db)
    .await?;
    Ok(by_object(rows))
}

/// The copy that makes an image or writes it to a file: the one that goes on, or else the last one.
pub(crate) async fn of_image(db: &mut SqliteConnection, image: &str) -> Result<Option<CopyRow>, sqlx::Error> {
    Ok(of_images(db, [image]).await?.into_values().next())
}

/// The same of several images, by image.
pub(crate) async fn of_images(
    db: &mut SqliteConnection,
    images: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, CopyRow>, sqlx::Error> {
    let rows: Vec<Shown> = sqlx::query_as(
        "SELECT wanted.value AS shown_with, copies.* FROM json_each(?1) AS wanted
         JOIN copies ON copies.rowid = (SELECT rowid FROM copies WHERE image = wanted.value
             ORDER BY phase IN ('copy', 'verify') DESC, rowid DESC LIMIT 1)",
    )
    .bind(several(images))
    .fetch_all(db)
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
pub(crate) async fn set_file(
    db: &mut SqliteConnection,
    id: &str,
    identity: &str,
    clean: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE copies SET identity = ?2, clean = ?3 WHERE id = ?1")
        .bind(id)
        .bind(identity)
        .bind(clean)
        .execute(db)
        .await?;
    Ok(())
}

/// The destination has been made empty.
pub(crate) async fn set_prepared(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE copies SET unprepared = 0 WHERE id = ?1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Writes down from where it goes on.
pub(crate) async fn set_position(
    db: &mut SqliteConnection,
    id: &str,
    phase: &str,
    position: u64,
    total: u64,
) -> Result<(), sqlx::Error> {
    let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    sqlx::query("UPDATE copies SET phase = ?2, position = ?3, total = ?4, trouble = NULL WHERE id = ?1")
        .bind(id)
        .bind(phase)
        .bind(number(position))
        .bind(number(total))
        .execute(db)
        .await?;
    Ok(())
}

/// Writes down why it does not go on for the moment, or with `phase` for good.
pub(crate) async fn set_trouble(
    db: &mut SqliteConnection,
    id: &str,
    phase: Option<&str>,
    trouble: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE copies SET phase = coalesce(?2, phase), trouble = ?3 WHERE id = ?1")
        .bind(id)
        .bind(phase)
        .bind(trouble)
        .execute(db)
        .await?;
    Ok(())
}

/// Ends a copy of which nobody knows how far it came; a file that it went to is no more known as ours.
pub(crate) async fn set_cut_off(
    db: &mut SqliteConnection,
    id: &str,
    trouble: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE copies SET phase = 'cancelled', identity = NULL, trouble = ?2 WHERE id = ?1")
        .bind(id)
        .bind(trouble)
        .execute(db)
        .await?;
    Ok(())
}

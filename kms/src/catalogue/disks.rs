//! Disks.

use std::collections::HashMap;

use sqlx::{FromRow, SqliteConnection};

use super::volumes::{self, VolumeRow};
use super::{Page, several};
use crate::catalogue::key_state::KeyState;
use crate::catalogue::kinds::{DiskKind, OnFull, Role, Store};
use crate::catalogue::states::DiskState;

/// A disk, with its volume, its key and its attachment.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct DiskRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) state: DiskState,
    pub(crate) encrypted: bool,
    pub(crate) size: i64,
    pub(crate) store: Store,
    /// Path that was given for the store; none is in the state directory.
    pub(crate) path: Option<String>,
    /// What the store at `path` is; see `store::Identity`. None: not known (yet).
    pub(crate) identity: Option<String>,
    pub(crate) zone: String,
    pub(crate) lineage: Option<String>,
    /// A clone's: the snapshot that it was made from.
    pub(crate) base: Option<String>,
    pub(crate) kind: DiskKind,
    pub(crate) disk_type: String,
    pub(crate) role: Role,
    /// The instance whose system disk it is.
    pub(crate) system_of: Option<String>,
    /// Whether several instances can have it at once (rule D09).
    pub(crate) shared: bool,
    pub(crate) on_full: OnFull,
    pub(crate) created: String,
    pub(crate) key: Option<String>,
    pub(crate) key_version: Option<u32>,
    pub(crate) key_state: Option<KeyState>,
    /// The oldest attachment of the disk; in the next field, its instance.
    pub(crate) attachment: Option<String>,
    pub(crate) instance: Option<String>,
}

macro_rules! select_disks {
    ($rest:literal) => {
        concat!(
            "SELECT disks.id, disks.account, disks.name, disks.state, encrypted, size, store, path, identity,
                    volumes.zone, lineage, base, kind, disk_type, role, system_of, shared, on_full, disks.created, lineages.key, lineages.key_version,
                    keys.state AS key_state, attachments.id AS attachment, attachments.instance
             FROM disks
             JOIN volumes ON volumes.id = disks.id
             LEFT JOIN lineages ON lineages.id = volumes.lineage
             LEFT JOIN keys ON keys.id = lineages.key
             LEFT JOIN attachments ON attachments.id =
                 (SELECT id FROM attachments WHERE disk = disks.id ORDER BY serial LIMIT 1) ",
            $rest
        )
    };
}

/// The disk of this id or name.
pub(crate) async fn find(
    db: &mut SqliteConnection,
    account: &str,
    id_or_name: &str,
) -> Result<Option<DiskRow>, sqlx::Error> {
    sqlx::query_as(select_disks!(
        "WHERE disks.account = ?1 AND (disks.id = ?2 OR disks.name = ?2)"
    ))
    .bind(account)
    .bind(id_or_name)
    .fetch_optional(db)
    .await
}

/// The disk of this id, of whatever account.
pub(crate) async fn get(db: &mut SqliteConnection, id: &str) -> Result<DiskRow, sqlx::Error> {
    sqlx::query_as(select_disks!("WHERE disks.id = ?1"))
        .bind(id)
        .fetch_one(db)
        .await
}

/// The states of those of the disks that there still are, by id.
pub(crate) async fn states(
    db: &mut SqliteConnection,
    ids: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, DiskState>, sqlx::Error> {
    let states: Vec<(String, DiskState)> =
        sqlx::query_as("SELECT id, state FROM disks WHERE id IN (SELECT value FROM json_each(?1))")
            .bind(several(ids))
            .fetch_all(db)
            .await?;
    Ok(states.into_iter().collect())
}

/// The state of a disk, if there still is one.
pub(crate) async fn state(db: &mut SqliteConnection, id: &str) -> Result<Option<DiskState>, sqlx::Error> {
    sqlx::query_scalar("SELECT state FROM disks WHERE id = ?1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// A page of the account's disks, and where to go on.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    page: &Page,
) -> Result<(Vec<DiskRow>, Option<String>), sqlx::Error> {
    let mut rows: Vec<DiskRow> = sqlx::query_as(select_disks!(
        "WHERE disks.account = ?1 AND disks.id > ?2 ORDER BY disks.id LIMIT ?3"
    ))
    .bind(account)
    .bind(&page.after)
    .bind(page.probe())
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut rows, |row| &row.id);
    Ok((rows, next))
}

/// Stores a new disk and its volume.
pub(crate) async fn insert(db: &mut SqliteConnection, disk: &DiskRow) -> Result<(), sqlx::Error> {
    let volume = VolumeRow {
        encrypted: disk.encrypted,
        store: disk.store,
        path: disk.path.clone(),
        zone: disk.zone.clone(),
        lineage: disk.lineage.clone(),
        base: disk.base.clone(),
        kind: disk.kind,
        disk_type: disk.disk_type.clone(),
        created: disk.created.clone(),
        ..VolumeRow::new(disk.id.clone(), disk.account.clone(), disk.size)
    };
    volumes::insert(db, &volume).await?;
    sqlx::query(
        "INSERT INTO disks (id, account, name, state, shared, on_full, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(&disk.id)
    .bind(&disk.account)
    .bind(&disk.name)
    .bind(disk.state)
    .bind(disk.shared)
    .bind(disk.on_full)
    .bind(&disk.created)
    .execute(db)
    .await?;
    Ok(())
}

/// Makes it the system disk of an instance.
pub(crate) async fn bind(db: &mut SqliteConnection, id: &str, instance: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE disks SET role = 'system', system_of = ?1 WHERE id = ?2")
        .bind(instance)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// The system disk of an instance.
pub(crate) async fn system_of(
    db: &mut SqliteConnection,
    instance: &str,
) -> Result<Option<DiskRow>, sqlx::Error> {
    sqlx::query_as(select_disks!("WHERE system_of = ?1"))
        .bind(instance)
        .fetch_optional(db)
        .await
}

/// Renames it.
pub(crate) async fn set_name(db: &mut SqliteConnection, id: &str, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE disks SET name = ?1 WHERE id = ?2")
        .bind(name)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Changes what becomes of writes that the host has no room for.
pub(crate) async fn set_on_full(
    db: &mut SqliteConnection,
    id: &str,
    on_full: OnFull,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE disks SET on_full = ?1 WHERE id = ?2")
        .bind(on_full)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Changes the state.
pub(crate) async fn set_state(
    db: &mut SqliteConnection,
    id: &str,
    state: DiskState,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE disks SET state = ?1 WHERE id = ?2")
        .bind(state)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Gives a disk the state that it has when nothing is done with it: `in-use` if it is attached, `available` if not. Unless it is
/// being detached: that has the last word.
pub(crate) async fn set_idle(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE disks SET state = iif(EXISTS (SELECT 1 FROM attachments WHERE disk = disks.id), 'in-use', 'available')
         WHERE id = ?1 AND NOT (state IN ('detaching', 'error')
                               AND EXISTS (SELECT 1 FROM intents WHERE disk = disks.id AND call = 'detach'))",
    )
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Removes the disk; its volume stays.
pub(crate) async fn delete(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM disks WHERE id = ?1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

//! Disks.

use std::collections::HashMap;

use sqlx::FromRow;

use super::volumes::{self, VolumeRow};
use super::{Db, Listed, Page, execute, find_row, find_value, row, rows, several};
use crate::catalogue::key_state::KeyState;
use crate::catalogue::kinds::{DiskKind, DiskType, OnFull, Role, Store};
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
    pub(crate) disk_type: DiskType,
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
pub(crate) async fn find(db: &mut Db, account: &str, id_or_name: &str) -> sqlx::Result<Option<DiskRow>> {
    find_row!(
        db,
        select_disks!("WHERE disks.account = ?1 AND (disks.id = ?2 OR disks.name = ?2)");
        account, id_or_name
    )
    .await
}

/// The disk of this id, of whatever account.
pub(crate) async fn get(db: &mut Db, id: &str) -> sqlx::Result<DiskRow> {
    row!(db, select_disks!("WHERE disks.id = ?1"); id).await
}

/// The states of those of the disks that there still are, by id.
pub(crate) async fn states(
    db: &mut Db,
    ids: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, DiskState>> {
    let states: Vec<(String, DiskState)> = rows!(
        db,
        "SELECT id, state FROM disks WHERE id IN (SELECT value FROM json_each(?1))";
        several(ids)
    )
    .await?;
    Ok(states.into_iter().collect())
}

/// The state of a disk, if there still is one.
pub(crate) async fn state(db: &mut Db, id: &str) -> sqlx::Result<Option<DiskState>> {
    find_value!(db, "SELECT state FROM disks WHERE id = ?1"; id).await
}

/// A page of the account's disks, and where to go on.
pub(crate) async fn list(db: &mut Db, account: &str, page: &Page) -> sqlx::Result<Listed<DiskRow>> {
    let rows = rows!(
        db,
        select_disks!("WHERE disks.account = ?1 AND disks.id > ?2 ORDER BY disks.id LIMIT ?3");
        account, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &DiskRow| &row.id))
}

/// Stores a new disk, which is being created, and its volume.
pub(crate) async fn insert(
    db: &mut Db,
    volume: &VolumeRow,
    name: &str,
    shared: bool,
    on_full: OnFull,
) -> sqlx::Result<()> {
    volumes::insert(db, volume).await?;
    execute!(
        db,
        "INSERT INTO disks (id, account, name, state, shared, on_full, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        &volume.id, &volume.account, name, DiskState::Creating, shared, on_full, &volume.created
    )
    .await
}

/// Makes it the system disk of an instance.
pub(crate) async fn bind(db: &mut Db, id: &str, instance: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE disks SET role = 'system', system_of = ?1 WHERE id = ?2"; instance, id).await
}

/// The system disk of an instance.
pub(crate) async fn system_of(db: &mut Db, instance: &str) -> sqlx::Result<Option<DiskRow>> {
    find_row!(db, select_disks!("WHERE system_of = ?1"); instance).await
}

/// The instance whose system disk it is.
pub(crate) async fn instance_of(db: &mut Db, id: &str) -> sqlx::Result<Option<String>> {
    let found: Option<Option<String>> =
        find_value!(db, "SELECT system_of FROM disks WHERE id = ?1"; id).await?;
    Ok(found.flatten())
}

/// Renames it.
pub(crate) async fn set_name(db: &mut Db, id: &str, name: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE disks SET name = ?1 WHERE id = ?2"; name, id).await
}

/// Changes what becomes of writes that the host has no room for.
pub(crate) async fn set_on_full(db: &mut Db, id: &str, on_full: OnFull) -> sqlx::Result<()> {
    execute!(db, "UPDATE disks SET on_full = ?1 WHERE id = ?2"; on_full, id).await
}

/// Changes the state.
pub(crate) async fn set_state(db: &mut Db, id: &str, state: DiskState) -> sqlx::Result<()> {
    execute!(db, "UPDATE disks SET state = ?1 WHERE id = ?2"; state, id).await
}

/// Gives a disk the state that it has when nothing is done with it: `in-use` if it is attached, `available` if not. Unless it is
/// being detached: that has the last word.
pub(crate) async fn set_idle(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE disks SET state = iif(EXISTS (SELECT 1 FROM attachments WHERE disk = disks.id), 'in-use', 'available')
         WHERE id = ?1 AND NOT (state IN ('detaching', 'error')
                               AND EXISTS (SELECT 1 FROM intents WHERE disk = disks.id AND call = 'detach'))";
        id
    )
    .await
}

/// Removes the disk; its volume stays.
pub(crate) async fn delete(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM disks WHERE id = ?1"; id).await
}

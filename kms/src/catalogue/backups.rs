//! Backups: full copies outside of a disk's file, each a volume of its own.

use sqlx::FromRow;

use super::copies::Phase;
use super::kinds::{DiskKind, DiskType};
use super::states::BackupState;
use super::{Db, Listed, Page, execute, find_row, rows};

/// A backup, with what it has from its volume, of the same id, and from the copy that has made it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct BackupRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Id and name that the disk had.
    pub(crate) disk: String,
    pub(crate) disk_name: String,
    pub(crate) created: String,
    pub(crate) encrypted: bool,
    pub(crate) size: i64,
    pub(crate) path: Option<String>,
    pub(crate) zone: String,
    pub(crate) kind: DiskKind,
    pub(crate) disk_type: DiskType,
    pub(crate) lineage: Option<String>,
    pub(crate) key: Option<String>,
    /// Phase of the copy that makes the backup.
    pub(crate) phase: Option<Phase>,
}

impl BackupRow {
    /// As in the API.
    pub(crate) fn state(&self) -> BackupState {
        match self.phase {
            Some(Phase::Copy | Phase::Verify) => BackupState::Creating,
            Some(Phase::Done) => BackupState::Available,
            Some(Phase::Failed | Phase::Cancelled) | None => BackupState::Error,
        }
    }
}

macro_rules! select_backups {
    ($rest:literal) => {
        concat!(
            "SELECT backups.id, backups.name, backups.disk, backups.disk_name, backups.created,
                    volumes.encrypted, volumes.size, volumes.path, volumes.zone, volumes.kind, volumes.disk_type,
                    volumes.lineage, lineages.key, copies.phase
             FROM backups
             JOIN volumes ON volumes.id = backups.id
             LEFT JOIN lineages ON lineages.id = volumes.lineage
             LEFT JOIN copies ON copies.destination = backups.id ",
            $rest
        )
    };
}

/// The backup of this id or name.
pub(crate) async fn find(db: &mut Db, account: &str, id_or_name: &str) -> sqlx::Result<Option<BackupRow>> {
    find_row!(
        db,
        select_backups!("WHERE backups.account = ?1 AND (backups.id = ?2 OR backups.name = ?2)");
        account, id_or_name
    )
    .await
}

/// A page of the account's backups, and where to go on.
pub(crate) async fn list(db: &mut Db, account: &str, page: &Page) -> sqlx::Result<Listed<BackupRow>> {
    let rows = rows!(
        db,
        select_backups!("WHERE backups.account = ?1 AND backups.id > ?2 ORDER BY backups.id LIMIT ?3");
        account, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &BackupRow| &row.id))
}

/// Stores a new backup; its volume is there.
pub(crate) async fn insert(
    db: &mut Db,
    id: &str,
    account: &str,
    name: &str,
    disk: (&str, &str),
    created: &str,
) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO backups (id, account, name, disk, disk_name, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        id, account, name, disk.0, disk.1, created
    )
    .await
}

/// Removes the backup; its volume goes when it is looked for what is not needed.
pub(crate) async fn delete(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM backups WHERE id = ?1"; id).await
}

//! Disks.

use sqlx::{FromRow, SqliteConnection};

use super::Page;

/// A disk, with its key and its attachment.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct DiskRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) encrypted: bool,
    pub(crate) size: i64,
    pub(crate) store: String,
    /// None: in the state directory.
    pub(crate) path: Option<String>,
    /// What the store at `path` is; see `store::Identity`. None: not known (yet).
    pub(crate) identity: Option<String>,
    pub(crate) zone: String,
    pub(crate) lineage: Option<String>,
    pub(crate) created: String,
    pub(crate) key: Option<String>,
    pub(crate) key_version: Option<u32>,
    pub(crate) key_state: Option<String>,
    pub(crate) attachment: Option<String>,
    pub(crate) instance: Option<String>,
}

macro_rules! select_disks {
    ($rest:literal) => {
        concat!(
            "SELECT disks.id, disks.account, disks.name, disks.state, encrypted, size, store, path, identity,
                    disks.zone, lineage, disks.created, lineages.key, lineages.key_version,
                    keys.state AS key_state, attachments.id AS attachment, attachments.instance
             FROM disks
             LEFT JOIN lineages ON lineages.id = disks.lineage
             LEFT JOIN keys ON keys.id = lineages.key
             LEFT JOIN attachments ON attachments.disk = disks.id ",
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
    sqlx::query_as(select_disks!("WHERE disks.id = ?"))
        .bind(id)
        .fetch_one(db)
        .await
}

/// Whether there is a disk of this id, of whatever account.
pub(crate) async fn exists(db: &mut SqliteConnection, id: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM disks WHERE id = ?)")
        .bind(id)
        .fetch_one(db)
        .await
}

/// A page of the account's disks, and where to go on.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    page: &Page,
) -> Result<(Vec<DiskRow>, Option<String>), sqlx::Error> {
    let mut rows: Vec<DiskRow> = sqlx::query_as(select_disks!(
        "WHERE disks.account = ? AND disks.id > ? ORDER BY disks.id LIMIT ?"
    ))
    .bind(account)
    .bind(&page.after)
    .bind(page.probe())
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut rows, |row| &row.id);
    Ok((rows, next))
}

/// Paths of all disks, of every account, that do not lie in the state directory.
pub(crate) async fn foreign_paths(db: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT path FROM disks WHERE path IS NOT NULL")
        .fetch_all(db)
        .await
}

/// Stores a new disk.
pub(crate) async fn insert(db: &mut SqliteConnection, disk: &DiskRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO disks (id, account, name, state, encrypted, size, store, path, zone, lineage, created)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&disk.id)
    .bind(&disk.account)
    .bind(&disk.name)
    .bind(&disk.state)
    .bind(disk.encrypted)
    .bind(disk.size)
    .bind(&disk.store)
    .bind(&disk.path)
    .bind(&disk.zone)
    .bind(&disk.lineage)
    .bind(&disk.created)
    .execute(db)
    .await?;
    Ok(())
}

/// Changes the state.
pub(crate) async fn set_state(db: &mut SqliteConnection, id: &str, state: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE disks SET state = ? WHERE id = ?")
        .bind(state)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Remembers which file or device is the disk's.
pub(crate) async fn set_identity(
    db: &mut SqliteConnection,
    id: &str,
    identity: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE disks SET identity = ? WHERE id = ?")
        .bind(identity)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets which files and devices the disks were made on, in a restored catalogue: they may be copies by now. So they
/// are served, and never emptied or removed.
pub(crate) async fn forget_identities(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE disks SET identity = NULL")
        .execute(db)
        .await?;
    Ok(())
}

/// Removes the row of a disk and its lineage (rule K14: with the last object of a lineage, its keys).
pub(crate) async fn delete(db: &mut SqliteConnection, disk: &DiskRow) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM disks WHERE id = ?")
        .bind(&disk.id)
        .execute(&mut *db)
        .await?;
    if let Some(lineage) = &disk.lineage {
        super::keys::delete_lineage(db, lineage).await?;
    }
    Ok(())
}

//! What only a backup has: a root key that was put into it; and whether SQLite finds it sound.

use sqlx::FromRow;

use super::{Db, execute, row, value};

/// A root key under a passphrase: the row of `backup_root_key`.
#[derive(FromRow)]
pub(crate) struct WrappedRoot {
    /// Cost of Argon2id: memory in KiB, passes, lanes.
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
    /// The salt of the passphrase's key.
    pub(crate) salt: Vec<u8>,
    /// A blob of the envelope.
    pub(crate) wrapped: Vec<u8>,
}

/// Puts a root key into a backup that has none.
pub(crate) async fn put_root(db: &mut Db, root: &WrappedRoot) -> sqlx::Result<()> {
    execute!(
        db,
        "CREATE TABLE backup_root_key (memory_kib INTEGER NOT NULL, passes INTEGER NOT NULL,
                                       lanes INTEGER NOT NULL, salt BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT"
    )
    .await?;
    execute!(
        db,
        "INSERT INTO backup_root_key VALUES (?1, ?2, ?3, ?4, ?5)";
        root.memory_kib, root.passes, root.lanes, &root.salt, &root.wrapped
    )
    .await
}

/// Takes the root key out of a backup, if it has one, so that its pages hold it no more. In no transaction.
pub(crate) async fn take_root(db: &mut Db) -> sqlx::Result<Option<WrappedRoot>> {
    let has_root: bool = value!(
        db,
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'backup_root_key')"
    )
    .await?;
    if !has_root {
        return Ok(None);
    }
    let root = row!(db, "SELECT * FROM backup_root_key").await?;
    execute!(db, "DROP TABLE backup_root_key").await?;
    execute!(db, "VACUUM").await?;
    Ok(Some(root))
}

/// What SQLite finds wrong, in words.
///
/// # Errors
/// SQLite's, where it cannot even look.
pub(crate) async fn damage(db: &mut Db) -> sqlx::Result<Option<String>> {
    let integrity: String = value!(db, "PRAGMA integrity_check").await?;
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_all(db).await?;
    if integrity == "ok" && dangling.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{integrity}, {} dangling references",
        dangling.len()
    )))
}

//! What only a backup has: a root key that was put into it; and whether SQLite finds it sound.

use sqlx::{FromRow, SqliteConnection};

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
pub(crate) async fn put_root(db: &mut SqliteConnection, root: &WrappedRoot) -> Result<(), sqlx::Error> {
    sqlx::query(
        "CREATE TABLE backup_root_key (memory_kib INTEGER NOT NULL, passes INTEGER NOT NULL,
                                       lanes INTEGER NOT NULL, salt BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT",
    )
    .execute(&mut *db)
    .await?;
    sqlx::query("INSERT INTO backup_root_key VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(root.memory_kib)
        .bind(root.passes)
        .bind(root.lanes)
        .bind(&root.salt)
        .bind(&root.wrapped)
        .execute(db)
        .await?;
    Ok(())
}

/// Takes the root key out of a backup, if it has one, so that its pages hold it no more. In no transaction.
pub(crate) async fn take_root(db: &mut SqliteConnection) -> Result<Option<WrappedRoot>, sqlx::Error> {
    let has_root: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'backup_root_key')")
            .fetch_one(&mut *db)
            .await?;
    if !has_root {
        return Ok(None);
    }
    let root = sqlx::query_as("SELECT * FROM backup_root_key")
        .fetch_one(&mut *db)
        .await?;
    sqlx::query("DROP TABLE backup_root_key")
        .execute(&mut *db)
        .await?;
    sqlx::query("VACUUM").execute(&mut *db).await?;
    Ok(Some(root))
}

/// What SQLite finds wrong, in words.
///
/// # Errors
/// SQLite's, where it cannot even look.
pub(crate) async fn damage(db: &mut SqliteConnection) -> Result<Option<String>, sqlx::Error> {
    let integrity: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut *db)
        .await?;
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_all(db).await?;
    if integrity == "ok" && dangling.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{integrity}, {} dangling references",
        dangling.len()
    )))
}

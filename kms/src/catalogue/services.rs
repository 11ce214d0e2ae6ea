//! Services: the processes that serve disks, each for all attachments of one disk (rule D09).

use std::collections::HashSet;

use sqlx::{FromRow, SqliteConnection};

use super::several;

/// A service. It comes with a disk's first attachment, and goes with its last.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ServiceRow {
    /// Id of the service: that of the attachment that it came with.
    pub(crate) id: String,
    pub(crate) disk: String,
    /// Whether the KMS starts and restarts the process.
    pub(crate) start: bool,
    /// Whether the process is not started until an operator says so, since the catalogue was restored.
    pub(crate) held: bool,
    /// Whether the process has a user of its own, if the KMS is root's. Older ones that another supervisor starts have not.
    pub(crate) own_user: bool,
    pub(crate) serial: i64,
    /// SHA-256 of the token of the backend that serves.
    pub(crate) token: Option<Vec<u8>>,
    /// Hash of the token of a backend that has been started and is not ready yet.
    pub(crate) next_token: Option<Vec<u8>>,
    /// The process that was last given the store: its number, its start in ticks after the boot, and the boot's id.
    pub(crate) backend_pid: Option<i32>,
    pub(crate) backend_start: Option<i64>,
    pub(crate) backend_boot: Option<String>,
}

/// All services, of every account, oldest first.
pub(crate) async fn all(db: &mut SqliteConnection) -> Result<Vec<ServiceRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM services ORDER BY serial")
        .fetch_all(db)
        .await
}

/// The service of this id, if there still is one.
pub(crate) async fn get(db: &mut SqliteConnection, id: &str) -> Result<Option<ServiceRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM services WHERE id = ?1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// The service of a disk, if it is attached.
pub(crate) async fn of_disk(
    db: &mut SqliteConnection,
    disk: &str,
) -> Result<Option<ServiceRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM services WHERE disk = ?1")
        .bind(disk)
        .fetch_optional(db)
        .await
}

/// Of these disks, the ones whose processes are not started since the catalogue was restored.
pub(crate) async fn held(
    db: &mut SqliteConnection,
    disks: impl IntoIterator<Item = &str>,
) -> Result<HashSet<String>, sqlx::Error> {
    let disks: Vec<String> = sqlx::query_scalar(
        "SELECT disk FROM services WHERE disk IN (SELECT value FROM json_each(?1)) AND held",
    )
    .bind(several(disks))
    .fetch_all(db)
    .await?;
    Ok(disks.into_iter().collect())
}

/// Stores a new service.
pub(crate) async fn insert(
    db: &mut SqliteConnection,
    (id, disk): (&str, &str),
    start: bool,
    serial: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO services (id, disk, start, own_user, serial) VALUES (?1, ?2, ?3, 1, ?4)")
        .bind(id)
        .bind(disk)
        .bind(start)
        .bind(serial)
        .execute(db)
        .await?;
    Ok(())
}

/// After the restore of a catalogue: no process is started by itself.
pub(crate) async fn hold_all(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE services SET held = start")
        .execute(db)
        .await?;
    Ok(())
}

/// Permits that the service's process is started. Gives back whether that was not permitted before.
pub(crate) async fn release(db: &mut SqliteConnection, id: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE services SET held = 0 WHERE id = ?1 AND held")
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes it, if no attachment is left of it.
pub(super) async fn delete_unused(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM services WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM attachments WHERE service = ?1)",
    )
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Keeps the hash of a token that was given to a new backend, beside the one that may still serve.
pub(crate) async fn set_next_token(
    db: &mut SqliteConnection,
    id: &str,
    hash: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE services SET next_token = ?1 WHERE id = ?2")
        .bind(hash)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// The backend with this token serves: no other token is good any more.
pub(crate) async fn set_token(db: &mut SqliteConnection, id: &str, hash: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE services SET token = ?1, next_token = NULL WHERE id = ?2")
        .bind(hash)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Keeps who is being given the store, so that the process is found also when it is not connected.
pub(crate) async fn set_backend(
    db: &mut SqliteConnection,
    id: &str,
    (pid, start, boot): (i32, i64, &str),
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE services SET backend_pid = ?1, backend_start = ?2, backend_boot = ?3 WHERE id = ?4")
        .bind(pid)
        .bind(start)
        .bind(boot)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

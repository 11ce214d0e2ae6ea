//! Services: the processes that serve disks, each for all attachments of one disk (rule D09).

use std::collections::HashSet;

use sqlx::FromRow;

use super::{Db, changed, execute, find_row, rows, several, values};

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
    /// What guests see of the disk's size, in bytes, until it is attached anew (rule D06); none: all of it.
    pub(crate) guest_size: Option<i64>,
}

/// All services, of every account, oldest first.
pub(crate) async fn all(db: &mut Db) -> sqlx::Result<Vec<ServiceRow>> {
    rows!(db, "SELECT * FROM services ORDER BY serial").await
}

/// The service of this id, if there still is one.
pub(crate) async fn get(db: &mut Db, id: &str) -> sqlx::Result<Option<ServiceRow>> {
    find_row!(db, "SELECT * FROM services WHERE id = ?1"; id).await
}

/// The service of a disk, if it is attached.
pub(crate) async fn of_disk(db: &mut Db, disk: &str) -> sqlx::Result<Option<ServiceRow>> {
    find_row!(db, "SELECT * FROM services WHERE disk = ?1"; disk).await
}

/// Of these disks, the ones whose processes are not started since the catalogue was restored.
pub(crate) async fn held(
    db: &mut Db,
    disks: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashSet<String>> {
    let disks: Vec<String> = values!(
        db,
        "SELECT disk FROM services WHERE disk IN (SELECT value FROM json_each(?1)) AND held";
        several(disks)
    )
    .await?;
    Ok(disks.into_iter().collect())
}

/// Stores a new service.
pub(crate) async fn insert(
    db: &mut Db,
    (id, disk): (&str, &str),
    start: bool,
    serial: i64,
) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO services (id, disk, start, own_user, serial) VALUES (?1, ?2, ?3, 1, ?4)";
        id, disk, start, serial
    )
    .await
}

/// After the restore of a catalogue: no process is started by itself.
pub(crate) async fn hold_all(db: &mut Db) -> sqlx::Result<()> {
    execute!(db, "UPDATE services SET held = start").await
}

/// Permits that the service's process is started. Gives back whether that was not permitted before.
pub(crate) async fn release(db: &mut Db, id: &str) -> sqlx::Result<bool> {
    Ok(changed!(db, "UPDATE services SET held = 0 WHERE id = ?1 AND held"; id).await? == 1)
}

/// From now on guests see this much of the disk, in bytes, unless less was noted before: the disk grows (rule D06).
pub(crate) async fn keep_guest_size(db: &mut Db, disk: &str, size: i64) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE services SET guest_size = coalesce(guest_size, ?2) WHERE disk = ?1";
        disk, size
    )
    .await
}

/// Removes it, if no attachment is left of it.
pub(super) async fn delete_unused(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "DELETE FROM services WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM attachments WHERE service = ?1)";
        id
    )
    .await
}

/// Keeps the hash of a token that was given to a new backend, beside the one that may still serve.
pub(crate) async fn set_next_token(db: &mut Db, id: &str, hash: &[u8]) -> sqlx::Result<()> {
    execute!(db, "UPDATE services SET next_token = ?1 WHERE id = ?2"; hash, id).await
}

/// The backend with this token serves: no other token is good any more.
pub(crate) async fn set_token(db: &mut Db, id: &str, hash: &[u8]) -> sqlx::Result<()> {
    execute!(db, "UPDATE services SET token = ?1, next_token = NULL WHERE id = ?2"; hash, id).await
}

/// Keeps who is being given the store, so that the process is found also when it is not connected.
pub(crate) async fn set_backend(
    db: &mut Db,
    id: &str,
    (pid, start, boot): (i32, i64, &str),
) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE services SET backend_pid = ?1, backend_start = ?2, backend_boot = ?3 WHERE id = ?4";
        pid, start, boot, id
    )
    .await
}

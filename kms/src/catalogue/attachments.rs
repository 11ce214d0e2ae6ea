//! Attachments.

use sqlx::{FromRow, SqliteConnection};

use super::Page;

/// An attachment.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct AttachmentRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) disk: String,
    pub(crate) instance: String,
    pub(crate) queues: u16,
    pub(crate) read_only: bool,
    /// None: in the runtime directory of the attachment.
    pub(crate) socket: Option<String>,
    pub(crate) socket_uid: Option<u32>,
    pub(crate) socket_gid: Option<u32>,
    pub(crate) socket_mode: u32,
    pub(crate) start: bool,
    pub(crate) serial: i64,
    /// SHA-256 of the token of the backend that serves.
    pub(crate) token: Option<Vec<u8>>,
    /// The same of a backend that has been started and is not ready yet.
    pub(crate) next_token: Option<Vec<u8>>,
    pub(crate) created: String,
    /// The process that was last given the store: its number, its start in ticks after the boot, and the boot's id.
    pub(crate) backend_pid: Option<i32>,
    pub(crate) backend_start: Option<i64>,
    pub(crate) backend_boot: Option<String>,
}

/// The attachment of this id.
pub(crate) async fn find(
    db: &mut SqliteConnection,
    account: &str,
    id: &str,
) -> Result<Option<AttachmentRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM attachments WHERE account = ? AND id = ?")
        .bind(account)
        .bind(id)
        .fetch_optional(db)
        .await
}

/// The attachment of a disk, if it has one.
pub(crate) async fn of_disk(db: &mut SqliteConnection, disk: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM attachments WHERE disk = ?")
        .bind(disk)
        .fetch_optional(db)
        .await
}

/// All attachments, of every account.
pub(crate) async fn all(db: &mut SqliteConnection) -> Result<Vec<AttachmentRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM attachments ORDER BY serial")
        .fetch_all(db)
        .await
}

/// A page of the account's attachments, and where to go on.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    page: &Page,
) -> Result<(Vec<AttachmentRow>, Option<String>), sqlx::Error> {
    let mut rows: Vec<AttachmentRow> =
        sqlx::query_as("SELECT * FROM attachments WHERE account = ? AND id > ? ORDER BY id LIMIT ?")
            .bind(account)
            .bind(&page.after)
            .bind(page.probe())
            .fetch_all(db)
            .await?;
    let next = page.cut(&mut rows, |row| &row.id);
    Ok((rows, next))
}

/// Whether an attachment has this socket.
pub(crate) async fn has_socket(db: &mut SqliteConnection, socket: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM attachments WHERE socket = ?)")
        .bind(socket)
        .fetch_one(db)
        .await
}

/// Stores a new attachment.
pub(crate) async fn insert(db: &mut SqliteConnection, row: &AttachmentRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO attachments (id, account, disk, instance, queues, read_only, socket, socket_uid, socket_gid,
                                  socket_mode, start, serial, created)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.account)
    .bind(&row.disk)
    .bind(&row.instance)
    .bind(row.queues)
    .bind(row.read_only)
    .bind(&row.socket)
    .bind(row.socket_uid)
    .bind(row.socket_gid)
    .bind(row.socket_mode)
    .bind(row.start)
    .bind(row.serial)
    .bind(&row.created)
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
    sqlx::query("UPDATE attachments SET next_token = ? WHERE id = ?")
        .bind(hash)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// The backend with this token serves: no other token is good any more.
pub(crate) async fn set_token(db: &mut SqliteConnection, id: &str, hash: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE attachments SET token = ?, next_token = NULL WHERE id = ?")
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
    sqlx::query("UPDATE attachments SET backend_pid = ?, backend_start = ?, backend_boot = ? WHERE id = ?")
        .bind(pid)
        .bind(start)
        .bind(boot)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes it.
pub(crate) async fn delete(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM attachments WHERE id = ?")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

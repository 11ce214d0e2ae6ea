//! Attachments.

use std::collections::HashMap;

use sqlx::{FromRow, SqliteConnection};

use super::{Page, services, several};

/// An attachment.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct AttachmentRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) disk: String,
    /// Whose session it is.
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) queues: u16,
    pub(crate) read_only: bool,
    /// Path of the socket; none is that in the runtime directory of the attachment.
    pub(crate) socket: Option<String>,
    pub(crate) socket_uid: Option<u32>,
    pub(crate) socket_gid: Option<u32>,
    pub(crate) socket_mode: u32,
    pub(crate) serial: i64,
    pub(crate) created: String,
    /// The service's: whether the KMS starts the process.
    pub(crate) start: bool,
}

macro_rules! select_attachments {
    ($rest:literal) => {
        concat!(
            "SELECT attachments.*, services.start FROM attachments
             JOIN services ON services.id = attachments.service ",
            $rest
        )
    };
}

/// The attachment of this id.
pub(crate) async fn find(
    db: &mut SqliteConnection,
    account: &str,
    id: &str,
) -> Result<Option<AttachmentRow>, sqlx::Error> {
    sqlx::query_as(select_attachments!(
        "WHERE attachments.account = ?1 AND attachments.id = ?2"
    ))
    .bind(account)
    .bind(id)
    .fetch_optional(db)
    .await
}

/// All attachments of a disk, oldest first.
pub(crate) async fn of_disk(
    db: &mut SqliteConnection,
    disk: &str,
) -> Result<Vec<AttachmentRow>, sqlx::Error> {
    sqlx::query_as(select_attachments!(
        "WHERE attachments.disk = ?1 ORDER BY attachments.serial"
    ))
    .bind(disk)
    .fetch_all(db)
    .await
}

/// All attachments of these disks, by disk, each time oldest first.
pub(crate) async fn of_disks(
    db: &mut SqliteConnection,
    disks: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, Vec<AttachmentRow>>, sqlx::Error> {
    let rows: Vec<AttachmentRow> = sqlx::query_as(select_attachments!(
        "WHERE attachments.disk IN (SELECT value FROM json_each(?1)) ORDER BY attachments.serial"
    ))
    .bind(several(disks))
    .fetch_all(db)
    .await?;
    let mut by_disk: HashMap<String, Vec<AttachmentRow>> = HashMap::new();
    for row in rows {
        by_disk.entry(row.disk.clone()).or_default().push(row);
    }
    Ok(by_disk)
}

/// All attachments, of every account.
pub(crate) async fn all(db: &mut SqliteConnection) -> Result<Vec<AttachmentRow>, sqlx::Error> {
    sqlx::query_as(select_attachments!("ORDER BY attachments.serial"))
        .fetch_all(db)
        .await
}

/// A page of the account's attachments, and where to go on.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    page: &Page,
) -> Result<(Vec<AttachmentRow>, Option<String>), sqlx::Error> {
    let mut rows: Vec<AttachmentRow> = sqlx::query_as(select_attachments!(
        "WHERE attachments.account = ?1 AND attachments.id > ?2 ORDER BY attachments.id LIMIT ?3"
    ))
    .bind(account)
    .bind(&page.after)
    .bind(page.probe())
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut rows, |row| &row.id);
    Ok((rows, next))
}

/// Whether an attachment has this socket, which is that of the attachment `default_of` where that was given none.
pub(crate) async fn has_socket(
    db: &mut SqliteConnection,
    socket: &str,
    default_of: Option<&str>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM attachments WHERE socket = ?1 OR (id = ?2 AND socket IS NULL))",
    )
    .bind(socket)
    .bind(default_of)
    .fetch_one(db)
    .await
}

/// Stores a new attachment; the first of a disk comes with its service, of the same id.
pub(crate) async fn insert(db: &mut SqliteConnection, row: &AttachmentRow) -> Result<(), sqlx::Error> {
    if row.service == row.id {
        services::insert(db, (&row.id, &row.disk), row.start, row.serial).await?;
    }
    sqlx::query(
        "INSERT INTO attachments (id, account, disk, service, instance, queues, read_only, socket, socket_uid, socket_gid,
                                  socket_mode, serial, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )
    .bind(&row.id)
    .bind(&row.account)
    .bind(&row.disk)
    .bind(&row.service)
    .bind(&row.instance)
    .bind(row.queues)
    .bind(row.read_only)
    .bind(&row.socket)
    .bind(row.socket_uid)
    .bind(row.socket_gid)
    .bind(row.socket_mode)
    .bind(row.serial)
    .bind(&row.created)
    .execute(db)
    .await?;
    Ok(())
}

/// Removes it, and with the last one of a disk its service.
pub(crate) async fn delete(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    let service: Option<String> =
        sqlx::query_scalar("DELETE FROM attachments WHERE id = ?1 RETURNING service")
            .bind(id)
            .fetch_optional(&mut *db)
            .await?;
    if let Some(service) = service {
        services::delete_unused(db, &service).await?;
    }
    Ok(())
}

//! Attachments.

use std::collections::HashMap;

use sqlx::FromRow;

use super::{Db, Listed, Page, execute, find_row, find_value, rows, services, several, value};

/// An attachment.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct AttachmentRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) disk: String,
    pub(crate) disk_name: String,
    /// Whose session it is.
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) instance_name: String,
    pub(crate) queues: u16,
    pub(crate) read_only: bool,
    /// Path of the socket; none is that in the runtime directory of the attachment.
    pub(crate) socket: Option<String>,
    pub(crate) socket_uid: Option<u32>,
    pub(crate) socket_gid: Option<u32>,
    pub(crate) socket_mode: u32,
    pub(crate) serial: i64,
    pub(crate) created: String,
    /// The call that has made it, and who that was; not known of one of an earlier version.
    pub(crate) request: Option<String>,
    pub(crate) uid: Option<u32>,
    /// The service's: whether the KMS starts the process.
    pub(crate) start: bool,
    /// Whether it was plugged into a running virtual machine.
    pub(crate) plugged: bool,
}

macro_rules! select_attachments {
    ($rest:literal) => {
        concat!(
            "SELECT attachments.*, services.start, disks.name AS disk_name, instances.name AS instance_name
             FROM attachments
             JOIN services ON services.id = attachments.service
             JOIN disks ON disks.id = attachments.disk
             JOIN instances ON instances.id = attachments.instance ",
            $rest
        )
    };
}

/// The attachment of this id.
pub(crate) async fn find(db: &mut Db, account: &str, id: &str) -> sqlx::Result<Option<AttachmentRow>> {
    find_row!(
        db,
        select_attachments!("WHERE attachments.account = ?1 AND attachments.id = ?2");
        account, id
    )
    .await
}

/// All attachments of a disk, oldest first.
pub(crate) async fn of_disk(db: &mut Db, disk: &str) -> sqlx::Result<Vec<AttachmentRow>> {
    rows!(db, select_attachments!("WHERE attachments.disk = ?1 ORDER BY attachments.serial"); disk).await
}

/// All attachments of these disks, by disk, each time oldest first.
pub(crate) async fn of_disks(
    db: &mut Db,
    disks: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, Vec<AttachmentRow>>> {
    let rows: Vec<AttachmentRow> = rows!(
        db,
        select_attachments!("WHERE attachments.disk IN (SELECT value FROM json_each(?1)) ORDER BY attachments.serial");
        several(disks)
    )
    .await?;
    let mut by_disk: HashMap<String, Vec<AttachmentRow>> = HashMap::new();
    for row in rows {
        by_disk.entry(row.disk.clone()).or_default().push(row);
    }
    Ok(by_disk)
}

/// All attachments, of every account.
pub(crate) async fn all(db: &mut Db) -> sqlx::Result<Vec<AttachmentRow>> {
    rows!(db, select_attachments!("ORDER BY attachments.serial")).await
}

/// A page of the account's attachments, and where to go on.
pub(crate) async fn list(db: &mut Db, account: &str, page: &Page) -> sqlx::Result<Listed<AttachmentRow>> {
    let rows = rows!(
        db,
        select_attachments!("WHERE attachments.account = ?1 AND attachments.id > ?2 ORDER BY attachments.id LIMIT ?3");
        account, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &AttachmentRow| &row.id))
}

/// Whether an attachment has this socket, which is that of the attachment `default_of` where that was given none.
pub(crate) async fn has_socket(db: &mut Db, socket: &str, default_of: Option<&str>) -> sqlx::Result<bool> {
    value!(
        db,
        "SELECT EXISTS (SELECT 1 FROM attachments WHERE socket = ?1 OR (id = ?2 AND socket IS NULL))";
        socket, default_of
    )
    .await
}

/// Stores a new attachment; the first of a disk comes with its service, of the same id.
pub(crate) async fn insert(db: &mut Db, row: &AttachmentRow) -> sqlx::Result<()> {
    if row.service == row.id {
        services::insert(db, (&row.id, &row.disk), row.start, row.serial).await?;
    }
    execute!(
        db,
        "INSERT INTO attachments (id, account, disk, service, instance, queues, read_only, socket, socket_uid, socket_gid,
                                  socket_mode, serial, created, request, uid)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        &row.id, &row.account, &row.disk, &row.service, &row.instance, row.queues, row.read_only, &row.socket,
        row.socket_uid, row.socket_gid, row.socket_mode, row.serial, &row.created, &row.request,
        row.uid
    )
    .await
}

/// Changes whether it is plugged into a running virtual machine.
pub(crate) async fn set_plugged(db: &mut Db, id: &str, plugged: bool) -> sqlx::Result<()> {
    execute!(db, "UPDATE attachments SET plugged = ?1 WHERE id = ?2"; plugged, id).await
}

/// Removes it, and with the last one of a disk its service.
pub(crate) async fn delete(db: &mut Db, id: &str) -> sqlx::Result<()> {
    let service: Option<String> = find_value!(
        db,
        "DELETE FROM attachments WHERE id = ?1 RETURNING service";
        id
    )
    .await?;
    if let Some(service) = service {
        services::delete_unused(db, &service).await?;
    }
    Ok(())
}

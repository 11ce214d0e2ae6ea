//! Registered instances.

use std::collections::{BTreeSet, HashMap};

use sqlx::FromRow;

use super::{Db, Listed, Page, execute, find_row, rows, several, value};

/// An instance.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct InstanceRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) local_storage: bool,
    pub(crate) bare_metal: bool,
    /// Socket of the virtual machine: QMP or cloud-hypervisor's API.
    pub(crate) vm_socket: Option<String>,
    pub(crate) boot_disk: Option<String>,
    /// Whose the sockets of its disks are, where an attach does not say; none: as the daemon has it. A group without a user is
    /// none's.
    pub(crate) socket_uid: Option<u32>,
    pub(crate) socket_gid: Option<u32>,
    pub(crate) socket_mode: Option<u32>,
    /// False while the disks are made that come with it, and while its system disk is removed.
    pub(crate) made: bool,
    pub(crate) created: String,
}

/// An instance whose virtual machine is asked again while it runs.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct WatchedRow {
    #[sqlx(flatten)]
    pub(crate) instance: InstanceRow,
    /// Who has attached an encrypted disk to it last.
    pub(crate) uid: u32,
}

/// The instances with a known virtual machine and encrypted disks in use, of these services or of all.
pub(crate) async fn watched(
    db: &mut Db,
    services: Option<&BTreeSet<String>>,
) -> sqlx::Result<Vec<WatchedRow>> {
    let services = services.map(|services| several(services.iter().map(String::as_str)));
    rows!(
        db,
        "SELECT instances.*, attachments.uid AS uid, max(attachments.serial) FROM attachments
         JOIN instances ON instances.id = attachments.instance
         JOIN disks ON disks.id = attachments.disk
         JOIN volumes ON volumes.id = attachments.disk
         WHERE vm_socket IS NOT NULL AND attachments.uid IS NOT NULL AND volumes.encrypted AND disks.state = 'in-use'
           AND (?1 IS NULL OR attachments.service IN (SELECT value FROM json_each(?1)))
         GROUP BY instances.id";
        services
    )
    .await
}

/// The instance of this id or name.
pub(crate) async fn find(db: &mut Db, account: &str, id_or_name: &str) -> sqlx::Result<Option<InstanceRow>> {
    find_row!(
        db,
        "SELECT * FROM instances WHERE account = ?1 AND (id = ?2 OR name = ?2) AND made";
        account, id_or_name
    )
    .await
}

/// Whether the name is taken, also by an instance that is not there yet.
pub(crate) async fn has_name(db: &mut Db, account: &str, name: &str) -> sqlx::Result<bool> {
    value!(
        db,
        "SELECT EXISTS (SELECT 1 FROM instances WHERE account = ?1 AND name = ?2)";
        account, name
    )
    .await
}

/// A page of the account's instances, and where to go on.
pub(crate) async fn list(db: &mut Db, account: &str, page: &Page) -> sqlx::Result<Listed<InstanceRow>> {
    let rows = rows!(
        db,
        "SELECT * FROM instances WHERE account = ?1 AND id > ?2 AND made ORDER BY id LIMIT ?3";
        account, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &InstanceRow| &row.id))
}

/// The socket of its virtual machine, if it is known.
pub(crate) async fn vm_socket(db: &mut Db, id: &str) -> sqlx::Result<Option<String>> {
    value!(db, "SELECT vm_socket FROM instances WHERE id = ?1"; id).await
}

/// A disk's id and name.
pub(crate) type AttachedDisk = (String, String);

/// The disks that are attached to it.
pub(crate) async fn disks(db: &mut Db, id: &str) -> sqlx::Result<Vec<AttachedDisk>> {
    Ok(disks_of(db, [id]).await?.remove(id).unwrap_or_default())
}

/// The disks that are attached to each of the instances, oldest attachment first.
pub(crate) async fn disks_of(
    db: &mut Db,
    ids: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, Vec<AttachedDisk>>> {
    let rows: Vec<(String, String, String)> = rows!(
        db,
        "SELECT instance, disk, disks.name FROM attachments JOIN disks ON disks.id = attachments.disk
         WHERE instance IN (SELECT value FROM json_each(?1)) ORDER BY serial";
        several(ids)
    )
    .await?;
    let mut disks: HashMap<String, Vec<AttachedDisk>> = HashMap::new();
    for (instance, id, name) in rows {
        disks.entry(instance).or_default().push((id, name));
    }
    Ok(disks)
}

/// Ids of the system disks, by instance.
pub(crate) async fn system_disks_of(
    db: &mut Db,
    ids: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, String>> {
    let rows: Vec<(String, String)> = rows!(
        db,
        "SELECT system_of, id FROM disks WHERE system_of IN (SELECT value FROM json_each(?1))";
        several(ids)
    )
    .await?;
    Ok(rows.into_iter().collect())
}

/// Stores a new instance.
pub(crate) async fn insert(db: &mut Db, instance: &InstanceRow) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO instances (id, account, name, zone, local_storage, bare_metal, vm_socket, boot_disk, made, created,
                                socket_uid, socket_gid, socket_mode)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        &instance.id, &instance.account, &instance.name, &instance.zone, instance.local_storage,
        instance.bare_metal, &instance.vm_socket, &instance.boot_disk, instance.made, &instance.created,
        instance.socket_uid, instance.socket_gid, instance.socket_mode
    )
    .await
}

/// Stores what can be changed of it.
pub(crate) async fn update(db: &mut Db, instance: &InstanceRow) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE instances SET name = ?1, local_storage = ?2, bare_metal = ?3, vm_socket = ?4, boot_disk = ?5, socket_uid = ?6,
                              socket_gid = ?7, socket_mode = ?8 WHERE id = ?9";
        &instance.name, instance.local_storage, instance.bare_metal, &instance.vm_socket, &instance.boot_disk,
        instance.socket_uid, instance.socket_gid, instance.socket_mode, &instance.id
    )
    .await
}

/// Notes that the disks of an instance are made: from now on callers see it.
pub(crate) async fn set_made(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE instances SET made = 1 WHERE id = ?1"; id).await
}

/// Takes an instance out of sight: its system disk is being removed, and it goes with that.
pub(crate) async fn set_unmade(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE instances SET made = 0 WHERE id = ?1"; id).await
}

/// At the start, when no disks are being made: removes the instances that wait for theirs, or for
/// the removal of their system disk.
pub(crate) async fn delete_unmade(db: &mut Db) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM instances WHERE NOT made").await
}

/// Removes it.
pub(crate) async fn delete(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM instances WHERE id = ?1"; id).await
}

//! Registered instances.

use std::collections::HashMap;

use sqlx::{FromRow, SqliteConnection};

use super::{Page, several};

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
    /// False while the disks are made that come with it, and while its system disk is removed.
    pub(crate) made: bool,
    pub(crate) created: String,
}

/// The instance of this id or name.
pub(crate) async fn find(
    db: &mut SqliteConnection,
    account: &str,
    id_or_name: &str,
) -> Result<Option<InstanceRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM instances WHERE account = ?1 AND (id = ?2 OR name = ?2) AND made")
        .bind(account)
        .bind(id_or_name)
        .fetch_optional(db)
        .await
}

/// Whether the name is taken, also by an instance that is not there yet.
pub(crate) async fn has_name(
    db: &mut SqliteConnection,
    account: &str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM instances WHERE account = ?1 AND name = ?2)")
        .bind(account)
        .bind(name)
        .fetch_one(db)
        .await
}

/// A page of the account's instances, and where to go on.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    page: &Page,
) -> Result<(Vec<InstanceRow>, Option<String>), sqlx::Error> {
    let mut rows: Vec<InstanceRow> = sqlx::query_as(
        "SELECT * FROM instances WHERE account = ?1 AND id > ?2 AND made ORDER BY id LIMIT ?3",
    )
    .bind(account)
    .bind(&page.after)
    .bind(page.probe())
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut rows, |row| &row.id);
    Ok((rows, next))
}

/// The socket of its virtual machine, if it is known.
pub(crate) async fn vm_socket(db: &mut SqliteConnection, id: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT vm_socket FROM instances WHERE id = ?1")
        .bind(id)
        .fetch_one(db)
        .await
}

/// Ids of the disks that are attached to it.
pub(crate) async fn disks(db: &mut SqliteConnection, id: &str) -> Result<Vec<String>, sqlx::Error> {
    Ok(disks_of(db, [id]).await?.remove(id).unwrap_or_default())
}

/// Ids of the disks that are attached to each of the instances, oldest attachment first.
pub(crate) async fn disks_of(
    db: &mut SqliteConnection,
    ids: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, Vec<String>>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT instance, disk FROM attachments WHERE instance IN (SELECT value FROM json_each(?1)) ORDER BY serial",
    )
    .bind(several(ids))
    .fetch_all(db)
    .await?;
    let mut disks: HashMap<String, Vec<String>> = HashMap::new();
    for (instance, disk) in rows {
        disks.entry(instance).or_default().push(disk);
    }
    Ok(disks)
}

/// Ids of the system disks, by instance.
pub(crate) async fn system_disks_of(
    db: &mut SqliteConnection,
    ids: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, String>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT system_of, id FROM disks WHERE system_of IN (SELECT value FROM json_each(?1))",
    )
    .bind(several(ids))
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Stores a new instance.
pub(crate) async fn insert(db: &mut SqliteConnection, instance: &InstanceRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO instances (id, account, name, zone, local_storage, bare_metal, vm_socket, boot_disk, made, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .bind(&instance.id)
    .bind(&instance.account)
    .bind(&instance.name)
    .bind(&instance.zone)
    .bind(instance.local_storage)
    .bind(instance.bare_metal)
    .bind(&instance.vm_socket)
    .bind(&instance.boot_disk)
    .bind(instance.made)
    .bind(&instance.created)
    .execute(db)
    .await?;
    Ok(())
}

/// Stores what can be changed of it.
pub(crate) async fn update(db: &mut SqliteConnection, instance: &InstanceRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE instances SET name = ?1, local_storage = ?2, bare_metal = ?3, vm_socket = ?4, boot_disk = ?5 WHERE id = ?6",
    )
    .bind(&instance.name)
    .bind(instance.local_storage)
    .bind(instance.bare_metal)
    .bind(&instance.vm_socket)
    .bind(&instance.boot_disk)
    .bind(&instance.id)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the disks of an instance are made: from now on callers see it.
pub(crate) async fn set_made(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE instances SET made = 1 WHERE id = ?1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Takes an instance out of sight: its system disk is being removed, and it goes with that.
pub(crate) async fn set_unmade(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE instances SET made = 0 WHERE id = ?1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// At the start, when no disks are being made: removes the instances that wait for theirs, or for
/// the removal of their system disk.
pub(crate) async fn delete_unmade(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM instances WHERE NOT made")
        .execute(db)
        .await?;
    Ok(())
}

/// Removes it.
pub(crate) async fn delete(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM instances WHERE id = ?1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

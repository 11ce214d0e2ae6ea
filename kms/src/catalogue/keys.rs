//! Master keys, their versions, and the lineages under them: wrapped keys only.

use sqlx::{FromRow, SqliteConnection};

use super::Page;
use crate::clock;

/// A master key, with its newest version.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct KeyRow {
    pub(crate) id: String,
    pub(crate) region: String,
    pub(crate) name: String,
    pub(crate) origin: String,
    pub(crate) state: String,
    pub(crate) created: String,
    pub(crate) version: u32,
    pub(crate) disks: i64,
}

/// A lineage with the master key version that wraps it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct LineageRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) key: String,
    pub(crate) key_version: u32,
    pub(crate) key_state: String,
    pub(crate) wrapped_master: Vec<u8>,
    pub(crate) wrapped_key: Vec<u8>,
    pub(crate) wrapped_salt: Vec<u8>,
}

/// A lineage to be stored.
pub(crate) struct NewLineage<'a> {
    pub(crate) id: &'a str,
    pub(crate) account: &'a str,
    pub(crate) key: &'a str,
    pub(crate) key_version: u32,
    pub(crate) wrapped_key: &'a [u8],
    pub(crate) wrapped_salt: &'a [u8],
}

macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "SELECT id, region, name, origin, state, created,
                    (SELECT max(version) FROM key_versions WHERE key = keys.id) AS version,
                    (SELECT count(*) FROM disks JOIN volumes ON volumes.id = disks.id
                     JOIN lineages ON lineages.id = volumes.lineage
                     WHERE lineages.key = keys.id) AS disks
             FROM keys ",
            $rest
        )
    };
}

/// Removes a key that no lineage needs and that no other open operation counts on.
pub(crate) async fn delete_unused(db: &mut SqliteConnection, key: &str) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM key_versions WHERE key = ? AND NOT EXISTS (SELECT 1 FROM lineages WHERE key = key_versions.key)",
        "DELETE FROM keys WHERE id = ? AND NOT EXISTS (SELECT 1 FROM key_versions WHERE key = keys.id)",
    ] {
        sqlx::query(statement).bind(key).execute(&mut *db).await?;
    }
    Ok(())
}

/// The key of this id or name.
pub(crate) async fn find(
    db: &mut SqliteConnection,
    account: &str,
    id_or_name: &str,
) -> Result<Option<KeyRow>, sqlx::Error> {
    sqlx::query_as(select_keys!("WHERE account = ?1 AND (id = ?2 OR name = ?2)"))
        .bind(account)
        .bind(id_or_name)
        .fetch_optional(db)
        .await
}

/// The service key of the account in the region (rule K03).
pub(crate) async fn service_key(
    db: &mut SqliteConnection,
    account: &str,
    region: &str,
) -> Result<Option<KeyRow>, sqlx::Error> {
    sqlx::query_as(select_keys!(
        "WHERE account = ? AND region = ? AND origin = 'service'"
    ))
    .bind(account)
    .bind(region)
    .fetch_optional(db)
    .await
}

/// A page of the account's keys, and where to go on.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    account: &str,
    page: &Page,
) -> Result<(Vec<KeyRow>, Option<String>), sqlx::Error> {
    let mut rows: Vec<KeyRow> =
        sqlx::query_as(select_keys!("WHERE account = ? AND id > ? ORDER BY id LIMIT ?"))
            .bind(account)
            .bind(&page.after)
            .bind(page.probe())
            .fetch_all(db)
            .await?;
    let next = page.cut(&mut rows, |row| &row.id);
    Ok((rows, next))
}

/// Stores a service key with its first version.
pub(crate) async fn insert_service_key(
    db: &mut SqliteConnection,
    account: &str,
    region: &str,
    id: &str,
    wrapped: &[u8],
) -> Result<(), sqlx::Error> {
    let now = clock::now();
    sqlx::query(
        "INSERT INTO keys (id, account, region, name, origin, state, created)
         VALUES (?, ?, ?, ?, 'service', 'Enabled', ?)",
    )
    .bind(id)
    .bind(account)
    .bind(region)
    .bind(format!("service-{region}"))
    .bind(&now)
    .execute(&mut *db)
    .await?;
    sqlx::query("INSERT INTO key_versions (key, version, wrapped, created) VALUES (?, 1, ?, ?)")
        .bind(id)
        .bind(wrapped)
        .bind(&now)
        .execute(db)
        .await?;
    Ok(())
}

/// The wrapped master key of this version.
pub(crate) async fn wrapped_version(
    db: &mut SqliteConnection,
    key: &str,
    version: u32,
) -> Result<Vec<u8>, sqlx::Error> {
    sqlx::query_scalar("SELECT wrapped FROM key_versions WHERE key = ? AND version = ?")
        .bind(key)
        .bind(version)
        .fetch_one(db)
        .await
}

/// Stores a lineage.
pub(crate) async fn insert_lineage(
    db: &mut SqliteConnection,
    lineage: &NewLineage<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO lineages (id, account, key, key_version, wrapped_key, wrapped_salt, created)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(lineage.id)
    .bind(lineage.account)
    .bind(lineage.key)
    .bind(lineage.key_version)
    .bind(lineage.wrapped_key)
    .bind(lineage.wrapped_salt)
    .bind(clock::now())
    .execute(db)
    .await?;
    Ok(())
}

/// Reads a lineage with all that is needed to derive its key.
pub(crate) async fn lineage(db: &mut SqliteConnection, id: &str) -> Result<LineageRow, sqlx::Error> {
    sqlx::query_as(
        "SELECT lineages.id, lineages.account, keys.region, lineages.key, lineages.key_version,
                keys.state AS key_state, key_versions.wrapped AS wrapped_master, wrapped_key, wrapped_salt
         FROM lineages
         JOIN keys ON keys.id = lineages.key
         JOIN key_versions ON key_versions.key = lineages.key AND key_versions.version = lineages.key_version
         WHERE lineages.id = ?",
    )
    .bind(id)
    .fetch_one(db)
    .await
}

/// Destroys a lineage if no volume has it any more (rule K14): its wrapped keys are overwritten. After the commit,
/// [`super::Catalogue::forget_deleted`] takes them out of the log as well.
pub(crate) async fn delete_lineage(db: &mut SqliteConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM lineages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM volumes WHERE lineage = ?1)",
    )
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

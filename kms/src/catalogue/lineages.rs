//! Lineages, and the data keys that several of them share where the profile says so: wrapped keys only.

use sqlx::FromRow;

use super::{Db, execute, find_row, row, rows};
use crate::catalogue::key_state::{KeyNow, KeyState};
use crate::catalogue::kinds::KeyOrigin;
use crate::clock;

/// A lineage with the master key version that wraps it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct LineageRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) key: String,
    pub(crate) key_version: u32,
    pub(crate) key_state: KeyState,
    /// The master key's origin, and the last month of which its fee has been paid.
    pub(crate) origin: KeyOrigin,
    pub(crate) fee_month: Option<String>,
    /// The wrapped master key; none once the key has been destroyed.
    pub(crate) wrapped_master: Option<Vec<u8>>,
    /// Empty where the lineage shares a data key.
    pub(crate) wrapped_key: Vec<u8>,
    pub(crate) wrapped_salt: Vec<u8>,
    /// The data key that it shares with others (rule K04).
    #[sqlx(flatten)]
    pub(crate) shared: SharedRow,
}

/// The part of a [`LineageRow`] that a shared data key fills. Both keys may be under different versions while they are
/// being rewrapped.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct SharedRow {
    pub(crate) data_key: Option<String>,
    pub(crate) shared_key: Option<Vec<u8>>,
    pub(crate) shared_version: Option<u32>,
    pub(crate) shared_master: Option<Vec<u8>>,
}

impl LineageRow {
    /// The lineage's master key, to be asked what it can be used for.
    pub(crate) fn key_now(&self) -> KeyNow<'_> {
        KeyNow {
            id: &self.key,
            state: self.key_state,
        }
    }
}

/// A lineage to be stored.
pub(crate) struct NewLineage<'a> {
    pub(crate) id: &'a str,
    pub(crate) account: &'a str,
    pub(crate) key: &'a str,
    pub(crate) key_version: u32,
    /// Empty where there is a `data_key`.
    pub(crate) wrapped_key: &'a [u8],
    pub(crate) wrapped_salt: &'a [u8],
    pub(crate) data_key: Option<&'a str>,
}

/// A data key that lineages share.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct DataKeyRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) key: String,
    pub(crate) key_version: u32,
    pub(crate) wrapped_key: Vec<u8>,
}

/// What is under an older version of a master key than its newest (rule K12).
#[derive(Clone, Debug, FromRow)]
pub(crate) struct OutdatedRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) key_version: u32,
    pub(crate) wrapped_key: Vec<u8>,
    /// The wrapped salt; none for a shared data key.
    pub(crate) wrapped_salt: Option<Vec<u8>>,
}

/// Stores a lineage.
pub(crate) async fn insert(db: &mut Db, lineage: &NewLineage<'_>) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO lineages (id, account, key, key_version, wrapped_key, wrapped_salt, data_key, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        lineage.id, lineage.account, lineage.key, lineage.key_version, lineage.wrapped_key,
        lineage.wrapped_salt, lineage.data_key, clock::now()
    )
    .await
}

/// Reads a lineage with all that is needed to derive its key.
pub(crate) async fn get(db: &mut Db, id: &str) -> sqlx::Result<LineageRow> {
    row!(
        db,
        "SELECT lineages.id, lineages.account, keys.region, lineages.key, lineages.key_version,
                keys.state AS key_state, keys.origin, keys.fee_month, own.wrapped AS wrapped_master, lineages.wrapped_key, wrapped_salt,
                data_key, data_keys.wrapped_key AS shared_key, data_keys.key_version AS shared_version,
                shared.wrapped AS shared_master
         FROM lineages
         JOIN keys ON keys.id = lineages.key
         LEFT JOIN key_material AS own ON own.key = lineages.key AND own.version = lineages.key_version
         LEFT JOIN data_keys ON data_keys.id = lineages.data_key
         LEFT JOIN key_material AS shared ON shared.key = data_keys.key AND shared.version = data_keys.key_version
         WHERE lineages.id = ?1";
        id
    )
    .await
}

/// The master key of a lineage, and the version that it is under; none if there is no such lineage.
pub(crate) async fn key_of(db: &mut Db, id: &str) -> sqlx::Result<Option<(String, u32)>> {
    find_row!(db, "SELECT key, key_version FROM lineages WHERE id = ?1"; id).await
}

/// Destroys a lineage if no volume has it any more (rule K14): its wrapped keys are overwritten. After the commit,
/// [`super::Catalogue::forget_deleted`] takes them out of the log as well.
pub(crate) async fn delete(db: &mut Db, id: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "DELETE FROM lineages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM volumes WHERE lineage = ?1)";
        id
    )
    .await
}

/// The data key that the lineages under a master key share, if there is one.
pub(crate) async fn data_key(db: &mut Db, key: &str) -> sqlx::Result<Option<DataKeyRow>> {
    find_row!(
        db,
        "SELECT id, account, key, key_version, wrapped_key FROM data_keys WHERE key = ?1";
        key
    )
    .await
}

/// Stores a data key that lineages share.
pub(crate) async fn insert_data_key(db: &mut Db, row: &DataKeyRow) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO data_keys (id, account, key, key_version, wrapped_key, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        &row.id, &row.account, &row.key, row.key_version, &row.wrapped_key, clock::now()
    )
    .await
}

/// Lineages and the shared data key that are not under `version` of the key yet: at most `limit` after an id, in the order
/// of ids.
pub(crate) async fn outdated(
    db: &mut Db,
    key: &str,
    version: u32,
    after: &str,
    limit: u32,
) -> sqlx::Result<Vec<OutdatedRow>> {
    rows!(
        db,
        "SELECT id, account, key_version, wrapped_key, NULL AS wrapped_salt FROM data_keys
         WHERE key = ?1 AND key_version <> ?2 AND id > ?3
         UNION ALL
         SELECT id, account, key_version, wrapped_key, wrapped_salt FROM lineages
         WHERE key = ?1 AND key_version <> ?2 AND id > ?3
         ORDER BY id LIMIT ?4";
        key, version, after, limit
    )
    .await
}

/// Puts one of [`outdated`] under another version.
pub(crate) async fn rewrap(db: &mut Db, row: &OutdatedRow, version: u32) -> sqlx::Result<()> {
    let statement = match row.wrapped_salt {
        Some(_) => "UPDATE lineages SET key_version = ?1, wrapped_key = ?2, wrapped_salt = ?3 WHERE id = ?4",
        None => "UPDATE data_keys SET key_version = ?1, wrapped_key = ?2 WHERE id = ?4 AND ?3 IS NULL",
    };
    execute!(db, statement; version, &row.wrapped_key, &row.wrapped_salt, &row.id).await
}

/// How many are under the version, and how many under any (lineages and shared data keys).
pub(crate) async fn rewrapped(db: &mut Db, key: &str, version: u32) -> sqlx::Result<(i64, i64)> {
    row!(
        db,
        "SELECT (SELECT count(*) FROM lineages WHERE key = ?1 AND key_version = ?2)
              + (SELECT count(*) FROM data_keys WHERE key = ?1 AND key_version = ?2),
                (SELECT count(*) FROM lineages WHERE key = ?1) + (SELECT count(*) FROM data_keys WHERE key = ?1)";
        key, version
    )
    .await
}

//! Master keys and their versions: wrapped keys only.

use sqlx::FromRow;

use super::{Db, Listed, Page, changed, execute, find_row, find_value, rows, value, values};
use crate::catalogue::key_state::{KeyNow, KeyState};
use crate::catalogue::kinds::KeyOrigin;
use crate::clock;

/// A master key, with its newest version.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct KeyRow {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) name: String,
    pub(crate) origin: KeyOrigin,
    pub(crate) state: KeyState,
    pub(crate) created: String,
    /// When it is destroyed (rule K11).
    pub(crate) deletion: Option<String>,
    /// When the key may be destroyed, by the seen time, in milliseconds; none if a version scheduled that which knew the day
    /// alone.
    pub(crate) deletion_seen: Option<i64>,
    pub(crate) alarmed: Option<String>,
    /// The last month whose fee has been paid (rule M03).
    pub(crate) fee_month: Option<String>,
    /// How many disks' data keys it wraps, and how many of these disks are attached.
    pub(crate) disks: i64,
    pub(crate) attached: i64,
    /// The newest version; none until the key has material.
    pub(crate) version: Option<u32>,
    /// The name that a destroyed key had, and another has now.
    pub(crate) former_name: Option<String>,
}

impl KeyRow {
    /// To be asked what can be done with it.
    pub(crate) fn now(&self) -> KeyNow<'_> {
        KeyNow {
            id: &self.id,
            state: self.state,
        }
    }
}

/// A master key to be stored, without any version.
pub(crate) struct NewKey<'a> {
    pub(crate) id: &'a str,
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) name: &'a str,
    pub(crate) origin: KeyOrigin,
    pub(crate) state: KeyState,
}

/// Something that a key protects.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ResourceRow {
    pub(crate) id: String,
    /// `disk`, `snapshot`, `image`, `backup`; `copy` for the volume by which a copy that goes on reads a snapshot.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) state: String,
}

macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "SELECT id, account, region, name, origin, state, created, deletion, deletion_seen, alarmed, fee_month,
                    disks, attached, former_name,
                    (SELECT max(version) FROM key_versions WHERE key = keys.id) AS version
             FROM keys ",
            $rest
        )
    };
}

/// Removes a key that no lineage needs and that no other open operation counts on.
pub(crate) async fn delete_unused(db: &mut Db, key: &str) -> sqlx::Result<()> {
    let used: bool = value!(db, "SELECT EXISTS (SELECT 1 FROM lineages WHERE key = ?1)"; key).await?;
    if used {
        return Ok(());
    }
    for statement in [
        "DELETE FROM data_keys WHERE key = ?1",
        "DELETE FROM key_material WHERE key = ?1",
        "DELETE FROM key_versions WHERE key = ?1",
        "DELETE FROM keys WHERE id = ?1",
    ] {
        execute!(db, statement; key).await?;
    }
    Ok(())
}

/// The key of this id, name or alias.
pub(crate) async fn find(db: &mut Db, account: &str, wanted: &str) -> sqlx::Result<Option<KeyRow>> {
    find_row!(
        db,
        select_keys!("WHERE account = ?1 AND (id = ?2 OR name = ?2
             OR id = (SELECT key FROM key_aliases WHERE key_aliases.account = ?1 AND alias = ?2))");
        account, wanted
    )
    .await
}

/// The service key of the account in the region (rule K03).
pub(crate) async fn service_key(db: &mut Db, account: &str, region: &str) -> sqlx::Result<Option<KeyRow>> {
    find_row!(
        db,
        select_keys!("WHERE account = ?1 AND region = ?2 AND origin = 'service'");
        account, region
    )
    .await
}

/// A page of the account's keys, and where to go on.
pub(crate) async fn list(db: &mut Db, account: &str, page: &Page) -> sqlx::Result<Listed<KeyRow>> {
    let rows = rows!(
        db,
        select_keys!("WHERE account = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
        account, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &KeyRow| &row.id))
}

/// All keys, of every account, that are going to be destroyed.
pub(crate) async fn pending_deletion(db: &mut Db) -> sqlx::Result<Vec<KeyRow>> {
    rows!(db, select_keys!("WHERE state = 'PendingDeletion' ORDER BY id")).await
}

/// Keys of the account that are not usable and that attached disks need (rule A06), or that are going to be destroyed.
pub(crate) async fn at_risk(db: &mut Db, account: &str) -> sqlx::Result<Vec<KeyRow>> {
    rows!(
        db,
        select_keys!("WHERE account = ?1 AND (state = 'PendingDeletion' OR (state <> 'Enabled' AND attached > 0)) ORDER BY id");
        account
    )
    .await
}

/// How many keys of their own the account has that are not destroyed: the service's do not count (rule M03).
pub(crate) async fn count_customer(db: &mut Db, account: &str) -> sqlx::Result<i64> {
    value!(
        db,
        "SELECT count(*) FROM keys WHERE account = ?1 AND origin <> 'service' AND state <> 'Destroyed'";
        account
    )
    .await
}

/// Stores a key.
pub(crate) async fn insert(db: &mut Db, key: &NewKey<'_>) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO keys (id, account, region, name, origin, state, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        key.id, key.account, key.region, key.name, key.origin, key.state, clock::now()
    )
    .await
}

/// Stores a further version of a key, with its wrapped material.
pub(crate) async fn insert_version(db: &mut Db, key: &str, version: u32, wrapped: &[u8]) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO key_versions (key, version, created) VALUES (?1, ?2, ?3)";
        key, version, clock::now()
    )
    .await?;
    execute!(
        db,
        "INSERT INTO key_material (key, version, wrapped) VALUES (?1, ?2, ?3)";
        key, version, wrapped
    )
    .await
}

/// The wrapped material of this version; none if it was retired or destroyed.
pub(crate) async fn material(db: &mut Db, key: &str, version: u32) -> sqlx::Result<Option<Vec<u8>>> {
    find_value!(db, "SELECT wrapped FROM key_material WHERE key = ?1 AND version = ?2"; key, version).await
}

/// When a key is destroyed.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    /// The day, as [`clock::now`] gives it.
    pub(crate) day: String,
    /// When the key may be destroyed, by the seen time, in milliseconds.
    pub(crate) seen: i64,
}

/// Changes the state; `deletion` belongs to a key that is going to be destroyed.
pub(crate) async fn set_state(
    db: &mut Db,
    key: &str,
    state: KeyState,
    deletion: Option<&Deletion>,
) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE keys SET state = ?1, deletion = ?2, deletion_seen = ?3, alarmed = NULL WHERE id = ?4";
        state, deletion.map(|deletion| &deletion.day), deletion.map(|deletion| deletion.seen), key
    )
    .await
}

/// Moves the day on which the key is destroyed.
pub(crate) async fn set_deletion(db: &mut Db, key: &str, deletion: &Deletion) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE keys SET deletion = ?1, deletion_seen = ?2 WHERE id = ?3";
        &deletion.day, deletion.seen, key
    )
    .await
}

/// Remembers when it was last said that the key is going to be destroyed.
pub(crate) async fn set_alarmed(db: &mut Db, key: &str, at: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE keys SET alarmed = ?1 WHERE id = ?2"; at, key).await
}

/// Destroys all material of a key (rule K11): overwritten first, then deleted. After the commit,
/// [`super::Catalogue::forget_deleted`] takes it out of the log as well.
pub(crate) async fn destroy_material(db: &mut Db, key: &str) -> sqlx::Result<()> {
    for statement in [
        "UPDATE key_material SET wrapped = randomblob(length(wrapped)) WHERE key = ?1",
        "DELETE FROM key_material WHERE key = ?1",
    ] {
        execute!(db, statement; key).await?;
    }
    Ok(())
}

/// Takes a name, or an alias, from the destroyed key of the account that has it: that is called by its id from now on.
pub(crate) async fn free_name(db: &mut Db, account: &str, name: &str) -> sqlx::Result<()> {
    for statement in [
        "UPDATE keys SET former_name = name, name = id WHERE account = ?1 AND name = ?2 AND state = 'Destroyed'",
        "DELETE FROM key_aliases WHERE account = ?1 AND alias = ?2
             AND key IN (SELECT id FROM keys WHERE account = ?1 AND state = 'Destroyed')",
    ] {
        execute!(db, statement; account, name).await?;
    }
    Ok(())
}

/// Retires the versions older than `newest` that nothing is under any more (rule K12): their material is destroyed. How
/// many there were.
pub(crate) async fn retire(db: &mut Db, key: &str, newest: u32) -> sqlx::Result<u64> {
    let retired = changed!(
        db,
        "UPDATE key_versions SET retired = ?3 WHERE key = ?1 AND version < ?2 AND retired IS NULL
             AND NOT EXISTS (SELECT 1 FROM lineages WHERE key = ?1 AND key_version = version)
             AND NOT EXISTS (SELECT 1 FROM data_keys WHERE key = ?1 AND key_version = version)";
        key, newest, clock::now()
    )
    .await?;
    for statement in [
        "UPDATE key_material SET wrapped = randomblob(length(wrapped)) WHERE key = ?1
             AND version IN (SELECT version FROM key_versions WHERE key = ?1 AND retired IS NOT NULL)",
        "DELETE FROM key_material WHERE key = ?1
             AND version IN (SELECT version FROM key_versions WHERE key = ?1 AND retired IS NOT NULL)",
    ] {
        execute!(db, statement; key).await?;
    }
    Ok(retired)
}

/// Enabled keys, of every account, of which something is under an older version than the newest, or whose older
/// versions have not been retired (rule K12).
pub(crate) async fn to_rewrap(db: &mut Db) -> sqlx::Result<Vec<KeyRow>> {
    rows!(
        db,
        select_keys!(
            "WHERE state = 'Enabled' AND (SELECT count(*) FROM key_versions
             WHERE key = keys.id AND retired IS NULL) > 1 ORDER BY id"
        )
    )
    .await
}

/// How many objects a key protects.
pub(crate) async fn count_resources(db: &mut Db, key: &str) -> sqlx::Result<i64> {
    value!(db, "SELECT protected FROM keys WHERE id = ?1"; key).await
}

/// A page of what a key protects, and where to go on.
pub(crate) async fn resources(db: &mut Db, key: &str, page: &Page) -> sqlx::Result<Listed<ResourceRow>> {
    let rows = rows!(
        db,
        "SELECT protected.id, kind,
                coalesce(disks.name, bin.name, snapshots.name, images.name, backups.name, reading.call) AS name,
                coalesce(disks.state, iif(bin.id IS NULL, NULL, 'deleted'), snapshots.state, images.state, reading.phase,
                    (SELECT CASE phase WHEN 'done' THEN 'available' WHEN 'copy' THEN 'creating' WHEN 'verify'
                     THEN 'creating' ELSE 'error' END FROM copies WHERE destination = backups.id)) AS state
         FROM protected
         LEFT JOIN disks ON disks.id = protected.id
         LEFT JOIN bin ON bin.id = protected.id
         LEFT JOIN snapshots ON snapshots.id = protected.id
         LEFT JOIN images ON images.id = protected.id
         LEFT JOIN backups ON backups.id = protected.id
         LEFT JOIN copies AS reading ON kind = 'copy' AND reading.source = protected.id AND reading.phase IN ('copy', 'verify')
         WHERE protected.key = ?1 AND protected.id > ?2 ORDER BY protected.id LIMIT ?3";
        key, &page.after, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &ResourceRow| &row.id))
}

/// The account's own keys whose fee for the month has not been paid, each with the last month of which it has (rule M03). Not those
/// that are going to be, or have been, destroyed; one whose deletion is cancelled owes all months since.
pub(crate) async fn owing(
    db: &mut Db,
    account: &str,
    month: &str,
) -> sqlx::Result<Vec<(String, Option<String>)>> {
    rows!(
        db,
        "SELECT id, fee_month FROM keys WHERE account = ?1 AND origin <> 'service'
             AND state NOT IN ('PendingDeletion', 'Destroyed') AND coalesce(fee_month, '') < ?2 ORDER BY created, id";
        account, month
    )
    .await
}

/// What has been paid for a month that has not come counts for this one: the clock was ahead.
pub(crate) async fn take_back_fee_months(db: &mut Db, account: &str, month: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE keys SET fee_month = ?2 WHERE account = ?1 AND fee_month > ?2";
        account, month
    )
    .await
}

/// Remembers that the fee for the month has been paid.
pub(crate) async fn set_fee_month(db: &mut Db, key: &str, month: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE keys SET fee_month = ?1 WHERE id = ?2"; month, key).await
}

/// The versions that have not been retired, in order.
pub(crate) async fn living_versions(db: &mut Db, key: &str) -> sqlx::Result<Vec<u32>> {
    values!(db, "SELECT version FROM key_material WHERE key = ?1 ORDER BY version"; key).await
}

/// Whether a key of the account has the name.
pub(crate) async fn has_name(db: &mut Db, account: &str, name: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT EXISTS (SELECT 1 FROM keys WHERE account = ?1 AND name = ?2)"; account, name).await
}

/// Wrapped material of a version, and whose it is.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct MaterialRow {
    pub(crate) account: String,
    pub(crate) key: String,
    pub(crate) version: u32,
    pub(crate) wrapped: Vec<u8>,
}

/// All material, of every account.
pub(crate) async fn all_material(db: &mut Db) -> sqlx::Result<Vec<MaterialRow>> {
    rows!(
        db,
        "SELECT account, key, version, wrapped FROM key_material JOIN keys ON keys.id = key_material.key"
    )
    .await
}

/// Puts material under another root key.
pub(crate) async fn set_material(db: &mut Db, key: &str, version: u32, wrapped: &[u8]) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE key_material SET wrapped = ?1 WHERE key = ?2 AND version = ?3";
        wrapped, key, version
    )
    .await
}

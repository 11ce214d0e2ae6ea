//! What is said once of a catalogue, and its accounts.

use sealblk_api::Role;
use sqlx::{FromRow, SqliteConnection};

use super::root_key_kind::RootKeyKind;
use crate::clock;

/// The catalogue's own row.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Meta {
    pub(crate) catalogue: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    pub(crate) profile: String,
    pub(crate) key_check: Vec<u8>,
    /// Where the root key comes from.
    pub(crate) root_key: RootKeyKind,
}

/// Numbers of an account's objects.
#[derive(Clone, Copy, Debug, FromRow)]
pub(crate) struct Counts {
    pub(crate) disks: i64,
    pub(crate) attached: i64,
    pub(crate) instances: i64,
}

/// Account of the user that ran `init`.
pub(crate) const OWNER: &str = "default";

/// Writes the row, and the account [`OWNER`] with this balance and `uid` as its owner in every role.
pub(crate) async fn insert(
    db: &mut SqliteConnection,
    meta: &Meta,
    uid: u32,
    balance: u64,
) -> Result<(), sqlx::Error> {
    let now = clock::now();
    sqlx::query("INSERT INTO meta (one, catalogue, region, zone, profile, key_check, root_key, created) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)")
        .bind(&meta.catalogue)
        .bind(&meta.region)
        .bind(&meta.zone)
        .bind(&meta.profile)
        .bind(&meta.key_check)
        .bind(meta.root_key)
        .bind(&now)
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO accounts (id, created, balance) VALUES (?1, ?2, ?3)")
        .bind(OWNER)
        .bind(&now)
        .bind(balance.cast_signed())
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO principals (uid, account) VALUES (?1, ?2)")
        .bind(uid)
        .bind(OWNER)
        .execute(&mut *db)
        .await?;
    for role in Role::ALL {
        sqlx::query("INSERT INTO roles (uid, role) VALUES (?1, ?2)")
            .bind(uid)
            .bind(role.name())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Reads the row.
pub(crate) async fn load(db: &mut SqliteConnection) -> Result<Meta, sqlx::Error> {
    sqlx::query_as("SELECT catalogue, region, zone, profile, key_check, root_key FROM meta")
        .fetch_one(db)
        .await
}

/// Reads the row, of a schema as old as the first.
pub(crate) async fn load_of_any_version(db: &mut SqliteConnection) -> Result<Meta, sqlx::Error> {
    let has_root_key: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pragma_table_info('meta') WHERE name = 'root_key')")
            .fetch_one(&mut *db)
            .await?;
    if has_root_key {
        return load(db).await;
    }
    sqlx::query_as("SELECT catalogue, region, zone, profile, key_check, 'file' AS root_key FROM meta")
        .fetch_one(db)
        .await
}

/// The account that a uid belongs to, if any.
pub(crate) async fn account_of(db: &mut SqliteConnection, uid: u32) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT account FROM principals WHERE uid = ?1")
        .bind(uid)
        .fetch_optional(db)
        .await
}

/// The user that ran `init`.
pub(crate) async fn owner(db: &mut SqliteConnection) -> Result<Option<u32>, sqlx::Error> {
    sqlx::query_scalar("SELECT uid FROM principals WHERE listed = 0")
        .fetch_optional(db)
        .await
}

/// Whether the account has activated the KMS (rule K01).
pub(crate) async fn is_activated(db: &mut SqliteConnection, account: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT activated IS NOT NULL FROM accounts WHERE id = ?1")
        .bind(account)
        .fetch_one(db)
        .await
}

/// Activates the KMS for the account; again is the same as once.
pub(crate) async fn activate(db: &mut SqliteConnection, account: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET activated = coalesce(activated, ?1) WHERE id = ?2")
        .bind(clock::now())
        .bind(account)
        .execute(db)
        .await?;
    Ok(())
}

/// Whether the disk service has been granted the use of the account's keys (rule K02).
pub(crate) async fn is_granted(db: &mut SqliteConnection, account: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT granted IS NOT NULL FROM accounts WHERE id = ?1")
        .bind(account)
        .fetch_one(db)
        .await
}

/// Grants it, or takes it back; again is the same as once.
pub(crate) async fn set_granted(
    db: &mut SqliteConnection,
    account: &str,
    granted: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET granted = CASE WHEN ?1 THEN coalesce(granted, ?2) END WHERE id = ?3")
        .bind(granted)
        .bind(clock::now())
        .bind(account)
        .execute(db)
        .await?;
    Ok(())
}

/// Counts an account's objects.
pub(crate) async fn counts(db: &mut SqliteConnection, account: &str) -> Result<Counts, sqlx::Error> {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM disks WHERE account = ?1) AS disks,
                (SELECT count(DISTINCT disk) FROM attachments WHERE account = ?1) AS attached,
                (SELECT count(*) FROM instances WHERE account = ?1 AND made) AS instances",
    )
    .bind(account)
    .fetch_one(db)
    .await
}

/// The next number for an attachment, which none had before.
pub(crate) async fn next_serial(db: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("UPDATE meta SET next_serial = next_serial + 1 RETURNING next_serial - 1")
        .fetch_one(db)
        .await
}

/// Ids of all accounts.
pub(crate) async fn accounts(db: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM accounts ORDER BY id")
        .fetch_all(db)
        .await
}

/// Replaces the known object by which the root key is recognised.
pub(crate) async fn set_key_check(db: &mut SqliteConnection, check: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE meta SET key_check = ?1")
        .bind(check)
        .execute(db)
        .await?;
    Ok(())
}

/// Changes where the root key comes from.
pub(crate) async fn set_root_key(db: &mut SqliteConnection, kind: RootKeyKind) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE meta SET root_key = ?1")
        .bind(kind)
        .execute(db)
        .await?;
    Ok(())
}

//! What is said once of a catalogue, and its accounts.

use sealblk_api::Role;
use sqlx::FromRow;

use super::root_key_kind::RootKeyKind;
use super::{Db, execute, find_value, row, value, values};
use crate::clock;

/// The catalogue's own row.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Meta {
    pub(crate) catalogue: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    /// Name of the policy profile.
    pub(crate) profile: String,
    /// Its switches, as [`crate::profile::stored`] keeps them; none in a catalogue of an earlier version.
    pub(crate) switches: Option<String>,
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
pub(crate) async fn insert(db: &mut Db, meta: &Meta, uid: u32, balance: u64) -> sqlx::Result<()> {
    let now = clock::now();
    execute!(
        db,
        "INSERT INTO meta (one, catalogue, region, zone, profile, key_check, root_key, created, switches)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        &meta.catalogue, &meta.region, &meta.zone, &meta.profile, &meta.key_check, meta.root_key, &now,
        &meta.switches
    )
    .await?;
    execute!(
        db,
        "INSERT INTO accounts (id, created, balance) VALUES (?1, ?2, ?3)";
        OWNER, &now, balance.cast_signed()
    )
    .await?;
    execute!(db, "INSERT INTO principals (uid, account) VALUES (?1, ?2)"; uid, OWNER).await?;
    for role in Role::ALL {
        execute!(db, "INSERT INTO roles (uid, role) VALUES (?1, ?2)"; uid, role.name()).await?;
    }
    Ok(())
}

/// Reads the row.
pub(crate) async fn load(db: &mut Db) -> sqlx::Result<Meta> {
    row!(
        db,
        "SELECT catalogue, region, zone, profile, switches, key_check, root_key FROM meta"
    )
    .await
}

/// Reads the row, of a schema as old as the first.
pub(crate) async fn load_of_any_version(db: &mut Db) -> sqlx::Result<Meta> {
    let has_root_key: bool = value!(
        db,
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info('meta') WHERE name = 'root_key')"
    )
    .await?;
    let statement = match has_root_key {
        true => "SELECT catalogue, region, zone, profile, NULL AS switches, key_check, root_key FROM meta",
        false => {
            "SELECT catalogue, region, zone, profile, NULL AS switches, key_check, 'file' AS root_key FROM meta"
        }
    };
    row!(db, statement).await
}

/// Keeps the profile's switches.
pub(crate) async fn set_switches(db: &mut Db, switches: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE meta SET switches = ?1"; switches).await
}

/// The account that a uid belongs to, if any.
pub(crate) async fn account_of(db: &mut Db, uid: u32) -> sqlx::Result<Option<String>> {
    find_value!(db, "SELECT account FROM principals WHERE uid = ?1"; uid).await
}

/// The user that ran `init`.
pub(crate) async fn owner(db: &mut Db) -> sqlx::Result<Option<u32>> {
    find_value!(db, "SELECT uid FROM principals WHERE listed = 0").await
}

/// Whether the account has activated the KMS (rule K01).
pub(crate) async fn is_activated(db: &mut Db, account: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT activated IS NOT NULL FROM accounts WHERE id = ?1"; account).await
}

/// Activates the KMS for the account; again is the same as once.
pub(crate) async fn activate(db: &mut Db, account: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE accounts SET activated = coalesce(activated, ?1) WHERE id = ?2";
        clock::now(), account
    )
    .await
}

/// Whether the disk service has been granted the use of the account's keys (rule K02).
pub(crate) async fn is_granted(db: &mut Db, account: &str) -> sqlx::Result<bool> {
    value!(db, "SELECT granted IS NOT NULL FROM accounts WHERE id = ?1"; account).await
}

/// Grants it, or takes it back; again is the same as once.
pub(crate) async fn set_granted(db: &mut Db, account: &str, granted: bool) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE accounts SET granted = CASE WHEN ?1 THEN coalesce(granted, ?2) END WHERE id = ?3";
        granted, clock::now(), account
    )
    .await
}

/// Counts an account's objects.
pub(crate) async fn counts(db: &mut Db, account: &str) -> sqlx::Result<Counts> {
    row!(
        db,
        "SELECT (SELECT count(*) FROM disks WHERE account = ?1) AS disks,
                (SELECT count(DISTINCT disk) FROM attachments WHERE account = ?1) AS attached,
                (SELECT count(*) FROM instances WHERE account = ?1 AND made) AS instances";
        account
    )
    .await
}

/// The next number for an attachment, which none had before.
pub(crate) async fn next_serial(db: &mut Db) -> sqlx::Result<i64> {
    value!(
        db,
        "UPDATE meta SET next_serial = next_serial + 1 RETURNING next_serial - 1"
    )
    .await
}

/// Ids of all accounts.
pub(crate) async fn accounts(db: &mut Db) -> sqlx::Result<Vec<String>> {
    values!(db, "SELECT id FROM accounts ORDER BY id").await
}

/// Replaces the known object by which the root key is recognised.
pub(crate) async fn set_key_check(db: &mut Db, check: &[u8]) -> sqlx::Result<()> {
    execute!(db, "UPDATE meta SET key_check = ?1"; check).await
}

/// Changes where the root key comes from.
pub(crate) async fn set_root_key(db: &mut Db, kind: RootKeyKind) -> sqlx::Result<()> {
    execute!(db, "UPDATE meta SET root_key = ?1"; kind).await
}

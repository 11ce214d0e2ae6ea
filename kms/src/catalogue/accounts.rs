//! Accounts with their prepaid balances, and who may act for them.

use sqlx::FromRow;

use super::{Db, Listed, Page, changed, execute, find_row, rows, values};
use crate::clock;

/// An account. Amounts are micro-units.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct AccountRow {
    pub(crate) id: String,
    pub(crate) balance: i64,
    pub(crate) activated: Option<String>,
    pub(crate) granted: Option<String>,
    pub(crate) created: String,
    /// Of all its metered calls.
    pub(crate) charged: i64,
}

/// A user id that may act for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) uid: u32,
    pub(crate) account: String,
    /// Names of roles.
    pub(crate) roles: Vec<&'static str>,
}

macro_rules! select_accounts {
    ($rest:literal) => {
        concat!(
            "SELECT id, balance, activated, granted, created,
                    (SELECT coalesce(sum(charged), 0) FROM usage WHERE account = accounts.id) AS charged
             FROM accounts ",
            $rest
        )
    };
}

/// The account of this id.
pub(crate) async fn find(db: &mut Db, id: &str) -> sqlx::Result<Option<AccountRow>> {
    find_row!(db, select_accounts!("WHERE id = ?1"); id).await
}

/// A page of all accounts, or of this one alone, and where to go on.
pub(crate) async fn list(db: &mut Db, only: Option<&str>, page: &Page) -> sqlx::Result<Listed<AccountRow>> {
    let rows = rows!(
        db,
        select_accounts!("WHERE id > ?1 AND id = coalesce(?2, id) ORDER BY id LIMIT ?3");
        &page.after, only, page.probe()
    )
    .await?;
    Ok(page.cut(rows, |row: &AccountRow| &row.id))
}

/// Adds to a balance.
pub(crate) async fn credit(db: &mut Db, id: &str, amount: i64) -> sqlx::Result<()> {
    execute!(db, "UPDATE accounts SET balance = balance + ?1 WHERE id = ?2"; amount, id).await
}

/// Takes from a balance, if it suffices; whether it did.
pub(crate) async fn charge(db: &mut Db, id: &str, amount: i64) -> sqlx::Result<bool> {
    let changed = changed!(
        db,
        "UPDATE accounts SET balance = balance - ?1 WHERE id = ?2 AND balance >= ?1";
        amount, id
    )
    .await?;
    Ok(changed == 1)
}

/// Roles of a user id.
pub(crate) async fn roles(db: &mut Db, uid: u32) -> sqlx::Result<Vec<String>> {
    values!(db, "SELECT role FROM roles WHERE uid = ?1"; uid).await
}

/// All user ids that may act for an account, each with whether it comes from the accounts file.
pub(crate) async fn uids(db: &mut Db) -> sqlx::Result<Vec<(u32, bool)>> {
    rows!(db, "SELECT uid, listed FROM principals").await
}

/// User ids of the accounts file.
pub(crate) async fn listed(db: &mut Db) -> sqlx::Result<Vec<u32>> {
    values!(db, "SELECT uid FROM principals WHERE listed = 1").await
}

/// Forgets the principals of the accounts file.
pub(crate) async fn forget_listed(db: &mut Db) -> sqlx::Result<()> {
    for statement in [
        "DELETE FROM roles WHERE uid IN (SELECT uid FROM principals WHERE listed = 1)",
        "DELETE FROM principals WHERE listed = 1",
    ] {
        execute!(db, statement).await?;
    }
    Ok(())
}

/// Adds a principal of the accounts file, and its account if that is new. Its user id is no other principal's.
pub(crate) async fn insert_listed(db: &mut Db, new: &Principal) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO accounts (id, created) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        &new.account, clock::now()
    )
    .await?;
    execute!(
        db,
        "INSERT INTO principals (uid, account, listed) VALUES (?1, ?2, 1)";
        new.uid, &new.account
    )
    .await?;
    for role in &new.roles {
        execute!(db, "INSERT INTO roles (uid, role) VALUES (?1, ?2)"; new.uid, role).await?;
    }
    Ok(())
}

//! Accounts with their prepaid balances, and who may act for them.

use sqlx::{FromRow, SqliteConnection};

use super::Page;
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
pub(crate) async fn find(db: &mut SqliteConnection, id: &str) -> Result<Option<AccountRow>, sqlx::Error> {
    sqlx::query_as(select_accounts!("WHERE id = ?1"))
        .bind(id)
        .fetch_optional(db)
        .await
}

/// A page of all accounts, or of this one alone, and where to go on.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    only: Option<&str>,
    page: &Page,
) -> Result<(Vec<AccountRow>, Option<String>), sqlx::Error> {
    let mut rows: Vec<AccountRow> = sqlx::query_as(select_accounts!(
        "WHERE id > ?1 AND id = coalesce(?2, id) ORDER BY id LIMIT ?3"
    ))
    .bind(&page.after)
    .bind(only)
    .bind(page.probe())
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut rows, |row| &row.id);
    Ok((rows, next))
}

/// Adds to a balance.
pub(crate) async fn credit(db: &mut SqliteConnection, id: &str, amount: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET balance = balance + ?1 WHERE id = ?2")
        .bind(amount)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Takes from a balance, if it suffices; whether it did.
pub(crate) async fn charge(db: &mut SqliteConnection, id: &str, amount: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE accounts SET balance = balance - ?1 WHERE id = ?2 AND balance >= ?1")
        .bind(amount)
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Roles of a user id.
pub(crate) async fn roles(db: &mut SqliteConnection, uid: u32) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT role FROM roles WHERE uid = ?1")
        .bind(uid)
        .fetch_all(db)
        .await
}

/// All user ids that may act for an account, each with whether it comes from the accounts file.
pub(crate) async fn uids(db: &mut SqliteConnection) -> Result<Vec<(u32, bool)>, sqlx::Error> {
    sqlx::query_as("SELECT uid, listed FROM principals")
        .fetch_all(db)
        .await
}

/// Forgets the principals of the accounts file.
pub(crate) async fn forget_listed(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM roles WHERE uid IN (SELECT uid FROM principals WHERE listed = 1)",
        "DELETE FROM principals WHERE listed = 1",
    ] {
        sqlx::query(statement).execute(&mut *db).await?;
    }
    Ok(())
}

/// Adds a principal of the accounts file, and its account if that is new. Its user id is no other principal's.
pub(crate) async fn insert_listed(db: &mut SqliteConnection, new: &Principal) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO accounts (id, created) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .bind(&new.account)
        .bind(clock::now())
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO principals (uid, account, listed) VALUES (?1, ?2, 1)")
        .bind(new.uid)
        .bind(&new.account)
        .execute(&mut *db)
        .await?;
    for role in &new.roles {
        sqlx::query("INSERT INTO roles (uid, role) VALUES (?1, ?2)")
            .bind(new.uid)
            .bind(role)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

//! What is metered: calls and months of keys, by month, with what was taken from the balance for them (rules M01 to M03).

use sqlx::FromRow;

use super::{Db, execute, find_value, rows, value, values};

/// What an account has had of a kind in a month.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct UsageRow {
    pub(crate) month: String,
    pub(crate) region: String,
    pub(crate) kind: String,
    pub(crate) calls: i64,
    /// In micro-units.
    pub(crate) charged: i64,
}

/// Counts one of a kind in the month, with what was taken from the balance for it.
pub(crate) async fn count(
    db: &mut Db,
    account: &str,
    region: &str,
    month: &str,
    kind: &str,
    charged: i64,
) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO usage (account, region, month, kind, calls, charged) VALUES (?1, ?2, ?3, ?4, 1, ?5)
         ON CONFLICT DO UPDATE SET calls = calls + 1, charged = charged + excluded.charged";
        account, region, month, kind, charged
    )
    .await
}

/// So many calls count less, and so much less was taken for them.
pub(super) async fn take_back(
    db: &mut Db,
    (account, region, month, kind): (&str, &str, &str, &str),
    (calls, charged): (i64, i64),
) -> sqlx::Result<()> {
    execute!(
        db,
        "UPDATE usage SET calls = calls - ?5, charged = charged - ?6
         WHERE account = ?1 AND region = ?2 AND month = ?3 AND kind = ?4";
        account, region, month, kind, calls, charged
    )
    .await
}

/// Keys' months after this one do not count any more: what was taken from the balance for them.
pub(crate) async fn take_back_key_months(
    db: &mut Db,
    account: &str,
    region: &str,
    month: &str,
) -> sqlx::Result<i64> {
    let charged: Vec<i64> = values!(
        db,
        "DELETE FROM usage WHERE account = ?1 AND region = ?2 AND month > ?3 AND kind = 'key-month'
         RETURNING charged";
        account, region, month
    )
    .await?;
    Ok(charged.iter().sum())
}

/// A kind of call for which at least `price` was taken in the month.
pub(super) async fn paid_kind(
    db: &mut Db,
    account: &str,
    region: &str,
    month: &str,
    price: i64,
) -> sqlx::Result<Option<String>> {
    find_value!(
        db,
        "SELECT kind FROM usage WHERE account = ?1 AND region = ?2 AND month = ?3 AND charged >= ?4
         AND kind <> 'key-month' ORDER BY kind LIMIT 1";
        account, region, month, price
    )
    .await
}

/// What was taken for metered calls of an account in a month, over all regions.
pub(crate) async fn charged_in(db: &mut Db, account: &str, month: &str) -> sqlx::Result<i64> {
    value!(
        db,
        "SELECT coalesce(sum(charged), 0) FROM usage WHERE account = ?1 AND month = ?2 AND kind <> 'key-month'";
        account, month
    )
    .await
}

/// Metered calls of an account in a month, over all regions.
pub(crate) async fn calls_in(db: &mut Db, account: &str, month: &str) -> sqlx::Result<i64> {
    value!(
        db,
        "SELECT coalesce(sum(calls), 0) FROM usage WHERE account = ?1 AND month = ?2 AND kind <> 'key-month'";
        account, month
    )
    .await
}

/// What an account has had, newest month first.
pub(crate) async fn of_account(db: &mut Db, account: &str) -> sqlx::Result<Vec<UsageRow>> {
    rows!(
        db,
        "SELECT month, region, kind, calls, charged FROM usage WHERE account = ?1 AND calls > 0
         ORDER BY month DESC, region, kind";
        account
    )
    .await
}

//! Tokens of creating calls, and what was answered.

use sqlx::FromRow;

use super::{Db, execute, find_row};

/// A token that a caller gave.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct TokenRow {
    pub(crate) account: String,
    pub(crate) token: String,
    /// SHA-256 of what was asked for.
    pub(crate) digest: Vec<u8>,
    pub(crate) call: String,
    /// Id of what is created.
    pub(crate) object: String,
    /// Id of the request that creates it.
    pub(crate) request: String,
    /// JSON; none until the call has ended.
    pub(crate) answer: Option<String>,
    pub(crate) created: String,
    /// When the token was given, by the seen time, in milliseconds.
    pub(crate) seen: i64,
}

/// The account's token, if it was given since `oldest`, of the seen time.
pub(crate) async fn find(
    db: &mut Db,
    account: &str,
    token: &str,
    oldest: i64,
) -> sqlx::Result<Option<TokenRow>> {
    find_row!(
        db,
        "SELECT * FROM tokens WHERE account = ?1 AND token = ?2 AND seen >= ?3";
        account, token, oldest
    )
    .await
}

/// Stores a token, and forgets those of the account that are older than `oldest` or more than `most`.
pub(crate) async fn insert(db: &mut Db, row: &TokenRow, oldest: i64, most: u32) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM tokens WHERE account = ?1 AND seen < ?2"; &row.account, oldest).await?;
    execute!(
        db,
        "INSERT INTO tokens (account, token, digest, call, object, request, answer, created, seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        &row.account, &row.token, &row.digest, &row.call, &row.object, &row.request, &row.answer,
        &row.created, row.seen
    )
    .await?;
    execute!(
        db,
        "DELETE FROM tokens WHERE account = ?1 AND rowid IN
             (SELECT rowid FROM tokens WHERE account = ?1 ORDER BY seen DESC, rowid DESC LIMIT -1 OFFSET ?2)";
        &row.account, most
    )
    .await
}

/// Stores what the request that gave the token was answered.
pub(crate) async fn set_answer(db: &mut Db, request: &str, answer: &str) -> sqlx::Result<()> {
    execute!(db, "UPDATE tokens SET answer = ?1 WHERE request = ?2"; answer, request).await
}

/// Forgets the token that came with this request.
pub(crate) async fn delete(db: &mut Db, request: &str) -> sqlx::Result<()> {
    execute!(db, "DELETE FROM tokens WHERE request = ?1"; request).await
}

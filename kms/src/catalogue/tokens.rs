//! Tokens of creating calls, and what was answered.

use sqlx::{FromRow, SqliteConnection};

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
    db: &mut SqliteConnection,
    account: &str,
    token: &str,
    oldest: i64,
) -> Result<Option<TokenRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM tokens WHERE account = ?1 AND token = ?2 AND seen >= ?3")
        .bind(account)
        .bind(token)
        .bind(oldest)
        .fetch_optional(db)
        .await
}

/// Stores a token, and forgets those of the account that are older than `oldest` or more than `most`.
pub(crate) async fn insert(
    db: &mut SqliteConnection,
    row: &TokenRow,
    oldest: i64,
    most: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM tokens WHERE account = ?1 AND seen < ?2")
        .bind(&row.account)
        .bind(oldest)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO tokens (account, token, digest, call, object, request, answer, created, seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(&row.account)
    .bind(&row.token)
    .bind(&row.digest)
    .bind(&row.call)
    .bind(&row.object)
    .bind(&row.request)
    .bind(&row.answer)
    .bind(&row.created)
    .bind(row.seen)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "DELETE FROM tokens WHERE account = ?1 AND rowid IN
             (SELECT rowid FROM tokens WHERE account = ?1 ORDER BY seen DESC, rowid DESC LIMIT -1 OFFSET ?2)",
    )
    .bind(&row.account)
    .bind(most)
    .execute(db)
    .await?;
    Ok(())
}

/// Stores what the request that gave the token was answered.
pub(crate) async fn set_answer(
    db: &mut SqliteConnection,
    request: &str,
    answer: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE tokens SET answer = ?1 WHERE request = ?2")
        .bind(answer)
        .bind(request)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets the token that came with this request.
pub(crate) async fn delete(db: &mut SqliteConnection, request: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM tokens WHERE request = ?1")
        .bind(request)
        .execute(db)
        .await?;
    Ok(())
}

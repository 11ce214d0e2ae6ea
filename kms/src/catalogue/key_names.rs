//! Aliases and tags of keys.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

/// The key's aliases, in order.
pub(crate) async fn aliases(db: &mut SqliteConnection, key: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT alias FROM key_aliases WHERE key = ?1 ORDER BY alias")
        .bind(key)
        .fetch_all(db)
        .await
}

/// Gives the alias to the key; another key of the account that had it loses it.
pub(crate) async fn set_alias(
    db: &mut SqliteConnection,
    account: &str,
    alias: &str,
    key: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO key_aliases (account, alias, key) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET key = excluded.key",
    )
    .bind(account)
    .bind(alias)
    .bind(key)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes an alias from the key; whether it had it.
pub(crate) async fn remove_alias(
    db: &mut SqliteConnection,
    key: &str,
    alias: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM key_aliases WHERE key = ?1 AND alias = ?2")
        .bind(key)
        .bind(alias)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The key's tags.
pub(crate) async fn tags(
    db: &mut SqliteConnection,
    key: &str,
) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT name, value FROM key_tags WHERE key = ?1")
        .bind(key)
        .fetch_all(db)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Sets a tag, or removes it where there is no value.
pub(crate) async fn set_tag(
    db: &mut SqliteConnection,
    key: &str,
    name: &str,
    value: Option<&str>,
) -> Result<(), sqlx::Error> {
    let statement = match value {
        Some(_) => {
            "INSERT INTO key_tags (key, name, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET value = excluded.value"
        }
        None => "DELETE FROM key_tags WHERE key = ?1 AND name = ?2 AND ?3 IS NULL",
    };
    sqlx::query(statement)
        .bind(key)
        .bind(name)
        .bind(value)
        .execute(db)
        .await?;
    Ok(())
}

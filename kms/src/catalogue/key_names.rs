//! Aliases and tags of keys.

use std::collections::{BTreeMap, HashMap};

use sqlx::SqliteConnection;

/// What a key is called besides its name.
#[derive(Debug, Default)]
pub(crate) struct KeyNames {
    /// In order.
    pub(crate) aliases: Vec<String>,
    pub(crate) tags: BTreeMap<String, String>,
}

/// The aliases and tags of these keys, by key; of one that has none there is nothing.
pub(crate) async fn of_keys(
    db: &mut SqliteConnection,
    keys: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, KeyNames>, sqlx::Error> {
    let keys = super::several(keys);
    let mut names: HashMap<String, KeyNames> = HashMap::new();
    let aliases: Vec<(String, String)> = sqlx::query_as(
        "SELECT key, alias FROM key_aliases WHERE key IN (SELECT value FROM json_each(?1)) ORDER BY alias",
    )
    .bind(&keys)
    .fetch_all(&mut *db)
    .await?;
    for (key, alias) in aliases {
        names.entry(key).or_default().aliases.push(alias);
    }
    let tags: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT key, name, value FROM key_tags WHERE key IN (SELECT value FROM json_each(?1))",
    )
    .bind(&keys)
    .fetch_all(db)
    .await?;
    for (key, name, value) in tags {
        names.entry(key).or_default().tags.insert(name, value);
    }
    Ok(names)
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

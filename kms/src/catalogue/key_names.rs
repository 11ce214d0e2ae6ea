//! Aliases and tags of keys.

use std::collections::{BTreeMap, HashMap};

use super::{Db, changed, execute, rows};

/// What a key is called besides its name.
#[derive(Debug, Default)]
pub(crate) struct KeyNames {
    /// In order.
    pub(crate) aliases: Vec<String>,
    pub(crate) tags: BTreeMap<String, String>,
}

/// The aliases and tags of these keys, by key; of one that has none there is nothing.
pub(crate) async fn of_keys(
    db: &mut Db,
    keys: impl IntoIterator<Item = &str>,
) -> sqlx::Result<HashMap<String, KeyNames>> {
    let keys = super::several(keys);
    let mut names: HashMap<String, KeyNames> = HashMap::new();
    let aliases: Vec<(String, String)> = rows!(
        db,
        "SELECT key, alias FROM key_aliases WHERE key IN (SELECT value FROM json_each(?1)) ORDER BY alias";
        &keys
    )
    .await?;
    for (key, alias) in aliases {
        names.entry(key).or_default().aliases.push(alias);
    }
    let tags: Vec<(String, String, String)> = rows!(
        db,
        "SELECT key, name, value FROM key_tags WHERE key IN (SELECT value FROM json_each(?1))";
        &keys
    )
    .await?;
    for (key, name, value) in tags {
        names.entry(key).or_default().tags.insert(name, value);
    }
    Ok(names)
}

/// Gives the alias to the key; another key of the account that had it loses it.
pub(crate) async fn set_alias(db: &mut Db, account: &str, alias: &str, key: &str) -> sqlx::Result<()> {
    execute!(
        db,
        "INSERT INTO key_aliases (account, alias, key) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET key = excluded.key";
        account, alias, key
    )
    .await
}

/// Takes an alias from the key; whether it had it.
pub(crate) async fn remove_alias(db: &mut Db, key: &str, alias: &str) -> sqlx::Result<bool> {
    Ok(changed!(db, "DELETE FROM key_aliases WHERE key = ?1 AND alias = ?2"; key, alias).await? == 1)
}

/// Sets a tag, or removes it where there is no value.
pub(crate) async fn set_tag(db: &mut Db, key: &str, name: &str, value: Option<&str>) -> sqlx::Result<()> {
    let statement = match value {
        Some(_) => {
            "INSERT INTO key_tags (key, name, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET value = excluded.value"
        }
        None => "DELETE FROM key_tags WHERE key = ?1 AND name = ?2 AND ?3 IS NULL",
    };
    execute!(db, statement; key, name, value).await
}

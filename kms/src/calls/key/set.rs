//! `PATCH /v1/keys/{key}`: aliases and tags (rule K08).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::keys::KeyRow;
use crate::catalogue::{Write, key_names, keys};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::keys::change;
use crate::views;
use crate::{id, limits};
use sealblk_api::{self, Key};

/// Gives a key aliases and tags, and takes them away.
pub(crate) struct SetKey {
    /// Id, name or alias.
    pub(crate) key: String,
    /// The call's body.
    pub(crate) options: sealblk_api::SetKey,
}

impl Operation for SetKey {
    const CALL: &'static str = "key.set";
    type Decided = String;
    type Answer = Key;

    fn object(&self) -> &str {
        &self.key
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let key = change::find(caller, tx, &self.key).await?;
        for alias in &self.options.remove_aliases {
            if !key_names::remove_alias(tx, &key.id, alias).await? {
                let text = format!("key {} has no alias {alias:?}", key.id);
                return Err(Error::new(Code::NotFound, text));
            }
        }
        for alias in &self.options.add_aliases {
            add_alias(tx, &key, alias).await?;
        }
        for (name, value) in &self.options.tags {
            check_tag(name, value.as_deref())?;
            key_names::set_tag(tx, &key.id, name, value.as_deref()).await?;
        }
        check_numbers(tx, &key).await?;
        Ok(key.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Key> {
        views::key::show(kms, caller, &id).await
    }
}

async fn add_alias(tx: &mut Write, key: &KeyRow, alias: &str) -> Result<()> {
    id::check_name(alias)?;
    keys::free_name(tx, &key.account, alias).await?;
    if keys::has_name(tx, &key.account, alias).await? {
        let text = format!("a key has the name {alias:?}: choose another alias");
        return Err(Error::new(Code::NameTaken, text));
    }
    Ok(key_names::set_alias(tx, &key.account, alias, &key.id).await?)
}

fn check_tag(name: &str, value: Option<&str>) -> Result<()> {
    let plain = |text: &str, most: usize| text.chars().count() <= most && !text.chars().any(char::is_control);
    let (name_most, value_most) = (limits::TAG_NAME_CHARACTERS, limits::TAG_VALUE_CHARACTERS);
    if name.is_empty() || !plain(name, name_most) || !plain(value.unwrap_or_default(), value_most) {
        let text = format!(
            "{name:?} cannot be a tag with this value: a name has 1 to {name_most} characters, a value up to \
             {value_most}, and none of them is a control character"
        );
        return Err(Error::new(Code::InvalidTag, text));
    }
    Ok(())
}

async fn check_numbers(tx: &mut Write, key: &KeyRow) -> Result<()> {
    let names = key_names::of_keys(tx, [key.id.as_str()]).await?;
    let (aliases, tags) = names
        .get(&key.id)
        .map_or((0, 0), |names| (names.aliases.len(), names.tags.len()));
    if aliases > limits::ALIASES || tags > limits::TAGS {
        let text = format!(
            "a key has at most {} aliases and {} tags: remove some",
            limits::ALIASES,
            limits::TAGS
        );
        return Err(Error::new(Code::TooMany, text));
    }
    Ok(())
}

//! The accounts file: which user ids act for which accounts, and in which roles.
//!
//! ```json
//! {"principals": [{"uid": 1001, "account": "acme", "roles": ["operator", "auditor"]}],
//!  "accounts": {"acme": {"paths": ["/srv/acme", "/dev/mapper/acme-"], "limits": {"disks": 100, "copies": 4}}}}
//! ```
//!
//! and which paths on the host an account's callers may name: [`Prefix`], and how much it may have: [`Quota`].
//!
//! It is read at each start. Who is not in it any more has no access; an account stays with all that it has. The user
//! that ran `init` has all roles in the account `default`, and is not in the file.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sealblk_api::Role;
use serde::Deserialize;

use crate::audit::{self, Caller, Decision, Facts};
use crate::catalogue::Catalogue;
use crate::catalogue::accounts::{self, Principal};
use crate::catalogue::meta;
use crate::context::quotas::{Quota, Quotas};
use crate::error::{Code, Error, Result};
use crate::host::aside;
use crate::host::paths::{Permitted, Prefix};
use crate::id::{self, Kind};
use crate::limits;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    principals: Vec<Entry>,
    #[serde(default)]
    accounts: BTreeMap<String, Account>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    limits: Limits,
}

/// How much the account may have; what is left out is as it is without a file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    disks: Option<u32>,
    instances: Option<u32>,
    images: Option<u32>,
    backups: Option<u32>,
    copies: Option<u32>,
    schedules: Option<u32>,
}

impl From<&Limits> for Quota {
    fn from(limits: &Limits) -> Self {
        let without = Quota::default();
        Quota {
            disks: limits.disks.unwrap_or(without.disks),
            instances: limits.instances.unwrap_or(without.instances),
            images: limits.images.unwrap_or(without.images),
            backups: limits.backups.unwrap_or(without.backups),
            copies: limits.copies.unwrap_or(without.copies),
            schedules: limits.schedules.unwrap_or(without.schedules),
        }
    }
}

/// What the file permits the accounts.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    /// Paths that their callers may name.
    pub(crate) paths: Permitted,
    /// How much they may have.
    pub(crate) quotas: Quotas,
}

/// What the file says.
#[derive(Debug, Default)]
struct Listed {
    principals: Vec<Principal>,
    allowed: Allowed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    uid: u32,
    account: String,
    roles: Vec<String>,
}

/// Gives the catalogue the principals of the file, or takes those of an earlier one away where there is none; and gives what the
/// accounts are permitted.
///
/// # Errors
/// [`Code::InvalidAccounts`], and the catalogue's; then nothing is changed.
pub(crate) async fn apply(catalogue: &Catalogue, path: Option<&Path>) -> Result<Allowed> {
    let Listed { principals, allowed } = match path {
        Some(path) => read(path)?,
        None => Listed::default(),
    };
    let mut tx = catalogue.write().await?;
    let before = accounts::listed(&mut tx).await?;
    accounts::forget_listed(&mut tx).await?;
    for principal in &principals {
        if meta::account_of(&mut tx, principal.uid).await?.is_some() {
            let text = format!(
                "uid {} is the owner, or is listed twice: each other user is listed once, the owner not at all",
                principal.uid
            );
            return Err(Error::new(Code::InvalidAccounts, text));
        }
        accounts::insert_listed(&mut tx, principal).await?;
    }
    // Where there is no file and has been none, nothing is said.
    if path.is_some() || !before.is_empty() {
        let caller = Caller {
            account: meta::OWNER.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id().cast_signed(),
            request: id::new(Kind::Request)?,
            facts: Facts::default(),
        };
        let now: Vec<_> = principals.iter().map(|principal| principal.uid).collect();
        let without = |all: &[u32], others: &[u32]| -> Vec<u32> {
            all.iter().copied().filter(|uid| !others.contains(uid)).collect()
        };
        caller.facts.note("principals", now.len());
        caller.facts.note("added", without(&now, &before));
        caller.facts.note("removed", without(&before, &now));
        let object = path.map_or("none".into(), Path::to_string_lossy);
        audit::append(&mut tx, &caller, "accounts.load", &object, Decision::Allowed).await?;
    }
    tx.commit().await?;
    // A start waits for no storage.
    let prefixes = allowed.paths.prefixes().cloned().collect();
    tokio::spawn(warn_of_names(prefixes));
    Ok(allowed)
}

/// What is there already need not be the only one whose name begins so.
async fn warn_of_names(prefixes: Vec<Prefix>) {
    for prefix in prefixes {
        let is_name = |path: &Path| path.exists() && !path.is_dir();
        let is_name = aside::look(prefix.path(), limits::LOOK_TIME, is_name).await;
        if is_name == Some(true) {
            log::warn!(
                "{prefix} in the accounts file is no directory, and so permits all names that begin with it, such as {prefix}0"
            );
        }
    }
}

fn read(path: &Path) -> Result<Listed> {
    let unreadable = |error: io::Error| {
        let text = format!("the accounts file {} cannot be read", path.display());
        Error::because(Code::InvalidAccounts, text, error)
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    check_file(&file, path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(limits::ACCOUNTS_BYTES)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    parse(&text)
}

/// Whoever can write to the file can act for every account.
fn check_file(file: &File, path: &Path) -> io::Result<()> {
    let metadata = file.metadata()?;
    let refuse = |why: &str| {
        let text = format!("{} {why}", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    };
    if !metadata.is_file() {
        return refuse("is no regular file");
    }
    if metadata.len() > limits::ACCOUNTS_BYTES {
        return refuse("is too large");
    }
    let own = rustix::process::geteuid().as_raw();
    if (metadata.uid() != own && metadata.uid() != 0) || metadata.mode() & 0o022 != 0 {
        return refuse("must belong to this user or root, and nobody else may write to it");
    }
    Ok(())
}

fn parse(text: &str) -> Result<Listed> {
    let document: Document = serde_json::from_str(text).map_err(|error| {
        Error::because(
            Code::InvalidAccounts,
            "the accounts file cannot be understood",
            error,
        )
    })?;
    if document.principals.len() > limits::PRINCIPALS {
        let text = format!(
            "the accounts file has more than {} principals",
            limits::PRINCIPALS
        );
        return Err(Error::new(Code::InvalidAccounts, text));
    }
    Ok(Listed {
        principals: document
            .principals
            .into_iter()
            .map(principal)
            .collect::<Result<_>>()?,
        allowed: allowed(document.accounts)?,
    })
}

fn allowed(accounts: BTreeMap<String, Account>) -> Result<Allowed> {
    let mut allowed = Allowed::default();
    for (account, entry) in accounts {
        let invalid = |why: String| {
            let text = format!("the accounts file's account {account:?}: {why}");
            Error::new(Code::InvalidAccounts, text)
        };
        id::check_name(&account).map_err(|error| invalid(error.to_string()))?;
        if entry.paths.len() > limits::ACCOUNT_PATHS {
            return Err(invalid(format!(
                "it has more than {} paths",
                limits::ACCOUNT_PATHS
            )));
        }
        let prefixes = entry.paths.iter().map(|text| {
            let why = || format!("{text:?} is not an absolute path without `.` and `..`");
            Prefix::parse(text).ok_or_else(|| invalid(why()))
        });
        let prefixes = prefixes.collect::<Result<_>>()?;
        allowed.quotas.insert(account.clone(), Quota::from(&entry.limits));
        allowed.paths.insert(account, prefixes);
    }
    Ok(allowed)
}

fn principal(entry: Entry) -> Result<Principal> {
    let invalid = |why: String| {
        let text = format!("the accounts file's entry of uid {}: {why}", entry.uid);
        Error::new(Code::InvalidAccounts, text)
    };
    id::check_name(&entry.account).map_err(|error| invalid(error.to_string()))?;
    if entry.roles.is_empty() {
        return Err(invalid("it has no roles".to_owned()));
    }
    let mut roles = Vec::new();
    for name in &entry.roles {
        let Some(role) = Role::named(name) else {
            let known = Role::ALL.map(Role::name).join(", ");
            return Err(invalid(format!(
                "there is no role {name:?}; the roles are: {known}"
            )));
        };
        if roles.contains(&role.name()) {
            return Err(invalid(format!("role {name} is given twice")));
        }
        roles.push(role.name());
    }
    Ok(Principal {
        uid: entry.uid,
        account: entry.account,
        roles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_understood_or_says_what_is_wrong() {
        let good = r#"{"principals": [{"uid": 7, "account": "acme", "roles": ["operator", "auditor"]}]}"#;
        let expected = Principal {
            uid: 7,
            account: "acme".to_owned(),
            roles: vec!["operator", "auditor"],
        };
        let listed = parse(good).unwrap();
        assert_eq!(listed.principals, [expected]);
        assert!(listed.allowed.paths.of("acme").is_empty());
        let with_paths = r#"{"principals": [], "accounts": {"acme": {"paths": ["/srv/acme", "/dev/mapper/acme-"]}, "b": {}}}"#;
        let listed = parse(with_paths).unwrap();
        let texts: Vec<_> = listed
            .allowed
            .paths
            .of("acme")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts, ["/srv/acme", "/dev/mapper/acme-"]);
        assert!(listed.allowed.paths.of("b").is_empty() && listed.allowed.paths.of("c").is_empty());
        for (bad, why) in [
            (
                r#"{"principals": [{"uid": 7, "account": "", "roles": ["auditor"]}]}"#,
                "name",
            ),
            (
                r#"{"principals": [{"uid": 7, "account": "a", "roles": []}]}"#,
                "no roles",
            ),
            (
                r#"{"principals": [{"uid": 7, "account": "a", "roles": ["root"]}]}"#,
                "operator",
            ),
            (
                r#"{"principals": [{"uid": 7, "account": "a", "roles": ["auditor", "auditor"]}]}"#,
                "twice",
            ),
            (
                r#"{"principals": [{"uid": -1, "account": "a", "roles": ["auditor"]}]}"#,
                "-1",
            ),
            (r#"{"principals": [], "roles": []}"#, "unknown field"),
            (r#"{"principals": [], "accounts": {"no name": {}}}"#, "no name"),
            (
                r#"{"principals": [], "accounts": {"a": {"paths": ["srv"]}}}"#,
                "absolute",
            ),
            (
                r#"{"principals": [], "accounts": {"a": {"paths": ["/srv/../etc"]}}}"#,
                "/srv/../etc",
            ),
            (
                r#"{"principals": [], "accounts": {"a": {"path": []}}}"#,
                "unknown field",
            ),
            ("", "EOF"),
        ] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.code(), Code::InvalidAccounts);
            assert!(error.full_message().contains(why), "{}", error.full_message());
        }
    }
}

//! `sealctl key`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use sealblk_kms::api::types::{self, CreateKey, KeyList, KeyResources, Rewrapping, ScheduleDeletion, SetKey};

use super::object;
use crate::client::{Client, Patience, route};
use crate::failure::Failure;
use crate::output::{Answer, Block, fixed, flexible, or_dash};

/// Keys that wrap the disks' data keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List keys.
    #[command(after_help = "Example:\n  sealctl key list")]
    List,
    /// Show one key. Key material is never shown (rule K07).
    #[command(after_help = "Example:\n  sealctl -o json key show key-0123456789abcdef")]
    Show(Wanted),
    /// Create a key of your own (rule K08); disks are created with it by `disk create --key`.
    #[command(
        after_help = "Examples:\n  sealctl key create payroll\n  sealctl disk create data --size 10GiB --key payroll"
    )]
    Create {
        /// Name, unique in the account.
        name: String,
        /// Its material is to be imported: it is PendingImport until then (rule K10).
        #[arg(long)]
        import: bool,
    },
    /// Give a key another name by which it is found; a key that had the alias loses it.
    #[command(
        after_help = "Examples:\n  sealctl key alias payroll current\n  sealctl key alias payroll current --remove"
    )]
    Alias {
        #[command(flatten)]
        key: Wanted,
        /// The alias.
        alias: String,
        /// Take the alias away.
        #[arg(long)]
        remove: bool,
    },
    /// Set tags of a key, and remove them.
    #[command(after_help = "Example:\n  sealctl key tag payroll owner=finance stage=live --remove old")]
    Tag {
        #[command(flatten)]
        key: Wanted,
        /// Tags to set.
        #[arg(value_name = "NAME=VALUE", value_parser = tag)]
        tags: Vec<(String, String)>,
        /// A tag to remove; can be given several times.
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
    },
    /// Make a key usable.
    #[command(after_help = "Example:\n  sealctl key enable payroll")]
    Enable(Wanted),
    /// Make a key unusable: no disk is created or attached with it; what is attached goes on (rule A06).
    #[command(after_help = "Example:\n  sealctl key disable payroll")]
    Disable(Wanted),
    /// Destroy a key after some days, and with it all that it protects (rule K11).
    #[command(after_help = DELETION)]
    ScheduleDeletion {
        #[command(flatten)]
        key: Wanted,
        /// Days until then: at least 7 [default: the most that the daemon permits, 30].
        #[arg(long)]
        days: Option<u16>,
        /// Also if it protects something, which nobody can read afterwards.
        #[arg(long)]
        acknowledge: bool,
    },
    /// Keep a key that was going to be destroyed. It is Disabled then.
    #[command(after_help = "Example:\n  sealctl key cancel-deletion payroll")]
    CancelDeletion(Wanted),
    /// Give a key a new version at once (rule K12). Data keys are put under it in the background; disks go on.
    #[command(after_help = "Example:\n  sealctl key rotate payroll\n  sealctl key rewrap payroll --status")]
    Rotate(Wanted),
    /// Go on with putting data keys under the newest version, and show how far that is (rule K12).
    #[command(after_help = "Example:\n  sealctl key rewrap payroll --status")]
    Rewrap {
        #[command(flatten)]
        key: Wanted,
        /// Only show.
        #[arg(long)]
        status: bool,
    },
    /// List what a key protects (rule K11).
    #[command(after_help = "Example:\n  sealctl key resources payroll")]
    Resources(Wanted),
}

const DELETION: &str = "\
Until its day the key is PendingDeletion, an alarm is in the audit log each day and at each use, and
`key cancel-deletion` keeps it. On its day all its versions are destroyed.

Examples:
  sealctl key resources payroll
  sealctl key schedule-deletion payroll --days 7 --acknowledge";

/// Which key.
#[derive(Args, Debug)]
pub(crate) struct Wanted {
    /// Id, name or alias of the key.
    #[arg(value_parser = object)]
    key: String,
}

impl Wanted {
    fn route(&self) -> String {
        route(&["keys", &self.key])
    }

    fn call(&self, call: &str) -> String {
        route(&["keys", &self.key, call])
    }
}

fn tag(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a tag is NAME=VALUE"),
    }
}

impl Key {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let key: types::Key = match self {
            Key::List => {
                let list: KeyList = client.list(&route(&["keys"])).await?;
                return Answer::new(&list, vec![table(&list)]);
            }
            Key::Resources(key) => {
                let list: KeyResources = client.list(&key.call("resources")).await?;
                return Answer::new(&list, vec![resources(&list)]);
            }
            Key::Rewrap { key, status } => {
                let path = key.call("rewrap");
                let state: Rewrapping = if status {
                    client.get(&path).await?
                } else {
                    client.post_empty(&path).await?
                };
                return Answer::new(&state, vec![rewrapping(&state)]);
            }
            Key::Show(key) => client.get(&key.route()).await?,
            Key::Create { name, import } => {
                let body = CreateKey { name, import };
                client.post(&route(&["keys"]), &body, Patience::Change).await?
            }
            Key::Alias { key, alias, remove } => {
                let mut body = SetKey::default();
                if remove {
                    &mut body.remove_aliases
                } else {
                    &mut body.add_aliases
                }
                .push(alias);
                client.patch(&key.route(), &body).await?
            }
            Key::Tag { key, tags, remove } => {
                let set = tags.into_iter().map(|(name, value)| (name, Some(value)));
                let removed = remove.into_iter().map(|name| (name, None));
                let body = SetKey {
                    tags: BTreeMap::from_iter(set.chain(removed)),
                    ..SetKey::default()
                };
                client.patch(&key.route(), &body).await?
            }
            Key::Enable(key) => client.post_empty(&key.call("enable")).await?,
            Key::Disable(key) => client.post_empty(&key.call("disable")).await?,
            Key::CancelDeletion(key) => client.post_empty(&key.call("cancel-deletion")).await?,
            Key::Rotate(key) => client.post_empty(&key.call("rotate")).await?,
            Key::ScheduleDeletion {
                key,
                days,
                acknowledge,
            } => {
                let body = ScheduleDeletion { days, acknowledge };
                client
                    .post(&key.call("schedule-deletion"), &body, Patience::Change)
                    .await?
            }
        };
        Answer::new(&key, vec![fields(&key)])
    }
}

fn table(list: &KeyList) -> Block {
    let columns = [
        fixed("ID"),
        flexible("NAME"),
        fixed("ORIGIN"),
        fixed("STATE"),
        fixed("DISKS"),
    ];
    let row = |key: &types::Key| {
        vec![
            key.id.clone(),
            key.name.clone(),
            key.origin.clone(),
            key.state.clone(),
            key.disks.to_string(),
        ]
    };
    Block::table(&columns, list.keys.iter().map(row))
}

fn resources(list: &KeyResources) -> Block {
    let columns = [fixed("ID"), fixed("KIND"), flexible("NAME"), fixed("STATE")];
    let row = |resource: &types::KeyResource| {
        vec![
            resource.id.clone(),
            resource.kind.clone(),
            resource.name.clone(),
            resource.state.clone(),
        ]
    };
    Block::table(&columns, list.resources.iter().map(row))
}

fn rewrapping(state: &Rewrapping) -> Block {
    let versions: Vec<_> = state.versions.iter().map(u32::to_string).collect();
    Block::Fields(vec![
        ("key", format!("{} ({})", state.name, state.id)),
        ("version", state.version.to_string()),
        ("rewrapped", format!("{} of {}", state.done, state.total)),
        ("versions with material", versions.join(", ")),
    ])
}

fn fields(key: &types::Key) -> Block {
    let tags: Vec<_> = key
        .tags
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Block::Fields(vec![
        ("id", key.id.clone()),
        ("name", key.name.clone()),
        ("aliases", key.aliases.join(", ")),
        ("tags", tags.join(", ")),
        ("origin", key.origin.clone()),
        ("state", key.state.clone()),
        ("destroyed on", or_dash(&key.deletion)),
        ("region", key.region.clone()),
        ("version", or_dash(&key.version)),
        ("algorithm", key.algorithm.clone()),
        ("disks", key.disks.to_string()),
        ("created", key.created.clone()),
    ])
}

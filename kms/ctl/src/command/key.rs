//! `sealctl key`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use base64ct::{Base64, Encoding};
use clap::{Args, Subcommand};
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, CreateKey, ImportParams, KeyList, KeyResources, ScheduleDeletion, SetKey};

use super::rewrap::Rewrap;
use crate::confirm::Confirm;
use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, or_dash};
use crate::values::object;

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
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Keep a key that was going to be destroyed. It is Disabled then.
    #[command(after_help = "Example:\n  sealctl key cancel-deletion payroll")]
    CancelDeletion(Wanted),
    /// Give a key a new version at once (rule K12). Data keys are put under it in the background; disks go on.
    #[command(after_help = "Example:\n  sealctl key rotate payroll\n  sealctl key rewrap payroll --status")]
    Rotate(Wanted),
    /// Go on with putting data keys under the newest version, and show how far that is (rule K12).
    Rewrap(Rewrap),
    /// Get what is needed to wrap a key's material for its import: a public key and a token.
    #[command(after_help = IMPORT)]
    ImportParams {
        #[command(flatten)]
        key: Wanted,
        /// File to write the public key to (PEM).
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
        /// File to write the token to.
        #[arg(long, value_name = "FILE")]
        token: Option<PathBuf>,
    },
    /// Import a key's material, which was wrapped for the parameters from import-params.
    #[command(after_help = IMPORT)]
    Import {
        #[command(flatten)]
        key: Wanted,
        /// The wrapped material.
        file: PathBuf,
        /// File that holds the token.
        #[arg(long, value_name = "FILE")]
        token: PathBuf,
    },
    /// List what a key protects (rule K11).
    #[command(after_help = "Example:\n  sealctl key resources payroll")]
    Resources(Wanted),
}

/// Most that is read of a file for an import, in bytes.
const IMPORT_BYTES: u64 = 4096;

const DELETION: &str = "\
Until its day the key is PendingDeletion, an alarm is in the audit log each day and at each use, and
`key cancel-deletion` keeps it. On its day all its versions are destroyed. The days must be seen to pass by the daemon:
while it does not run, and by a clock that jumps, none of them passes.

Examples:
  sealctl key resources payroll
  sealctl key schedule-deletion payroll --days 7 --acknowledge";

const IMPORT: &str = "\
The material is 32 bytes. It is wrapped as PKCS #11's CKM_RSA_AES_KEY_WRAP has it: RSA-OAEP (SHA-256, MGF1 with SHA-256)
of a fresh AES-256 key, followed by AES-KWP of the material under that. A token is for one attempt, within a day.

Example, with OpenSSL 3:
  sealctl key create payroll --import
  sealctl key import-params payroll --public-key payroll.pem --token payroll.token
  openssl rand 32 >wrapping
  openssl pkeyutl -encrypt -pubin -inkey payroll.pem -in wrapping -pkeyopt rsa_padding_mode:oaep \\
    -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256 >blob
  openssl enc -id-aes256-wrap-pad -iv A65959A6 -K $(od -An -v -tx1 wrapping | tr -d ' \\n') -in material >>blob
  sealctl key import payroll blob --token payroll.token";

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
        let key: api::Key = match self {
            Key::List => {
                let list: KeyList = client.list(&route(&["keys"])).await?;
                return Answer::new(&list, vec![Block::table(&list.keys, COLUMNS)]);
            }
            Key::Resources(key) => {
                let list: KeyResources = client.list(&key.call("resources")).await?;
                return Answer::new(&list, vec![Block::table(&list.resources, RESOURCES)]);
            }
            Key::Rewrap(rewrap) => return rewrap.run(client).await,
            Key::ImportParams {
                key,
                public_key,
                token,
            } => {
                let params: ImportParams = client.post_empty(&key.call("import-params")).await?;
                for (path, text) in [(public_key, &params.public_key), (token, &params.import_token)] {
                    if let Some(path) = path {
                        write_file(&path, text)?;
                    }
                }
                return Answer::new(&params, import_params(&params));
            }
            Key::Import { key, file, token } => {
                let body = api::Import {
                    import_token: read_file(&token, String::from_utf8)?.trim().to_owned(),
                    wrapped_material: read_file(&file, |bytes| {
                        Ok::<_, FromUtf8Error>(Base64::encode_string(&bytes))
                    })?,
                };
                client.post(&key.call("import"), &body, Patience::Change).await?
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
                confirm,
            } => {
                let key = match confirm.is_needed() {
                    true => ask_deletion(client, key, days).await?,
                    false => key,
                };
                let body = ScheduleDeletion { days, acknowledge };
                client
                    .post(&key.call("schedule-deletion"), &body, Patience::Change)
                    .await?
            }
        };
        Answer::new(&key, vec![fields(&key)])
    }
}

const COLUMNS: &[Column<api::Key>] = &[
    fixed("ID", |key| key.id.clone()),
    flexible("NAME", |key| key.name.clone()),
    fixed("ORIGIN", |key| key.origin.clone()),
    fixed("STATE", |key| key.state.clone()),
    fixed("DISKS", |key| key.disks.to_string()),
];

/// Asks whether the key is to be destroyed; gives its id.
async fn ask_deletion(client: &mut Client, key: Wanted, days: Option<u16>) -> Result<Wanted, Failure> {
    let found: api::Key = client.get(&key.route()).await?;
    let days = days.map_or("as many days as the daemon permits".to_owned(), |days| {
        format!("{days} days")
    });
    let lost = format!(
        "Key {} ({}) is destroyed after {days} and nobody can read any more what it protects: {} disks, with those in the \
         bin, and what `sealctl key resources {1}` lists besides",
        found.name, found.id, found.disks
    );
    Confirm::ask(client, &lost).await?;
    Ok(Wanted { key: found.id })
}

const RESOURCES: &[Column<api::KeyResource>] = &[
    fixed("ID", |resource| resource.id.clone()),
    fixed("KIND", |resource| resource.kind.clone()),
    flexible("NAME", |resource| resource.name.clone()),
    fixed("STATE", |resource| resource.state.clone()),
];

fn import_params(params: &ImportParams) -> Vec<Block> {
    let fields = Block::Fields(vec![
        ("key", format!("{} ({})", params.name, params.id)),
        ("import token", params.import_token.clone()),
        ("expires", params.expires.clone()),
    ]);
    let lines = params.public_key.lines().map(|line| Block::Line(line.to_owned()));
    std::iter::once(fields).chain(lines).collect()
}

/// Writes a file for this user alone.
fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::file(path, error))
}

/// Reads a short file, as far as [`IMPORT_BYTES`].
fn read_file(
    path: &Path,
    parse: impl FnOnce(Vec<u8>) -> Result<String, FromUtf8Error>,
) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(IMPORT_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| Failure::file(path, error))?;
    parse(bytes).map_err(|error| Failure::file(path, io::Error::other(error)))
}

/// `2026-12-01T…, waits for 7 more days to be seen`
fn deletion(key: &api::Key) -> String {
    let left = match key.deletion_days_left {
        None => String::new(),
        Some(1) => ", waits for 1 more day to be seen".to_owned(),
        Some(days) => format!(", waits for {days} more days to be seen"),
    };
    or_dash(&key.deletion) + &left
}

fn fields(key: &api::Key) -> Block {
    let tags: Vec<_> = key
        .tags
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let former = key.former_name.as_ref();
    let former = former.map_or(String::new(), |former| format!(" (was {former})"));
    Block::Fields(vec![
        ("id", key.id.clone()),
        ("name", key.name.clone() + &former),
        ("aliases", key.aliases.join(", ")),
        ("tags", tags.join(", ")),
        ("origin", key.origin.clone()),
        ("state", key.state.clone()),
        ("destroyed on", deletion(key)),
        ("region", key.region.clone()),
        ("version", or_dash(&key.version)),
        ("algorithm", key.algorithm.clone()),
        ("disks", key.disks.to_string()),
        ("created", key.created.clone()),
    ])
}

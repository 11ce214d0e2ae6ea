//! `sealctl audit`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sealblk_api::client::{Client, Page, route, with};
use sealblk_api::{AuditHead, AuditPage, AuditRecord};
use serde_json::Value;

use super::audit_verify::verify;
use super::{audit_archive, audit_export};
use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, or_dash};
use crate::values::Format;

/// How long `follow` waits before it asks again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many of the newest records `follow` shows first.
const SHOWN_FIRST: usize = 10;

const LIST_HELP: &str = "\
Every decision of the KMS is here, allowed, refused or failed (rule M04), and each use of a key (`key.use`): by which process, for \
which disk, machine and call. Each record's hash covers the record before it; hashes and all details are shown with -o json.

Examples:
  sealctl audit list --disk data                    # the whole life of a disk
  sealctl audit list --key backups --since 2026-11-01
  sealctl audit list --request req-abcdefghijklmnop
  sealctl audit list --limit 20
  sealctl audit --limit 20
  sealctl -o json audit list --after 1200";

const VERIFY_HELP: &str = "\
The daemon computes the hash of every record anew, of all accounts, and names the first that was changed or removed. \
Records that were cut off at the end leave no gap. A head finds that: position and hash of a record that you noted \
earlier, away from this host. The log must still reach it, and be the same up to it.

A catalogue that was restored from a backup ends where the backup ended.

Examples:
  sealctl audit verify                            # prints the head of the log, as SEQ:HASH
  sealctl audit verify --head 1200:5f…            # 64 digits
  sealctl audit verify --export audit-2026-11.jsonl
  sealctl audit verify --archive to-2025.jsonl --archive to-2026.jsonl    # the archives, in order, and the log";

const EXPORT_HELP: &str = "\
The log is verified first. Each line is a record as JSON; the last line has the head of the log, for `audit verify \
--export`. Keep the file away from this host. A file that is there already is not written to.

Example:
  sealctl audit export audit-2026-11.jsonl";

const ARCHIVE_HELP: &str = "\
Records never go by themselves. This writes the oldest of them, of all accounts, to a file, verifies that, and only then removes \
them from the catalogue; the log begins after them, and still verifies. Only a Security Administrator of the account `default` \
may. Keep the file, and away from this host: the records are there alone.

Whatever interrupts it, records are in the catalogue or in the file. If it fails and the file is there, keep that, and look \
with `sealctl audit list` where the log begins.

Examples:
  sealctl audit archive --before 1000000 to-2026.jsonl    # all but record 1000000 and those after it
  sealctl audit verify --archive to-2026.jsonl";

/// The audit log.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Records of your account, oldest first; also what `sealctl audit` does alone.
    #[command(after_help = LIST_HELP)]
    List(List),
    /// Show the newest records, and then each one that comes, until interrupted.
    #[command(after_help = "\
With -o json each record is one line.

Examples:
  sealctl audit follow
  sealctl -o json audit follow --after 1200")]
    Follow {
        /// Begin after this position [default: with the newest 10].
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        #[command(flatten)]
        filter: Filter,
    },
    /// Recompute the whole log and compare it with a head (rule M04).
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// Head that was noted earlier.
        #[arg(long, value_name = "SEQ:HASH", value_parser = head)]
        head: Option<String>,
        /// File of an earlier export, which ends with its head.
        #[arg(long, value_name = "FILE", conflicts_with = "head")]
        export: Option<PathBuf>,
        /// Archive, whose records are verified first; several in their order, the last one is the newest.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["head", "export"])]
        archive: Vec<PathBuf>,
    },
    /// Move the oldest records out of the catalogue into a file (rule M04).
    #[command(after_help = ARCHIVE_HELP)]
    Archive {
        /// Position of the first record that stays.
        #[arg(long, value_name = "SEQ")]
        before: u64,
        /// File to write; it must not exist.
        file: PathBuf,
    },
    /// Write all records of your account, and the head of the log, into a file.
    #[command(after_help = EXPORT_HELP)]
    Export {
        /// File to write; it must not exist.
        file: PathBuf,
    },
}

/// Arguments of `audit list`.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only the newest N records.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Only records after this position.
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    after: u64,
    #[command(flatten)]
    filter: Filter,
}

/// Which records.
#[derive(Args, Debug, Default)]
pub(crate) struct Filter {
    /// Only what was about this disk, by name or id; one that was deleted, by its id.
    #[arg(long, value_name = "DISK")]
    disk: Option<String>,
    /// Only what was about this key, and each use of it.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only what was about this instance.
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    /// Only what a call has done: the id in its answer's X-Request-Id, in errors with -o json, and in the daemon's log.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Only records from this time on, or from this day on, in UTC.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only records from before this time, or this day.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Filter {
    /// The path of the records.
    fn path(&self) -> String {
        let parameters = [
            ("disk", &self.disk),
            ("key", &self.key),
            ("instance", &self.instance),
            ("request", &self.request),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let given = parameters
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)));
        given.fold(route(&["audit"]), |path, (name, value)| with(&path, name, value))
    }
}

impl Audit {
    pub(crate) async fn run(self, client: &mut Client, format: Format) -> Result<Answer, Failure> {
        match self.command.unwrap_or(Command::List(self.list)) {
            Command::List(list) => {
                let limit = list.limit.map_or(usize::MAX, NonZeroUsize::get);
                let page = newest(client, &list.filter.path(), list.after, limit).await?;
                let table = Block::table(&page.audit, COLUMNS);
                Answer::new(&page, vec![table])
            }
            Command::Follow { after, filter } => follow(client, after, &filter.path(), format).await,
            Command::Verify {
                head,
                export,
                archive,
            } => {
                let noted = match export {
                    Some(file) => Some(audit_export::head_of(&file)?),
                    None => audit_archive::read_all(&archive)?.map(|last| last.head),
                };
                let head = noted.map(|noted| text_of(&noted)).or(head);
                let reached = verify(client, head.as_deref()).await?;
                let text = format!(
                    "the audit log is what was written; its head is {}",
                    text_of(&reached)
                );
                Answer::new(&reached, vec![Block::Line(text)])
            }
            Command::Archive { before, file } => {
                let archive = audit_archive::archive(client, before, &file).await?;
                let text = format!(
                    "{} records are in {} and nowhere else; its head is {}",
                    archive.records,
                    file.display(),
                    text_of(&archive.head)
                );
                Answer::new(&archive.head, vec![Block::Line(text)])
            }
            Command::Export { file } => {
                let (head, records) = audit_export::write(client, &file).await?;
                let text = format!(
                    "{records} records are in {}; the head of the log is {}",
                    file.display(),
                    text_of(&head)
                );
                Answer::new(&head, vec![Block::Line(text)])
            }
        }
    }
}

/// The newest records after a position, at most `limit`. A long log does not have to fit into memory.
async fn newest(client: &mut Client, path: &str, after: u64, limit: usize) -> Result<AuditPage, Failure> {
    let mut page: AuditPage = client.page_after(path, &after.to_string()).await?;
    while let Some(after) = page.next() {
        let following = client.page_after(path, &after).await?;
        page.append(following);
        keep_newest(&mut page.audit, limit);
    }
    keep_newest(&mut page.audit, limit);
    Ok(page)
}

fn keep_newest(records: &mut Vec<AuditRecord>, limit: usize) {
    records.drain(..records.len().saturating_sub(limit));
}

/// Prints records until nobody reads them any more.
async fn follow(
    client: &mut Client,
    after: Option<u64>,
    path: &str,
    format: Format,
) -> Result<Answer, Failure> {
    let mut records = match after {
        Some(after) => newest(client, path, after, usize::MAX).await?.audit,
        None => newest(client, path, 0, SHOWN_FIRST).await?.audit,
    };
    let mut last = after.unwrap_or(0);
    loop {
        for record in &records {
            last = record.seq;
            if !Answer::new(record, vec![Block::Line(line(record))])?.print(format)? {
                return Ok(Answer::said());
            }
        }
        tokio::time::sleep(PAUSE).await;
        records = newest(client, path, last, usize::MAX).await?.audit;
    }
}

/// As `--head` takes it.
fn text_of(head: &AuditHead) -> String {
    format!("{}:{}", head.seq, head.hash)
}

fn head(text: &str) -> Result<String, &'static str> {
    let is_head = text.split_once(':').is_some_and(|(seq, hash)| {
        let hexadecimal = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        seq.parse::<u64>().is_ok() && hexadecimal
    });
    if is_head {
        Ok(text.to_owned())
    } else {
        Err("a head is SEQ:HASH, with 64 hexadecimal digits, as `audit verify` and `audit export` print it")
    }
}

const COLUMNS: &[Column<AuditRecord>] = &[
    fixed("SEQ", |record| record.seq.to_string()),
    fixed("TIME", |record| record.time.clone()),
    fixed("UID", |record| record.uid.to_string()),
    flexible("CALL", |record| record.call.clone()),
    flexible("OBJECT", |record| record.object.clone()),
    fixed("DECISION", |record| record.decision.clone()),
    flexible("REASON", reason),
    flexible("DETAILS", details),
];

fn line(record: &AuditRecord) -> String {
    let cells: Vec<_> = COLUMNS.iter().map(|column| (column.cell)(record)).collect();
    cells.join("  ")
}

/// Such as `key=key-… key_version=1 instance=ins-…`: ids first, then what was asked for; all of it is shown with -o json.
fn details(record: &AuditRecord) -> String {
    const FIRST: [&str; 4] = ["key", "key_version", "instance", "disk"];
    // A key says more, and the object is said already.
    let is_shown =
        |name: &str, value: &Value| name != "lineage" && name != "asked" && *value != record.object;
    let all = record.details.iter().flatten();
    let mut shown: Vec<_> = all.filter(|(name, value)| is_shown(name, value)).collect();
    shown.sort_by_key(|(name, _)| {
        FIRST
            .iter()
            .position(|first| first == name)
            .unwrap_or(FIRST.len())
    });
    let asked = record.details.as_ref().and_then(|details| details.get("asked"));
    let asked = asked.and_then(Value::as_object).into_iter().flatten();
    let asked = asked.filter(|(_, value)| **value != record.object);
    let words = shown.into_iter().chain(asked).map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    let words = words.collect::<Vec<_>>().join(" ");
    or_dash(&Some(words).filter(|words| !words.is_empty()))
}

/// `LocalStorage (A03)`, or `-`.
fn reason(record: &AuditRecord) -> String {
    let rule = record.rule.as_ref().map(|rule| format!(" ({rule})"));
    or_dash(&record.code) + &rule.unwrap_or_default()
}

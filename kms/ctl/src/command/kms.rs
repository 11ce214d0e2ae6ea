//! `sealctl kms`.

use clap::Subcommand;
use sealblk_api::client::{Client, route};
use sealblk_api::{AuditSink, KmsSandbox, KmsStatus, LessConfined, Profile};

use super::watch::Watch;
use crate::failure::Failure;
use crate::output::{Answer, Block, yes_no};
use crate::values::Format;

/// Exit status of a check that has found something.
const DEGRADED: u8 = 3;

const ROTATE_ROOT: &str = "\
Only a Security Administrator of the account `default` may. Copies of the root key, and backups of the catalogue that were
taken before, belong together: take both anew afterwards.

Example:
  sealctl kms rotate-root";

const STATUS: &str = "\
What is degraded is shown as warnings; with -o json also as `conditions`, each with a stable code.

Examples:
  sealctl -o json kms status
  sealctl kms status --check || mail -s 'KMS degraded' operators
  sealctl kms status --watch";

const REVOKE: &str = "\
What stops: creating encrypted disks, from snapshots, images and files too; attaching them; copying, exporting, backing up and
restoring them; re-initialising raw ones.

What goes on: what is attached, over restarts too; detaching, with --force, since the disk cannot be attached again until there is
a grant; snapshots, rollback, resize, check and re-initialisation of layered disks; deleting anything; calls on keys; copies that
have begun; all that is plain.

Example:
  sealctl kms revoke";

/// The KMS itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Kms {
    /// Activate the KMS for your account in its region (rule K01). Needed once, before the first encrypted disk.
    #[command(after_help = "Example:\n  sealctl kms activate")]
    Activate,
    /// Show region, zone, profile and state of the KMS, and what is degraded.
    #[command(after_help = STATUS)]
    Status {
        #[command(flatten)]
        watch: Watch,
        /// Exit with status 3 if there is any warning.
        #[arg(long, conflicts_with = "watch")]
        check: bool,
    },
    /// Grant the disk service the use of your account's keys (rule K02), where the profile asks for that. Needs the role
    /// security-administrator.
    #[command(after_help = "Example:\n  sealctl kms grant")]
    Grant,
    /// Take the grant back. Attached disks go on; encrypted disks are neither created nor attached any more.
    #[command(after_help = REVOKE)]
    Revoke,
    /// Put all master keys, of every account, under a new root key. Disks notice nothing.
    #[command(after_help = ROTATE_ROOT)]
    RotateRoot,
    /// Show every switch of the policy profile.
    #[command(
        after_help = "What they mean is in docs/rules-profiles.md of /usr/share/doc/sealblk.\n\nExample:\n  sealctl -o json kms profile"
    )]
    Profile,
}

impl Kms {
    pub(crate) async fn run(self, client: &mut Client, format: Format) -> Result<Answer, Failure> {
        let status: KmsStatus = match self {
            Kms::Activate => {
                let status: KmsStatus = client.post_empty(&route(&["kms", "activate"])).await?;
                let done = format!(
                    "the KMS of region {} is activated for {}",
                    status.region, status.account
                );
                return Answer::new(&status, vec![Block::Line(done)]);
            }
            Kms::Status { check: true, .. } => return check(client).await,
            Kms::Status { watch, .. } => return watch.answer(client, format, show).await,
            Kms::Grant => client.post_empty(&route(&["kms", "grant"])).await?,
            Kms::RotateRoot => client.post_empty(&route(&["kms", "rotate-root"])).await?,
            Kms::Revoke => client.post_empty(&route(&["kms", "revoke"])).await?,
            Kms::Profile => {
                let profile: Profile = client.get(&route(&["profile"])).await?;
                return Answer::new(&profile, vec![switches(&profile)]);
            }
        };
        Answer::new(&status, text(&status))
    }
}

async fn show(client: &mut Client) -> Result<Answer, Failure> {
    let status: KmsStatus = client.get(&route(&["kms"])).await?;
    Answer::new(&status, text(&status))
}

/// What the exit status says too.
async fn check(client: &mut Client) -> Result<Answer, Failure> {
    let status: KmsStatus = client.get(&route(&["kms"])).await?;
    let mut answer = Answer::new(&status, text(&status))?;
    if !status.warnings.is_empty() || !less_confined(&status).is_empty() {
        answer.status = DEGRADED;
    }
    Ok(answer)
}

/// Disks whose processes have less to keep them in bounds than one that is started now.
fn less_confined(status: &KmsStatus) -> &[LessConfined] {
    status.sandbox.as_ref().map_or(&[], |sandbox| &sandbox.less)
}

fn text(status: &KmsStatus) -> Vec<Block> {
    let mut fields = vec![
        ("id", status.id.clone()),
        ("region", status.region.clone()),
        ("zone", status.zone.clone()),
        ("profile", status.profile.clone()),
        ("account", status.account.clone()),
        ("state", status.state.clone()),
        (
            "root key",
            match &status.root_key_note {
                Some(note) => format!("{} ({note})", status.root_key),
                None => status.root_key.clone(),
            },
        ),
        ("version", status.version.clone()),
        (
            "disks",
            format!("{} ({} attached)", status.disks, status.attached),
        ),
        ("instances", status.instances.to_string()),
    ];
    fields.extend(super::bin::content(status).map(|bin| ("in the bin", bin)));
    // A daemon of an earlier version says nothing of it.
    fields.extend(status.sandbox.as_ref().map(|all| ("sandbox", sandbox(all))));
    for sink in &status.audit_sinks {
        fields.push(("audit sink", self::sink(sink)));
    }
    let less = less_confined(status).iter().map(|less| {
        let has = super::disk_fields::sandbox(&less.sandbox);
        format!(
            "the process of {0} has less of a sandbox ({has}): `sealctl backend restart {0}`",
            less.disk
        )
    });
    let warnings = status.warnings.iter().cloned().chain(less);
    let warnings = warnings.map(|warning| Block::Line(format!("warning: {warning}")));
    std::iter::once(Block::Fields(fields)).chain(warnings).collect()
}

/// `file:/var/log/audit: up to record 12, required`.
fn sink(sink: &AuditSink) -> String {
    let required = if sink.required { ", required" } else { "" };
    let backlog = match sink.backlog {
        0 => String::new(),
        backlog => format!(", {backlog} behind"),
    };
    let missed = match sink.missed {
        0 => String::new(),
        missed => format!(", {missed} archived before it had them"),
    };
    format!(
        "{}: up to record {}{backlog}{missed}{required}",
        sink.name, sink.seq
    )
}

/// What keeps a process in bounds that is started now.
fn sandbox(sandbox: &KmsSandbox) -> String {
    let missing = sandbox
        .protections
        .iter()
        .filter_map(|protection| Some(format!("{}: {}", protection.name, protection.missing.as_ref()?)));
    let missing: Vec<_> = missing.collect();
    let required = if sandbox.required { ", required" } else { "" };
    match (&sandbox.reason, &missing[..]) {
        (Some(reason), _) => format!("{}: {reason}", sandbox.level),
        (None, []) => format!("{}{required}", sandbox.level),
        (None, missing) => format!("{}{required}: without {}", sandbox.level, missing.join("; ")),
    }
}

fn switches(profile: &Profile) -> Block {
    let free = profile.free_calls.map(|calls| calls.to_string());
    Block::Fields(vec![
        ("name", profile.name.clone()),
        ("key scope (K04)", profile.key_scope.clone()),
        ("customer keys (K08)", yes_no(profile.customer_keys)),
        ("gate (K01, K02)", profile.gate.clone()),
        ("system disks encrypted (I01)", profile.system_disks.clone()),
        (
            "local storage refused (A03)",
            yes_no(profile.refuse_local_storage),
        ),
        ("bare metal refused (A04)", yes_no(profile.refuse_bare_metal)),
        ("encryptable types (D02)", profile.encryptable_types.join(", ")),
        (
            "encryptable shared types (D09)",
            profile.encryptable_shared_types.join(", "),
        ),
        ("share encrypted image (I05)", yes_no(profile.share_image)),
        (
            "copy snapshot across regions (S06)",
            yes_no(profile.copy_snapshot_across_regions),
        ),
        (
            "copy image across regions (I06)",
            yes_no(profile.copy_image_across_regions),
        ),
        ("export encrypted image (I07)", yes_no(profile.export_image)),
        ("new size seen (D06)", profile.new_size.clone()),
        ("reinit metered (M01)", yes_no(profile.meter_reinit)),
        (
            "free calls a month (M02)",
            free.unwrap_or_else(|| "unlimited".to_owned()),
        ),
        ("price of a call (M02)", micro_units(profile.call_price)),
        (
            "monthly fee of a key (M03)",
            micro_units(profile.customer_key_fee),
        ),
        (
            "deleted disks restorable (K14)",
            format!("for {} days", profile.retention),
        ),
    ])
}

fn micro_units(amount: u64) -> String {
    format!("{amount} micro-units")
}

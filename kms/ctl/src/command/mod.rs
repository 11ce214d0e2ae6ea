//! The commands: one file a group, its arguments and what they do together.

mod account;
mod attach;
mod audit;
mod audit_archive;
mod audit_export;
mod audit_verify;
mod backend;
mod backup;
mod bin;
mod completions;
mod copy;
mod detach;
mod disk;
mod disk_fields;
mod disk_list;
mod disk_spec;
mod encryption;
mod form;
mod image;
mod immutable;
mod instance;
mod key;
mod kms;
mod man;
mod qemu;
mod rewrap;
mod rollback;
mod schedule;
mod snapshot;
mod store;
mod transfer;
mod usage;
mod watch;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use sealblk_api::client::Client;

use crate::failure::Failure;
use crate::output::Answer;
use crate::values::Format;

const EXAMPLES: &str = "\
Examples:
  sealctl kms activate
  sealctl instance register web
  sealctl disk create data --size 10GiB
  sealctl attach data web
  sealctl -o json disk show data
  sealctl snapshot create data before-upgrade
  sealctl detach data

Exit status:
  0  done
  1  refused or failed: \"error: CODE (RULE): text\" on standard error,
     with -o json one object {\"code\", \"rule\", \"message\"}
  2  wrong usage
  3  `kms status --check`: something is degraded";

/// Manages encrypted disks: asks sealblk-kms, over its Unix socket.
#[derive(Debug, Parser)]
#[command(name = "sealctl", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Socket of sealblk-kms [env: SEALBLK_SOCKET] [default: /var/lib/sealblk/kms.sock].
    // Not by clap, which would show it in the usage of each command as one of its arguments.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Form of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Asking(Asking),
    /// Print a script with which a shell completes commands and options.
    Completions(completions::Completions),
    /// Write manual pages.
    Man(man::Man),
}

/// Commands that ask the daemon.
#[derive(Debug, Subcommand)]
enum Asking {
    /// The KMS itself: activate it, show its state.
    #[command(subcommand)]
    Kms(kms::Kms),
    /// Keys that wrap the disks' data keys.
    #[command(subcommand)]
    Key(key::Key),
    /// Instances (virtual machines) that disks are attached to.
    #[command(subcommand)]
    Instance(instance::Instance),
    /// Disks.
    #[command(subcommand)]
    Disk(disk::Disk),
    /// Attach a disk to an instance and serve it over vhost-user.
    Attach(attach::Attach),
    /// Detach a disk and end its serving process.
    Detach(detach::Detach),
    /// The processes that serve attached disks.
    #[command(subcommand)]
    Backend(backend::Backend),
    /// Snapshots of disks.
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Images: what disks are made from, and can be shared with other accounts.
    #[command(subcommand)]
    Image(image::Image),
    /// Full copies of disks, in files of their own.
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Make a disk what one of its snapshots holds.
    Rollback(rollback::Rollback),
    /// Accounts and their balances.
    #[command(subcommand)]
    Account(account::Account),
    /// Metered KMS calls, by month, and the balance.
    Usage(usage::Usage),
    /// The audit log: read it, follow it, verify it, take it away.
    Audit(Box<audit::Audit>),
}

impl Cli {
    /// Carries the command out.
    pub(crate) async fn run(self) -> Result<Answer, Failure> {
        match self.command {
            Command::Completions(command) => command.run(Cli::command()),
            Command::Man(command) => command.run(Cli::command()),
            Command::Asking(command) => {
                let mut client = Client::connect(&socket(self.socket)).await?;
                command.run(&mut client, self.output).await
            }
        }
    }
}

/// That of the option, of the environment, or the one that is most usual.
fn socket(chosen: Option<PathBuf>) -> PathBuf {
    let environment = std::env::var_os("SEALBLK_SOCKET").filter(|path| !path.is_empty());
    chosen
        .or(environment.map(PathBuf::from))
        .unwrap_or_else(|| "/var/lib/sealblk/kms.sock".into())
}

impl Asking {
    async fn run(self, client: &mut Client, format: Format) -> Result<Answer, Failure> {
        match self {
            Asking::Kms(command) => command.run(client, format).await,
            Asking::Key(command) => command.run(client).await,
            Asking::Instance(command) => command.run(client).await,
            Asking::Disk(command) => command.run(client, format).await,
            Asking::Attach(command) => command.run(client, format).await,
            Asking::Detach(command) => command.run(client).await,
            Asking::Backend(command) => command.run(client).await,
            Asking::Snapshot(command) => command.run(client).await,
            Asking::Image(command) => command.run(client).await,
            Asking::Backup(command) => command.run(client).await,
            Asking::Rollback(command) => command.run(client).await,
            Asking::Account(command) => command.run(client).await,
            Asking::Usage(command) => command.run(client).await,
            Asking::Audit(command) => command.run(client, format).await,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

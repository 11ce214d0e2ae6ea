//! The commands: one file a group, its arguments and what they do together.

mod account;
mod attach;
mod audit;
mod audit_export;
mod backend;
mod detach;
mod disk;
mod disk_spec;
mod immutable;
mod instance;
mod key;
mod kms;
mod rollback;
mod snapshot;
mod usage;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::client::{self, Client};
use crate::failure::Failure;
use crate::output::Answer;

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
  2  wrong usage";

/// Manages encrypted disks: asks sealblk-kms, over its Unix socket.
#[derive(Debug, Parser)]
#[command(name = "sealctl", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Socket of sealblk-kms.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "SEALBLK_SOCKET",
        default_value = "/var/lib/sealblk/kms.sock"
    )]
    socket: PathBuf,

    /// Form of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(subcommand)]
    command: Command,
}

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object on one line, with stable field names.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    /// Make a disk what one of its snapshots holds.
    Rollback(rollback::Rollback),
    /// Accounts and their balances.
    #[command(subcommand)]
    Account(account::Account),
    /// Metered KMS calls, by month, and the balance.
    Usage(usage::Usage),
    /// The audit log: read it, follow it, verify it, take it away.
    Audit(audit::Audit),
}

impl Cli {
    /// Carries the command out.
    pub(crate) async fn run(self) -> Result<Answer, Failure> {
        let mut client = Client::connect(&self.socket).await?;
        let client = &mut client;
        match self.command {
            Command::Kms(command) => command.run(client).await,
            Command::Key(command) => command.run(client).await,
            Command::Instance(command) => command.run(client).await,
            Command::Disk(command) => command.run(client).await,
            Command::Attach(command) => command.run(client).await,
            Command::Detach(command) => command.run(client).await,
            Command::Backend(command) => command.run(client).await,
            Command::Snapshot(command) => command.run(client).await,
            Command::Rollback(command) => command.run(client).await,
            Command::Account(command) => command.run(client).await,
            Command::Usage(command) => command.run(client).await,
            Command::Audit(command) => command.run(client, self.output).await,
        }
    }
}

/// Parses an id or a name, as a segment of a route: anything but nothing. The daemon judges the rest.
fn object(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("an id or a name is needed"),
        text => Ok(text.to_owned()),
    }
}

/// Parses a path that the daemon will open.
fn path(text: &str) -> Result<String, String> {
    client::absolute(text).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

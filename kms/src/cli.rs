//! The command line of `sealblk-kms`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::error::{Code, Error, Result};
use crate::rootkey::RootKeyKind;
use crate::{backup, daemon, init, limits, restore};

/// Keeps the keys and the catalogue of encrypted disks, and starts and supervises the processes that serve them.
#[derive(Parser)]
#[command(
    name = "sealblk-kms",
    version,
    after_help = "Examples:
  sealblk-kms init --state /var/lib/sealblk --region eu-1
  sealblk-kms serve --state /var/lib/sealblk
  sealblk-kms backup --state /var/lib/sealblk /backup/kms.db

Exit status: 0; 1 refused or failed, with `error: CODE (RULE): text` on stderr; 2 wrong usage."
)]
struct Cli {
    /// How much is logged, to stderr; RUST_LOG sets it too, and in more detail.
    #[arg(long, global = true, value_enum)]
    log_level: Option<LogLevel>,
    #[command(subcommand)]
    command: Command,
}

/// The command line, for those who describe it.
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Subcommand)]
enum Command {
    /// Make a state directory: a root key, an empty catalogue, and this user as its owner.
    #[command(
        after_help = "The root key is DIR/root.key (mode 0600). Without it nothing in the catalogue opens, \
and every encrypted disk is lost: keep a copy in a safe place that is not the catalogue's backup.

Example:
  sealblk-kms init --state /var/lib/sealblk --region eu-1 --zone eu-1a"
    )]
    Init(Init),
    /// Serve the API until SIGTERM or SIGINT; the disks' processes go on without it.
    #[command(
        after_help = "The user that ran `init` may make every call of the API. Others may what --accounts gives them, \
and need --socket-mode or --socket-owner to reach the socket. Started by root, each disk's process runs as a user of \
its own (from 1900000000 on).

Examples:
  sealblk-kms serve --state /var/lib/sealblk
  sealblk-kms serve --state /var/lib/sealblk --accounts /etc/sealblk/accounts.json --socket-mode 0666
  curl --unix-socket /var/lib/sealblk/kms.sock http://kms/v1/kms"
    )]
    Serve(Serve),
    /// Write the catalogue with its wrapped keys into one file, also while it is being served.
    #[command(
        after_help = "The disks' data are not in it. The root key is not in it either, unless \
--with-root-key puts it there under a passphrase (Argon2id, AES-256-GCM).

Examples:
  sealblk-kms backup --state /var/lib/sealblk /backup/kms.db
  sealblk-kms backup --state /var/lib/sealblk /backup/kms-with-key.db --with-root-key"
    )]
    Backup(Backup),
    /// Make a state directory from a backup.
    #[command(
        after_help = "The disks' data are not in a backup: put the files back to their paths before you \
attach. If the root key is not in the backup either, put root.key (mode 0600) into DIR before you serve.

Example:
  sealblk-kms restore --state /var/lib/sealblk /backup/kms.db"
    )]
    Restore(Restore),
}

#[derive(Args)]
struct Init {
    /// Directory to make.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Region whose keys are kept here.
    #[arg(long, value_name = "NAME")]
    region: String,
    /// Zone of disks and instances for which none is given; without it, the region with `-1` added.
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Policy profile: which of the rules apply (docs/rules-profiles.md).
    #[arg(long, value_name = "NAME", default_value = "sealblk")]
    profile: String,
    /// Where the root key comes from.
    #[arg(long, value_enum, default_value_t = RootKeyKind::File)]
    root_key: RootKeyKind,
    /// Read the passphrase for the root key from this file (its first line) instead of the terminal.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Prepaid balance of the account `default`, in micro-units; where the profile has a price for calls.
    #[arg(long, value_name = "AMOUNT", default_value_t = 0)]
    balance: u64,
}

#[derive(Args)]
struct Serve {
    /// State directory.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Socket of the API; without it, DIR/kms.sock.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// JSON file of the users that may call the API: their accounts and roles, and the paths that accounts may name
    /// (docs/operating.md).
    #[arg(long, value_name = "FILE")]
    accounts: Option<PathBuf>,
    /// Owner of the API's socket, and its group [default: this user].
    #[arg(long, value_name = "USER[:GROUP]")]
    socket_owner: Option<String>,
    /// Mode of the API's socket, octal [default: 0600].
    #[arg(long, value_name = "MODE")]
    socket_mode: Option<String>,
    /// Read the root key's passphrase from this file (its first line) instead of the terminal; after
    /// `init --root-key passphrase`.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Longest wait before a key is destroyed, 30 to 1096 days [default: 30].
    #[arg(long, value_name = "DAYS",
          value_parser = clap::value_parser!(u16).range(i64::from(limits::DELETION_DAYS_MOST)..=i64::from(limits::DELETION_DAYS_EVER)))]
    deletion_days_most: Option<u16>,
    /// Write a backup of the catalogue into this directory at the start and after each change of keys, in the background; the
    /// newest 10 stay. It belongs to this user or root, who alone may write to it.
    #[arg(long, value_name = "DIR")]
    backup_to: Option<PathBuf>,
    /// The sealblk program; without it, the one beside this program, or else the one in PATH.
    #[arg(long, value_name = "PATH")]
    sealblk: Option<PathBuf>,
    /// Refuse to serve where disks' processes cannot have all of their sandbox, and have each refuse likewise.
    #[arg(long)]
    require_sandbox: bool,
    /// Let the queues of all disks look for work so long before they sleep (see sealblk --help).
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(..=1000))]
    poll_time: Option<u64>,
    /// Run the queues of all disks on these processors, which the queues of each take in turn.
    #[arg(long, value_name = "CPU,…", value_delimiter = ',')]
    pin: Vec<u32>,
    /// Let machines have their memory on these file systems (see sealblk --help).
    #[arg(long, value_name = "WHICH", value_parser = ["local", "any"])]
    memory_on: Option<String>,
}

impl Serve {
    fn backend_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if self.require_sandbox {
            arguments.push("--require-sandbox".into());
        }
        if let Some(micros) = self.poll_time {
            arguments.extend(["--poll-time".into(), micros.to_string().into()]);
        }
        if !self.pin.is_empty() {
            let processors: Vec<String> = self.pin.iter().map(u32::to_string).collect();
            arguments.extend(["--pin".into(), processors.join(",").into()]);
        }
        if let Some(which) = &self.memory_on {
            arguments.extend(["--memory-on".into(), which.into()]);
        }
        arguments
    }
}

#[derive(Args)]
struct Backup {
    /// State directory.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// File to write; it must not exist.
    file: PathBuf,
    /// Put the root key into it, under a passphrase.
    #[arg(long)]
    with_root_key: bool,
    /// Read the passphrase from this file (its first line) instead of the terminal.
    #[arg(long, value_name = "FILE", requires = "with_root_key")]
    passphrase_file: Option<PathBuf>,
    /// Read the passphrase that the root key has in DIR from this file instead of the terminal; after
    /// `init --root-key passphrase`.
    #[arg(long, value_name = "FILE", requires = "with_root_key")]
    root_passphrase_file: Option<PathBuf>,
}

#[derive(Args)]
struct Restore {
    /// Directory to make; it may exist if it is empty, or as an unfinished restore left it.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The backup.
    file: PathBuf,
    /// Read the passphrase from this file (its first line) instead of the terminal.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = log_filter(cli.log_level);
    env_logger::Builder::new().parse_filters(&filter).init();
    match run(cli.command, filter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let rule = error
                .code()
                .rule()
                .map(|rule| format!(" ({rule})"))
                .unwrap_or_default();
            eprintln!("error: {}{rule}: {}", error.code().name(), error.full_message());
            ExitCode::FAILURE
        }
    }
}

fn log_filter(level: Option<LogLevel>) -> String {
    let name = |level: LogLevel| level.to_possible_value().map(|value| value.get_name().to_owned());
    // The database library logs every statement as `info` where it takes long.
    let default = |level: String| format!("{level},sqlx=warn");
    match level.and_then(name) {
        Some(level) => default(level),
        None => std::env::var("RUST_LOG").unwrap_or_else(|_| default("info".to_owned())),
    }
}

fn run(command: Command, log_filter: String) -> Result<()> {
    let system = |error| Error::because(Code::Internal, "the process cannot be secured", error);
    sealblk_proto::process::forbid_core_dumps().map_err(system)?;
    sealblk_proto::process::keep_inherited().map_err(system)?;
    // Whatever is made is for this user alone, until it is given away on purpose.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(system)?;
    let result = runtime.block_on(async {
        match command {
            Command::Init(init) => {
                let zone = init.zone.unwrap_or_else(|| format!("{}-1", init.region));
                let region = init::Region {
                    region: init.region,
                    zone,
                    profile: init.profile,
                    balance: init.balance,
                };
                init::init(
                    &init.state,
                    &region,
                    init.root_key,
                    init.passphrase_file.as_deref(),
                )
                .await
            }
            Command::Serve(serve) => {
                sealblk_proto::process::raise_descriptor_limit().map_err(system)?;
                daemon::serve(daemon::Options {
                    backend_arguments: serve.backend_arguments(),
                    state: serve.state,
                    socket: serve.socket,
                    socket_owner: serve.socket_owner,
                    socket_mode: serve.socket_mode,
                    accounts: serve.accounts,
                    passphrase_file: serve.passphrase_file,
                    deletion_days_most: serve.deletion_days_most,
                    backup_to: serve.backup_to,
                    sealblk: serve.sealblk,
                    require_sandbox: serve.require_sandbox,
                    log_filter,
                })
                .await
            }
            Command::Backup(backup) => {
                backup::backup(
                    &backup.state,
                    &backup.file,
                    backup.with_root_key,
                    backup.passphrase_file.as_deref(),
                    backup.root_passphrase_file.as_deref(),
                )
                .await
            }
            Command::Restore(restore) => {
                restore::restore(&restore.state, &restore.file, restore.passphrase_file.as_deref()).await
            }
        }
    });
    // Threads that wait for backends end with the process.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend_arguments(options: &[&str]) -> Vec<String> {
        let arguments = ["sealblk-kms", "serve", "--state", "/s"].iter().chain(options);
        let cli = Cli::try_parse_from(arguments).unwrap();
        let Command::Serve(serve) = cli.command else {
            unreachable!()
        };
        let arguments = serve.backend_arguments().into_iter();
        arguments
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn what_concerns_the_processes_is_handed_on() {
        assert_eq!(backend_arguments(&[]), Vec::<String>::new());
        assert_eq!(
            backend_arguments(&["--memory-on", "any", "--poll-time", "50", "--pin", "2,3"]),
            ["--poll-time", "50", "--pin", "2,3", "--memory-on", "any"]
        );
        assert_eq!(backend_arguments(&["--require-sandbox"]), ["--require-sandbox"]);
    }
}

//! The command line of `sealblk-kms`: apart from the daemon, so that `sealctl man` describes it without linking the daemon.

#![allow(missing_docs, reason = "a doc comment is help for the user")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::limits::{DELETION_DAYS_EVER, DELETION_DAYS_MOST};

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
pub struct Cli {
    /// How much is logged, to stderr; RUST_LOG sets it too, and in more detail.
    #[arg(long, global = true, value_enum)]
    pub log_level: Option<LogLevel>,
    #[command(subcommand)]
    pub command: Command,
}

/// Where a root key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RootKeyKind {
    /// A key file in the state directory, of mode 0600.
    File,
    /// A file in the state directory that a passphrase opens (Argon2id).
    Passphrase,
    /// A systemd credential, `sealblk-root-key`.
    Credential,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make a state directory: a root key, an empty catalogue, and this user as its owner.
    #[command(
        after_help = "The root key is DIR/root.key (mode 0600). Without it nothing in the catalogue opens, \
and every encrypted disk is lost: keep a copy in a safe place that is not the catalogue's backup.

Example:
  sealblk-kms init --state /var/lib/sealblk --region eu-1 --zone eu-1a
  sealblk-kms init --state /var/lib/sealblk --region eu-1 --activate"
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
  sealblk-kms serve --state /var/lib/sealblk --vhost-socket-owner libvirt-qemu:kvm --vhost-socket-mode 0660
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
pub struct Init {
    /// Directory to make.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Region whose keys are kept here.
    #[arg(long, value_name = "NAME")]
    pub region: String,
    /// Zone of disks and instances for which none is given; without it, the region with `-1` added.
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// Policy profile: which of the rules apply (docs/rules-profiles.md in /usr/share/doc/sealblk).
    #[arg(long, value_name = "NAME", default_value = "sealblk")]
    pub profile: String,
    /// Where the root key comes from.
    #[arg(long, value_enum, default_value_t = RootKeyKind::File)]
    pub root_key: RootKeyKind,
    /// Read the passphrase for the root key from this file (its first line) instead of the terminal.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Prepaid balance of the account `default`, in micro-units; where the profile has a price for calls.
    #[arg(long, value_name = "AMOUNT", default_value_t = 0)]
    pub balance: u64,
    /// Activate the KMS for the account `default`, as `sealctl kms activate` does later (rule K01).
    #[arg(long)]
    pub activate: bool,
}

#[derive(Args)]
pub struct Serve {
    /// State directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Socket of the API; without it, DIR/kms.sock.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// JSON file of the users that may call the API: their accounts and roles, and the paths that accounts may name
    /// (docs/operating.md in /usr/share/doc/sealblk).
    #[arg(long, value_name = "FILE")]
    pub accounts: Option<PathBuf>,
    /// Owner of the API's socket, and its group [default: this user].
    #[arg(long, value_name = "USER[:GROUP]")]
    pub socket_owner: Option<String>,
    /// Mode of the API's socket, octal [default: 0600].
    #[arg(long, value_name = "MODE")]
    pub socket_mode: Option<String>,
    /// Owner of the disks' vhost-user sockets, and their group, where `attach` does not say: who runs the virtual machines
    /// [default: this user].
    #[arg(long, value_name = "USER[:GROUP]")]
    pub vhost_socket_owner: Option<String>,
    /// Mode of the disks' vhost-user sockets, octal, where `attach` does not say [default: 0600].
    #[arg(long, value_name = "MODE")]
    pub vhost_socket_mode: Option<String>,
    /// Read the root key's passphrase from this file (its first line) instead of the terminal; after
    /// `init --root-key passphrase`.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Longest wait before a key is destroyed, 30 to 1096 days [default: 30].
    #[arg(long, value_name = "DAYS",
          value_parser = clap::value_parser!(u16).range(i64::from(DELETION_DAYS_MOST)..=i64::from(DELETION_DAYS_EVER)))]
    pub deletion_days_most: Option<u16>,
    /// Write a backup of the catalogue into this directory at the start and after each change of keys, in the background; the
    /// newest 10 stay. It belongs to this user or root, who alone may write to it.
    #[arg(long, value_name = "DIR")]
    pub backup_to: Option<PathBuf>,
    /// Give each record of the audit log also to `journald`, `file:PATH` (one a line) or `exec:PROGRAM` (one a line, on its standard
    /// input); with `,required` a call is done only when the sink has its record. Can be repeated.
    #[arg(long, value_name = "SINK")]
    pub audit_sink: Vec<String>,
    /// The sealblk program; without it, the one beside this program, or else the one in PATH.
    #[arg(long, value_name = "PATH")]
    pub sealblk: Option<PathBuf>,
    /// Refuse to serve where disks' processes cannot have all of their sandbox, and have each refuse likewise.
    #[arg(long)]
    pub require_sandbox: bool,
    /// Let the queues of all disks look for work so long before they sleep (see sealblk --help).
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(..=1000))]
    pub poll_time: Option<u64>,
    /// Run the queues of all disks on these processors, which the queues of each take in turn.
    #[arg(long, value_name = "CPU,…", value_delimiter = ',')]
    pub pin: Vec<u32>,
    /// Let machines have their memory on these file systems (see sealblk --help).
    #[arg(long, value_name = "WHICH", value_parser = ["local", "any"])]
    pub memory_on: Option<String>,
}

#[derive(Args)]
pub struct Backup {
    /// State directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// File to write; it must not exist.
    pub file: PathBuf,
    /// Put the root key into it, under a passphrase.
    #[arg(long)]
    pub with_root_key: bool,
    /// Read the passphrase from this file (its first line) instead of the terminal.
    #[arg(long, value_name = "FILE", requires = "with_root_key")]
    pub passphrase_file: Option<PathBuf>,
    /// Read the passphrase that the root key has in DIR from this file instead of the terminal; after
    /// `init --root-key passphrase`.
    #[arg(long, value_name = "FILE", requires = "with_root_key")]
    pub root_passphrase_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Restore {
    /// Directory to make; it may exist if it is empty, or as an unfinished restore left it.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The backup.
    pub file: PathBuf,
    /// Read the passphrase from this file (its first line) instead of the terminal.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

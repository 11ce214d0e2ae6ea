//! The command line, and what it names.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use sealblk::limits::MAX_POLL_MICROS;
use sealblk::socket::{SocketAccess, SocketError, VhostSocket, activated_descriptors};
use sealblk::vhost::{MemoryOn, Tuning};
use sealblk_proto::causes::with_causes;
use sealblk_proto::message::{Failure, code};
use sealblk_proto::process::inherited_descriptor;
use sealblk_proto::token::Token;

/// Serve one encrypted disk to a virtual machine over vhost-user-blk.
///
/// sealblk claims an attachment at sealblk-kms, is given the open store and the disk's key, and listens for QEMU or
/// cloud-hypervisor on the vhost-user socket. sealblk-kms starts it by itself; start it by hand or by systemd only
/// for attachments that were made with `sealctl attach --no-start`, which prints the command.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  sealblk --kms /var/lib/sealblk/run/ID/kms.sock --attachment ID --token-file /var/lib/sealblk/run/ID/token
  systemd: ListenStream= in sealblk@ID.socket, LoadCredential=token:… in sealblk@ID.service

Exit status: 0 after SIGTERM or a detach, when all requests in flight have been completed and are durable;
1 if the attachment cannot be served, or if the storage does not answer within 20 seconds of SIGTERM; 2 for a wrong command line."
)]
#[command(group(ArgGroup::new("listen").args(["socket", "socket_fd"])))]
pub(crate) struct Arguments {
    /// The KMS's socket for this attachment.
    #[arg(long, value_name = "SOCKET", required_unless_present = "check_sandbox")]
    pub(crate) kms: Option<PathBuf>,
    /// Id of the attachment to serve.
    #[arg(long, value_name = "ID", required_unless_present = "check_sandbox")]
    pub(crate) attachment: Option<String>,
    /// Listen on this path [default: systemd's socket if there is one, else the path that the KMS says].
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Who owns the socket, in numbers, unless it is inherited [default: this process's user and group].
    #[arg(long, value_name = "UID[:GID]")]
    pub(crate) socket_owner: Option<String>,
    /// Permissions of the socket, unless it is inherited [default: 0600].
    #[arg(long, value_name = "OCTAL")]
    pub(crate) socket_mode: Option<String>,
    /// Listen on this inherited descriptor.
    #[arg(long, value_name = "N")]
    pub(crate) socket_fd: Option<i32>,
    /// Read the token that proves the attachment from this inherited descriptor.
    #[arg(long, value_name = "N", conflicts_with = "token_file")]
    pub(crate) token_fd: Option<i32>,
    /// Read the token from this file [default: $CREDENTIALS_DIRECTORY/token].
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Started by root: go on as this user and group, without any other right [default: the owner of the KMS's socket].
    #[arg(long, value_name = "UID")]
    pub(crate) user: Option<u32>,
    /// Let queues look for work so long before they sleep, where that has paid of late: less latency for processor time.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_POLL_MICROS))]
    pub(crate) poll_time: u64,
    /// Run the queues' threads on these processors, which they take in turn.
    #[arg(long, value_name = "CPU,…", value_delimiter = ',')]
    pub(crate) pin: Vec<usize>,
    /// Take guest memory on memory and local disks alone, or on FUSE and network file systems, too. Where those do not answer,
    /// neither does the disk, to any of the machines that share it.
    #[arg(long, value_enum, default_value_t = MemoryOn::Local)]
    pub(crate) memory_on: MemoryOn,
    /// Refuse to serve where the kernel cannot confine this process in every way.
    #[arg(long)]
    pub(crate) require_sandbox: bool,
    /// Confine this process, say what of that the kernel can do, and end: with exit status 0 if it is everything.
    #[arg(long)]
    pub(crate) check_sandbox: bool,
    /// error, warn, info, debug or trace; RUST_LOG, if set, says more.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: log::LevelFilter,
}

impl Arguments {
    /// What the parent process has left open on purpose.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let named = self.socket_fd.into_iter().chain(self.token_fd);
        named.chain(activated_descriptors()).collect()
    }

    /// Whether it may have to make its socket: another supervisor than the KMS has started it, which gives none and takes none
    /// back.
    pub(crate) fn makes_socket(&self) -> bool {
        self.socket_fd.is_none() && self.token_fd.is_none()
    }

    pub(crate) fn tuning(&self) -> Tuning {
        Tuning {
            poll: Duration::from_micros(self.poll_time),
            processors: self.pin.clone(),
            memory: self.memory_on,
        }
    }
}

/// The token, from where the command line says it is.
///
/// # Errors
/// A [`Failure`] for the operator.
pub(crate) fn read_token(arguments: &Arguments) -> Result<Token, Failure> {
    let from_credentials = || {
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY")?;
        Some(PathBuf::from(directory).join("token"))
    };
    let file = match (
        arguments.token_fd,
        arguments.token_file.clone().or_else(from_credentials),
    ) {
        (Some(number), _) => inherited_descriptor(number).map(Into::into),
        (None, Some(path)) => std::fs::File::open(path),
        (None, None) => {
            return Err(Failure::new(
                "NoToken",
                "give --token-file or --token-fd, as `sealctl attach --no-start` says",
            ));
        }
    };
    file.and_then(Token::read_from)
        .map_err(|error| Failure::new("NoToken", format!("the token cannot be read: {error}")))
}

/// The socket to serve on: inherited, named, or where the KMS says.
///
/// # Errors
/// A [`Failure`] for the KMS.
pub(crate) fn listen(
    arguments: &Arguments,
    inherited: Option<VhostSocket>,
    default_path: &str,
) -> Result<VhostSocket, Failure> {
    let access = SocketAccess::parse(
        arguments.socket_owner.as_deref(),
        arguments.socket_mode.as_deref(),
    )
    .map_err(|error| Failure::new(code::SOCKET_UNUSABLE, with_causes(&error)))?;
    let listening = match (inherited, &arguments.socket) {
        (Some(socket), _) => return Ok(socket),
        (None, Some(path)) => VhostSocket::bind(path, access),
        (None, None) => match VhostSocket::activated() {
            Ok(Some(socket)) => Ok(socket),
            Ok(None) => VhostSocket::bind(default_path.as_ref(), access),
            Err(error) => Err(error),
        },
    };
    listening.map_err(|error| socket_failure(&error))
}

pub(crate) fn socket_failure(error: &SocketError) -> Failure {
    Failure::new(code::SOCKET_UNUSABLE, with_causes(error))
}

//! Starting a backend: with its socket and its token on inherited descriptors, an empty environment, its own process
//! group and, under a root KMS, its own user.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use sealblk_proto::causes::with_causes;
use sealblk_proto::message::Failure;
use sealblk_proto::token::Token;

use super::plan::Plan;
use crate::limits;

/// Held while descriptors are inheritable, so that no other child gets them.
static SPAWN: Mutex<()> = Mutex::new(());

/// What all backends are started with.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The sealblk binary.
    pub(crate) path: OsString,
    /// `RUST_LOG` of the process.
    pub(crate) log: Option<String>,
    /// Further arguments.
    pub(crate) arguments: Vec<OsString>,
}

/// Starts a backend, with the listening socket of the first attachment if that is its own to serve, unless it is to take
/// over from another.
///
/// # Errors
/// A [`Failure`] that says which step failed.
pub(super) fn spawn(
    program: &Program,
    plan: &Plan,
    socket: Option<OwnedFd>,
    token: &Token,
) -> Result<Child, Failure> {
    let started = (move || {
        let token = token_pipe(token)?;
        let log = open_log(&plan.log)?;
        start(program, plan, socket, token, log)
    })();
    started.map_err(|source| {
        let program = program.path.to_string_lossy().into_owned();
        Failure::new("BackendFailed", with_causes(&NotStarted { program, source }))
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{program} cannot be started")]
struct NotStarted {
    program: String,
    source: io::Error,
}

fn start(
    program: &Program,
    plan: &Plan,
    socket: Option<OwnedFd>,
    token: OwnedFd,
    log: File,
) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    command
        .arg("--kms")
        .arg(&plan.backend_socket)
        .args(["--attachment", &plan.service])
        .args(["--token-fd", &token.as_raw_fd().to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A signal for the KMS's terminal is not for its backends.
        .process_group(0);
    if let Some(socket) = &socket {
        command.args(["--socket-fd", &socket.as_raw_fd().to_string()]);
    }
    command.args(&program.arguments);
    if let Some(filter) = &program.log {
        command.env("RUST_LOG", filter);
    }
    if plan.uid != rustix::process::geteuid().as_raw() {
        // The process changes its user itself: that user may not be able to reach the program or the state directory.
        command.args(["--user", &plan.uid.to_string()]);
    }
    let inherited: Vec<_> = socket.into_iter().chain([token]).collect();
    let _alone = SPAWN.lock().unwrap_or_else(PoisonError::into_inner);
    for descriptor in &inherited {
        rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    let child = command.spawn();
    for descriptor in &inherited {
        rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    child
}

/// Starts the program so that it says what it can have to keep it in bounds, as who serves. It is killed when the result is
/// dropped.
///
/// # Errors
/// The kernel's.
pub(super) fn spawn_check(program: &Program) -> io::Result<tokio::process::Child> {
    let mut command = tokio::process::Command::new(&program.path);
    command
        .arg("--check-sandbox")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        command.args(["--user", &limits::BACKEND_UID_FIRST.to_string()]);
    }
    let _alone = SPAWN.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// A pipe that holds the token's digits: it is gone when it has been read.
fn token_pipe(token: &Token) -> io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let digits = zeroize::Zeroizing::new(token.to_hex());
    File::from(writer).write_all(digits.as_bytes())?;
    Ok(reader)
}

fn open_log(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.len() > limits::BACKEND_LOG_BYTES {
        file.set_len(0)?;
    }
    Ok(file)
}

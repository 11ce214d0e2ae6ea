//! From root, paths and everything else to what it takes to serve, and no more.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use sealblk::control::{Claimed, Own};
use sealblk::limits::{DESCRIPTORS, LOCKED_BYTES, MAX_QUEUES, MAX_SESSIONS, SHARED_QUEUES};
use sealblk::sandbox::{Confined, Needs, Sandbox};
use sealblk::socket::VhostSocket;
use sealblk::vhost::{Crew, Rings};
use sealblk::{host, logging, store};
use sealblk_proto::channel::{Bound, Listener};
use sealblk_proto::message::{AttachmentConfig, Failure, Mode, StoreKind};
use sealblk_proto::process::{Notifier, forbid_core_dumps};

use crate::arguments::{Arguments, listen};
use crate::stores::store_failure;

/// As `--check-sandbox` says.
pub(crate) fn check_sandbox(arguments: &Arguments) -> Result<ExitCode, Failure> {
    become_user(arguments)?;
    let sandbox = prepare_sandbox(false)?;
    let needs = Needs {
        queues: MAX_QUEUES.into(),
        own_user: arguments.user.is_some(),
        ..Needs::default()
    };
    let rings = rings((1, 1))?;
    let mut confined = confine(sandbox, &needs)?;
    drop(crew(rings, &mut confined)?);
    let report = confined.filter();
    println!("{}", report.lines().join("\n"));
    Ok(match report.missing().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What was had before everything else was given up.
pub(crate) struct Place {
    /// On which the first session is served, if this process begins it.
    pub(crate) socket: Option<VhostSocket>,
    /// Where a KMS that has come back dials.
    pub(crate) control: Option<Listener>,
    pub(crate) notifier: Option<Notifier>,
    /// The threads of queues.
    pub(crate) crew: Crew,
    /// What the sandbox lacks, each as `name: cause`.
    pub(crate) lacks: Vec<String>,
}

impl Place {
    /// Does the last that needs paths, and gives up the rest. To be called while there is one thread.
    ///
    /// # Errors
    /// A [`Failure`] for the KMS.
    pub(crate) fn take(
        arguments: &Arguments,
        inherited: Option<VhostSocket>,
        control: io::Result<Bound>,
        claimed: &Claimed,
        sandbox: Sandbox,
    ) -> Result<Self, Failure> {
        let config = &claimed.config;
        let files = claimed.files();
        let looked = host::prepare(match &claimed.own {
            Own::Store { .. } => Some(&files),
            Own::Predecessor(_) => None,
        });
        looked.map_err(|error| Failure::new("Host", error.to_string()))?;
        let begins = config.mode == Mode::Serve && !config.socket.is_empty();
        if let (true, Own::Store { data, .. }) = (begins, &claimed.own) {
            store::lock(data).map_err(|error| store_failure(&error))?;
        }
        let socket = begins.then(|| listen(arguments, inherited, &config.socket));
        let socket = socket.transpose()?;
        let control = match config.mode {
            Mode::Serve | Mode::TakeOver => listen_for_kms(control),
            _ => None,
        };
        let notifier = Notifier::connect().unwrap_or_else(|error| {
            log::warn!("the supervisor cannot be notified: {error}");
            None
        });
        let rings = rings(queues_of(config))?;
        let needs = Needs {
            own_user: arguments.user.is_some(),
            directory: socket.as_ref().and_then(VhostSocket::directory),
            ..needs(claimed)
        };
        let mut confined = confine(sandbox, &needs)?;
        // Threads that need what is given up last.
        let crew = crew(rings, &mut confined)?;
        logging::write_aside().map_err(|error| Failure::new("Threads", error.to_string()))?;
        Ok(Place {
            lacks: enter(confined, arguments)?,
            socket,
            control,
            notifier,
            crew,
        })
    }
}

/// Gives up root if that is wanted; how the KMS is reached then.
pub(crate) fn become_user(arguments: &Arguments) -> Result<PathBuf, Failure> {
    let kms = arguments.kms.clone().unwrap_or_default();
    match arguments.user.or_else(|| user_of_socket(&kms)) {
        Some(user) => give_up_root(user, &kms)
            .map_err(|error| Failure::new("User", format!("cannot go on as user {user}: {error}"))),
        None => {
            if Uid::effective().is_root() {
                raise_lock_limit();
            }
            raise_descriptor_limit();
            Ok(kms)
        }
    }
}

/// The user to whom the KMS has given its socket for this attachment, and whom it takes a claim from; none if this process is not
/// root's, or is to stay so.
fn user_of_socket(kms: &Path) -> Option<u32> {
    let owner = std::fs::symlink_metadata(kms).ok()?.uid();
    (Uid::effective().is_root() && owner != 0).then_some(owner)
}

/// Becomes `user`, for good. First enters the directory of the KMS's socket, which `user` may not be able to reach
/// from the root directory, and returns the socket's path from there.
fn give_up_root(user: u32, kms: &Path) -> io::Result<PathBuf> {
    let kms = go_beside(kms)?;
    raise_lock_limit();
    raise_descriptor_limit();
    // For namespaces; it gives them up when it has those.
    rustix::thread::set_keep_capabilities(true)?;
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // A change of user may have made it dumpable again.
    forbid_core_dumps()?;
    Ok(kms)
}

/// Enters the directory of a file, and returns its path from there.
fn go_beside(file: &Path) -> io::Result<PathBuf> {
    let name = file.file_name().unwrap_or_default();
    if let Some(directory) = file
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        std::env::set_current_dir(directory)?;
    }
    Ok(PathBuf::from(name))
}

/// Makes room for the keys and stacks that are locked. Where even root may not, the present limit stays, and what does
/// not fit is an error later.
fn raise_lock_limit() {
    let raised = getrlimit(Resource::RLIMIT_MEMLOCK).and_then(|(soft, hard)| {
        setrlimit(
            Resource::RLIMIT_MEMLOCK,
            soft.max(LOCKED_BYTES),
            hard.max(LOCKED_BYTES),
        )
    });
    if let Err(error) = raised {
        log::info!("the limit of locked memory stays as it is: {error}");
    }
}

/// Sixteen sessions with all their queues and memory regions need more descriptors than the usual soft limit.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        // Root may go beyond it.
        let wanted = hard.max(DESCRIPTORS);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
            .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
    });
    if let Err(error) = raised {
        log::info!("the limit of open files stays as it is: {error}");
    }
}

/// What can be had of it later. Started by root, the process may still make a socket that its user could not.
///
/// # Errors
/// A [`Failure`] for the operator.
pub(crate) fn prepare_sandbox(makes_socket: bool) -> Result<Sandbox, Failure> {
    Sandbox::prepare(makes_socket).map_err(|error| sandbox_failure(&error))
}

fn confine(sandbox: Sandbox, needs: &Needs<'_>) -> Result<Confined, Failure> {
    sandbox.confine(needs).map_err(|error| sandbox_failure(&error))
}

/// The last step, which must hold in full if that is required. Returns what is missing.
fn enter(confined: Confined, arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let report = confined.filter();
    report.log();
    match report.missing() {
        [_, ..] if arguments.require_sandbox => Err(Failure::new("SandboxIncomplete", report.to_string())),
        missing => Ok(missing.to_vec()),
    }
}

fn sandbox_failure(error: &io::Error) -> Failure {
    Failure::new("Sandbox", format!("this process cannot be confined: {error}"))
}

/// By what it is to do.
fn needs(claimed: &Claimed) -> Needs<'static> {
    let config = &claimed.config;
    let source = claimed.source.as_ref().map(|source| &source.config);
    let is_layered = |store| store == StoreKind::Layered;
    let (queues, _) = queues_of(config);
    Needs {
        queues,
        size: config.size.max(source.map_or(0, |source| source.size)),
        layered: is_layered(config.store) || source.is_some_and(|source| is_layered(source.store)),
        copies: source.is_some(),
        ..Needs::default()
    }
}

/// As many as can be served at a time, at best and at least. Of a shared disk's attachments more may come later.
fn queues_of(config: &AttachmentConfig) -> (usize, usize) {
    let queues = usize::from(config.queues.min(MAX_QUEUES));
    match config.mode {
        Mode::Serve | Mode::TakeOver if config.shared => {
            let all = usize::from(config.all_queues).max(queues);
            let most = MAX_SESSIONS * usize::from(MAX_QUEUES);
            (
                (all + usize::from(MAX_QUEUES)).max(SHARED_QUEUES).min(most),
                all.min(most),
            )
        }
        Mode::Serve | Mode::TakeOver => (queues, queues),
        _ => (0, 0),
    }
}

fn rings((wanted, least): (usize, usize)) -> Result<Rings, Failure> {
    Rings::new(wanted, least).map_err(|error| {
        let text = format!("no io_uring for each of {least} queues can be had: {error}");
        Failure::new("Rings", text)
    })
}

fn crew(rings: Rings, confined: &mut Confined) -> Result<Crew, Failure> {
    let restricted = match rings.are_restricted() {
        true => Ok(()),
        false => Err("the kernel cannot restrict what is done with one".to_owned()),
    };
    confined.note("io_uring", restricted);
    Crew::with(rings).map_err(|error| {
        let text = format!("the threads of the queues cannot be set up: {error}");
        Failure::new("Threads", text)
    })
}

/// Where a KMS that has come back reaches this process. Without that the guest is served all the same.
fn listen_for_kms(bound: io::Result<Bound>) -> Option<Listener> {
    bound
        .and_then(Bound::listen)
        .inspect_err(|error| {
            log::warn!(
                "no KMS that is started later will reach this process, which cannot make its socket beside the KMS's: {error}"
            );
        })
        .ok()
}

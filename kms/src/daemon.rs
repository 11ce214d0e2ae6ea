//! `sealblk-kms serve`: puts the parts together, serves, and ends.

pub(crate) mod accounts_file;
mod reload;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealblk_proto::process::notify;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::audit::sinks::Sinks;
use crate::calls::snapshot::by_schedule;
use crate::catalogue::database_file::remove_database;
use crate::catalogue::meta::{self, Meta};
use crate::catalogue::{Catalogue, clock, start};
use crate::console::say;
use crate::context::records::CatalogueRecords;
use crate::context::retry_queue::RetryQueue;
use crate::context::{Kms, Opened};
use crate::error::{Code, Error, Result};
use crate::host::backends::sandbox::Checked;
use crate::host::backends::vhost_socket::{self, Occupant, SocketAccess};
use crate::host::backends::{Program, Shared, Supervisor};
use crate::host::paths::HostPaths;
use crate::http;
use crate::http::shares::Shares;
use crate::intents::recovery;
use crate::jobs::backup_to;
use crate::jobs::housekeeping;
use crate::jobs::{audit_passes, audit_sinks, bin, key_work, machine_watch, watchdog};
use crate::keys::keyring::Keyring;
use crate::keys::root;
use crate::limits;
use crate::profile::{Profile, stored};
use crate::state::StateDir;
use crate::timekeeper::{Machine, Timekeeper};
use crate::volumes::socket_choice;
use reload::Reload;

/// How to serve.
pub(crate) struct Options {
    pub(crate) state: PathBuf,
    pub(crate) socket: Option<PathBuf>,
    /// `USER[:GROUP]` and octal mode of the socket.
    pub(crate) socket_owner: Option<String>,
    pub(crate) socket_mode: Option<String>,
    /// Those of disks' sockets, where a call does not say.
    pub(crate) vhost_socket_owner: Option<String>,
    pub(crate) vhost_socket_mode: Option<String>,
    /// Who may call the API besides the owner.
    pub(crate) accounts: Option<PathBuf>,
    /// File whose first line is the passphrase of the root key.
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Longest wait before a key is destroyed, in days.
    pub(crate) deletion_days_most: Option<u16>,
    /// Where records of the audit log go besides.
    pub(crate) audit_sinks: Vec<String>,
    /// Where backups are written when keys have changed.
    pub(crate) backup_to: Option<PathBuf>,
    pub(crate) sealblk: Option<PathBuf>,
    /// Refuse to serve where processes lack a part of their sandbox.
    pub(crate) require_sandbox: bool,
    pub(crate) log_filter: String,
    /// Handed on to every sealblk.
    pub(crate) backend_arguments: Vec<OsString>,
}

/// Serves until a signal ends it.
///
/// # Errors
/// Whatever keeps it from serving.
pub(crate) async fn serve(options: Options) -> Result<()> {
    let state = StateDir::open(&options.state)?;
    let _lock = state.lock()?;
    let access = |owner: Option<String>, mode: Option<String>| {
        socket_choice::access(owner.as_deref(), mode.as_deref(), SocketAccess::OWN)
    };
    let vhost_access = access(options.vhost_socket_owner, options.vhost_socket_mode)?;
    let access = access(options.socket_owner, options.socket_mode)?;
    let backup_to = match &options.backup_to {
        Some(directory) => Some(backup_to::check(directory, &state).await?),
        None => None,
    };
    let program = Program {
        path: find_sealblk(options.sealblk),
        log: Some(options.log_filter),
        arguments: options.backend_arguments,
    };
    let mut kms = open(state, program, options.passphrase_file.as_deref()).await?;
    if let Some(days) = options.deletion_days_most {
        kms.deletion_days_most = days;
    }
    kms.require_sandbox = options.require_sandbox;
    kms.vhost_access = vhost_access;
    // Before anything is written: its log may have no room.
    kms.catalogue.keep_reserve().await;
    kms.sinks
        .set(audit_sinks::open(&kms.catalogue, &options.audit_sinks).await?);
    let allowed = accounts_file::apply(&kms.catalogue, options.accounts.as_deref()).await?;
    kms.quotas = allowed.quotas;
    let given = [&options.accounts, &options.passphrase_file, &options.socket];
    let given = given.into_iter().flatten();
    let given = given.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    kms.paths.configure(&kms.state, allowed.paths, given.collect());
    let kms = Arc::new(kms);
    if options.require_sandbox {
        require_sandbox(kms.supervisor.check_sandbox().await)?;
    } else {
        let kms = Arc::clone(&kms);
        tokio::spawn(async move { kms.supervisor.check_sandbox().await.is_ok() });
    }
    kms.catalogue.forget_destroyed().await;
    let shares = Arc::new(Shares::load(&kms.catalogue).await?);
    // Before the socket, which tells others that this process can be ended in order.
    let mut signals = Signals::new()?;
    // Before anything is started: where the path is taken, this process must end and leave nothing behind.
    let path = options.socket.unwrap_or_else(|| kms.state.api_socket());
    let (listener, socket) = bind(&path, access)?;
    let recovered = tokio::select! {
        recovered = recovery::recover(&kms) => recovered.map(|_| true),
        () = signals.next() => Ok(false),
    };
    if !matches!(recovered, Ok(true)) {
        socket.remove();
    }
    if !recovered? {
        log::info!("ending before the recovery is complete: the next start goes on with it");
        return Ok(());
    }
    tokio::spawn(key_work::run(Arc::downgrade(&kms)));
    tokio::spawn(bin::run(Arc::downgrade(&kms)));
    tokio::spawn(by_schedule::carry_out(Arc::downgrade(&kms)));
    tokio::spawn(machine_watch::run(Arc::downgrade(&kms)));
    tokio::spawn(audit_passes::in_background(Arc::clone(&kms)));
    audit_sinks::begin(&kms);
    if let Some(directory) = backup_to {
        tokio::spawn(backup_to::run(Arc::downgrade(&kms), directory));
    }
    let (stop, stopped) = watch::channel(false);
    let reload = Reload {
        kms: Arc::clone(&kms),
        shares: Arc::clone(&shares),
        accounts: options.accounts,
    };
    let server = tokio::spawn(http::server::serve(listener, Arc::clone(&kms), shares, stopped));
    say(&format!(
        "sealblk-kms serves region {} on {}",
        kms.meta.region,
        path.display()
    ));
    // Nobody else listens, so a failure is none.
    let _ = notify("READY=1");
    tokio::spawn(watchdog::run());
    while signals.ends_or_reloads().await == Asked::Reload {
        reload.run().await;
    }
    drop(reload);
    let _ = notify("STOPPING=1");
    log::info!("ending; backends go on");
    // The path goes first: who comes now finds nobody, and a successor's socket is not removed later.
    socket.remove();
    stop.send_replace(true);
    let ended = async {
        let _ = server.await;
        kms.end().await;
        if let Err(error) = housekeeping::write(&kms, true).await {
            log::warn!("the next start goes on with less: {}", error.full_message());
        }
        audit_sinks::end(&kms).await;
        kms.catalogue.close().await;
    };
    tokio::select! {
        () = ended => {}
        () = tokio::time::sleep(limits::SHUTDOWN_TIME) => log::warn!("not all calls have ended: the next start ends them"),
        () = signals.next() => log::warn!("ending at once: the next start ends the calls that are open"),
    }
    Ok(())
}

/// Refuses where a process that is started now lacks something.
fn require_sandbox(checked: &Checked) -> Result<()> {
    let missing = |text: String| Err(Error::new(Code::SandboxMissing, text));
    let protections = match checked {
        Ok(protections) => protections,
        Err(why) => return missing(why.clone()),
    };
    let lacking: Vec<_> = protections
        .iter()
        .filter_map(|protection| Some(format!("{}: {}", protection.name, protection.cause.as_ref()?)))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    missing(format!(
        "serving processes would lack this: {}",
        lacking.join("; ")
    ))
}

/// The profile with the switches that the region was initialised with, and what this version adds to them.
async fn profile_of(catalogue: &Catalogue, meta: &Meta) -> Result<&'static Profile> {
    let region = stored::of_region(&meta.profile, meta.switches.as_deref())?;
    if !region.others.is_empty() {
        log::info!(
            "this version has other switches in profile {}: the region keeps those that it was initialised with: {}",
            meta.profile,
            region.others.join(", ")
        );
    }
    if meta.switches.as_ref() != Some(&region.switches) {
        let mut tx = catalogue.write().await?;
        meta::set_switches(&mut tx, &region.switches).await?;
        tx.commit().await?;
    }
    Ok(region.profile)
}

/// Opens a state directory.
///
/// # Errors
/// Those of the catalogue, the root key and the profile; [`Code::AuditBroken`].
pub(crate) async fn open(state: StateDir, program: Program, passphrase_file: Option<&Path>) -> Result<Kms> {
    // Of a daemon that was stopped while it wrote one: keys that are destroyed must not stay in it.
    let unfinished = state.unfinished_backup();
    if let Err(error) = remove_database(&unfinished) {
        log::warn!("{} cannot be removed: {error}", unfinished.display());
    }
    let catalogue = start::open(&state.catalogue()).await?;
    let (meta, times, owner) = {
        let mut db = catalogue.read().await?;
        let meta = meta::load(&mut db).await?;
        (meta, clock::load(&mut db).await?, meta::owner(&mut db).await?)
    };
    let profile = profile_of(&catalogue, &meta).await?;
    let provider = root::provider_of(&state, &meta, passphrase_file)?;
    let root = root::find_and_promote(&*provider, |root| Keyring::check(root, &meta))?;
    let keyring = Keyring::new(root, &meta)?;
    audit_passes::at_start(&catalogue, &keyring, limits::AUDIT_AT_START).await?;
    let sinks = Arc::<Sinks>::default();
    let retries = Arc::<RetryQueue>::default();
    let machines = Arc::default();
    let supervisor = Supervisor::new(Shared {
        records: Arc::new(CatalogueRecords {
            catalogue: catalogue.clone(),
            keyring: keyring.clone(),
            sinks: Arc::clone(&sinks),
            retries: Arc::clone(&retries),
            machines: Arc::clone(&machines),
        }),
        program,
        runtime: tokio::runtime::Handle::current(),
    });
    let mut kms = Kms::new(Opened {
        state,
        catalogue,
        keyring,
        root_provider: provider,
        meta,
        profile,
        machines,
        supervisor,
        clock: Timekeeper::new(Box::new(Machine::new()?), times),
        sinks,
        retries,
    });
    kms.paths = HostPaths::new(&kms.state, owner);
    Ok(kms)
}

fn find_sealblk(chosen: Option<PathBuf>) -> OsString {
    if let Some(path) = chosen {
        // Backends start in another directory.
        return std::path::absolute(&path).unwrap_or(path).into_os_string();
    }
    let beside = std::env::current_exe()
        .ok()
        .map(|path| path.with_file_name("sealblk"));
    match beside {
        Some(path) if path.is_file() => path.into_os_string(),
        _ => "sealblk".into(),
    }
}

/// A socket's file that this process has made.
struct OwnSocket {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OwnSocket {
    fn new(path: &Path) -> io::Result<Self> {
        let made = std::fs::symlink_metadata(path)?;
        Ok(OwnSocket {
            path: path.to_owned(),
            device: made.dev(),
            inode: made.ino(),
        })
    }

    /// Removes the file, unless it is another's by now.
    fn remove(&self) {
        if Self::new(&self.path).is_ok_and(|found| (found.device, found.inode) == (self.device, self.inode)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The path without links in its directories, which are its owner's.
fn real_place(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn bind(path: &Path, access: SocketAccess) -> Result<(UnixListener, OwnSocket)> {
    let failed = |error: io::Error| {
        Error::because(
            Code::InvalidPath,
            format!("{} cannot be the API's socket", path.display()),
            error,
        )
    };
    let path = &real_place(path).map_err(failed)?;
    match vhost_socket::occupant(path).map_err(failed)? {
        Occupant::Server => {
            let text = format!(
                "another process serves on {}: choose another socket",
                path.display()
            );
            return Err(Error::new(Code::SocketInUse, text));
        }
        Occupant::File => return Err(failed(io::ErrorKind::AlreadyExists.into())),
        Occupant::Nobody => {}
    }
    let (listener, _) = vhost_socket::bind(path, access).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let socket = OwnSocket::new(path).map_err(failed)?;
    Ok((UnixListener::from_std(listener).map_err(failed)?, socket))
}

/// The signals that end the daemon, or have it read its accounts again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(PartialEq, Eq)]
enum Asked {
    End,
    Reload,
}

impl Signals {
    fn new() -> Result<Self> {
        let failed = |error| Error::because(Code::Internal, "signals cannot be waited for", error);
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
        })
    }

    async fn ends_or_reloads(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// The next one that ends the daemon.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

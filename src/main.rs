//! The serving process of one attachment. See the library's documentation for the way of a request.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::{ArgGroup, Parser};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use sealblk::barrier::Barrier;
use sealblk::control::{
    Aside, Claim, Claimed, ClaimedSource, Commander, Ended, Looks, Own, Sessions, TakenSession, copying,
    maintain, store_code, take_over,
};
use sealblk::copy::{Copy, Image, Input};
use sealblk::crypto::DiskCipher;
use sealblk::disk::Disk;
use sealblk::host;
use sealblk::limits::{
    DESCRIPTORS, END_PATIENCE, LOCKED_BYTES, MAX_POLL_MICROS, MAX_QUEUES, MAX_SESSIONS, SHARED_QUEUES,
};
use sealblk::logging;
use sealblk::sandbox::{Confined, Kind, Needs, Sandbox, narrow};
use sealblk::socket::{SocketAccess, SocketError, VhostSocket, activated_descriptors};
use sealblk::store::layered::{NewStore, ObjectId, Uuid};
use sealblk::store::{self, FilePair, LockError, OpenError, RawStore, Store, ThinStore};
use sealblk::units::{ByteLen, Capacity, SECTOR_BYTES};
use sealblk::vhost::{Crew, MemoryOn, QueueContext, Rings, Tuning};
use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::{Bound, Channel, Listener};
use sealblk_proto::control;
use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::{
    AttachmentConfig, Failure, FileFormat, Mode, OnFull, SessionConfig, StoreKind, code,
};
use sealblk_proto::process::{
    Notifier, close_inherited, forbid_core_dumps, inherited_descriptor, leave_session_keyring,
};
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
struct Arguments {
    /// The KMS's socket for this attachment.
    #[arg(long, value_name = "SOCKET", required_unless_present = "check_sandbox")]
    kms: Option<PathBuf>,
    /// Id of the attachment to serve.
    #[arg(long, value_name = "ID", required_unless_present = "check_sandbox")]
    attachment: Option<String>,
    /// Listen on this path [default: systemd's socket if there is one, else the path that the KMS says].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Who owns the socket, in numbers, unless it is inherited [default: this process's user and group].
    #[arg(long, value_name = "UID[:GID]")]
    socket_owner: Option<String>,
    /// Permissions of the socket, unless it is inherited [default: 0600].
    #[arg(long, value_name = "OCTAL")]
    socket_mode: Option<String>,
    /// Listen on this inherited descriptor.
    #[arg(long, value_name = "N")]
    socket_fd: Option<i32>,
    /// Read the token that proves the attachment from this inherited descriptor.
    #[arg(long, value_name = "N", conflicts_with = "token_file")]
    token_fd: Option<i32>,
    /// Read the token from this file [default: $CREDENTIALS_DIRECTORY/token].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Started by root: go on as this user and group, without any other right.
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
    /// Let queues look for work so long before they sleep, where that has paid of late: less latency for processor time.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_POLL_MICROS))]
    poll_time: u64,
    /// Run the queues' threads on these processors, which they take in turn.
    #[arg(long, value_name = "CPU,…", value_delimiter = ',')]
    pin: Vec<usize>,
    /// Take guest memory on memory and local disks alone, or on FUSE and network file systems, too. Where those do not answer,
    /// neither does the disk, to any of the machines that share it.
    #[arg(long, value_enum, default_value_t = MemoryOn::Local)]
    memory_on: MemoryOn,
    /// Refuse to serve where the kernel cannot confine this process in every way.
    #[arg(long)]
    require_sandbox: bool,
    /// Confine this process, say what of that the kernel can do, and end: with exit status 0 if it is everything.
    #[arg(long)]
    check_sandbox: bool,
    /// error, warn, info, debug or trace; RUST_LOG, if set, says more.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: log::LevelFilter,
}

impl Arguments {
    /// What the parent process has left open on purpose.
    fn descriptors(&self) -> Vec<RawFd> {
        let named = self.socket_fd.into_iter().chain(self.token_fd);
        named.chain(activated_descriptors()).collect()
    }

    fn tuning(&self) -> Tuning {
        Tuning {
            poll: Duration::from_micros(self.poll_time),
            processors: self.pin.clone(),
            memory: self.memory_on,
        }
    }
}

/// Why the process ends.
enum End {
    Terminated,
    Commander(Ended),
}

fn main() -> ExitCode {
    // Before there is anything to dump.
    if let Err(error) = forbid_core_dumps() {
        eprintln!("error: CoreDumps: core dumps cannot be forbidden: {error}");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::parse();
    if let Err(error) = close_inherited(&arguments.descriptors()) {
        eprintln!("error: Descriptors: what was inherited cannot be closed: {error}");
        return ExitCode::FAILURE;
    }
    logging::start(arguments.log_level);
    let done = match arguments.check_sandbox {
        true => check_sandbox(&arguments),
        false => run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    let status = match done {
        Ok(status) => status,
        Err(failure) => {
            logging::say(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    };
    logging::flush();
    status
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Inherited descriptors first: later numbers might be theirs.
    let inherited = arguments
        .socket_fd
        .map(VhostSocket::inherit)
        .transpose()
        .map_err(|error| socket_failure(&error))?;
    let token = read_token(arguments)?;
    if let Err(error) = leave_session_keyring() {
        log::info!("the session keyring stays as it was inherited: {error}");
    }
    // The user that this process becomes may not write there.
    let control = control::bind(arguments.kms.as_deref().unwrap_or(".".as_ref()));
    let kms = become_user(arguments)?;
    let sandbox = prepare_sandbox()?;
    block_signals(&[Signal::SIGHUP])?;

    let claim = Claim {
        kms,
        attachment: arguments.attachment.clone().unwrap_or_default(),
        token,
    };
    let claimed = claim
        .take()
        .map_err(|error| Failure::new("ClaimFailed", with_causes(&error)))?;
    // From here on they are waited for.
    block_signals(&ENDING)?;
    // The last that needs paths, and is not done by several threads; then threads that need what is given up last.
    let confined = Place::find(arguments, inherited, control, &claimed).and_then(|mut place| {
        let own_user = arguments.user.is_some();
        let rings = rings(queues_of(&claimed.config))?;
        let mut confined = confine(sandbox, &needs(&claimed, &place, own_user))?;
        place.crew = Some(crew(rings, &mut confined)?);
        logging::write_aside().map_err(|error| Failure::new("Threads", error.to_string()))?;
        let lacks = enter(confined, arguments)?;
        Ok((place, lacks))
    });
    let (place, lacks) = match confined {
        Ok(confined) => confined,
        Err(failure) => return report(&claimed.channel, Err(failure)),
    };
    let end = Ending::watch()?;
    match claimed.config.mode {
        Mode::Serve | Mode::TakeOver => serve(arguments, place, end, claim, claimed, lacks),
        Mode::Maintain | Mode::Create { .. } => maintain_store(end, claimed),
        Mode::Copy { .. } => copy_store(end, claimed),
    }
}

/// As `--check-sandbox` says.
fn check_sandbox(arguments: &Arguments) -> Result<ExitCode, Failure> {
    become_user(arguments)?;
    let sandbox = prepare_sandbox()?;
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

/// Gives up root if that is wanted; how the KMS is reached then.
fn become_user(arguments: &Arguments) -> Result<PathBuf, Failure> {
    let kms = arguments.kms.clone().unwrap_or_default();
    match arguments.user {
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

fn prepare_sandbox() -> Result<Sandbox, Failure> {
    Sandbox::prepare().map_err(|error| sandbox_failure(&error))
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

fn sandbox_failure(error: &io::Error) -> Failure {
    Failure::new("Sandbox", format!("this process cannot be confined: {error}"))
}

fn needs<'p>(claimed: &Claimed, place: &'p Place, own_user: bool) -> Needs<'p> {
    let config = &claimed.config;
    let source = claimed.source.as_ref().map(|source| &source.config);
    let is_layered = |store| store == StoreKind::Layered;
    let sessions = if config.shared { MAX_SESSIONS } else { 1 };
    let queues = match config.mode {
        Mode::Serve | Mode::TakeOver => usize::from(MAX_QUEUES) * sessions,
        _ => 0,
    };
    Needs {
        queues,
        size: config.size.max(source.map_or(0, |source| source.size)),
        layered: is_layered(config.store) || source.is_some_and(|source| is_layered(source.store)),
        copies: source.is_some(),
        own_user,
        directory: place.socket.as_ref().and_then(VhostSocket::directory),
    }
}

/// What had to be done by paths.
struct Place {
    /// On which the first session is served, if this process begins it.
    socket: Option<VhostSocket>,
    /// Where a KMS that has come back dials.
    control: Option<Listener>,
    notifier: Option<Notifier>,
    /// Made a little later.
    crew: Option<Crew>,
}

impl Place {
    fn find(
        arguments: &Arguments,
        inherited: Option<VhostSocket>,
        control: io::Result<Bound>,
        claimed: &Claimed,
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
        let notifier = Notifier::connect().unwrap_or_else(|error| {
            log::warn!("the supervisor cannot be notified: {error}");
            None
        });
        Ok(Place {
            socket: socket.transpose()?,
            control: match config.mode {
                Mode::Serve | Mode::TakeOver => listen_for_kms(control),
                _ => None,
            },
            notifier,
            crew: None,
        })
    }
}

/// Serves a guest.
fn serve(
    arguments: &Arguments,
    place: Place,
    ending: Ending,
    claim: Claim,
    claimed: Claimed,
    lacks: Vec<String>,
) -> Result<(), Failure> {
    let Place {
        socket,
        control,
        notifier,
        crew,
    } = place;
    let Claimed {
        channel,
        mut config,
        own,
        bases,
        key,
        ..
    } = claimed;
    // As a KMS that comes back says it.
    config.mode = Mode::Serve;
    let barrier = Arc::new(Barrier::default());
    let started = (|| {
        if !(1..=MAX_QUEUES).contains(&config.queues) {
            return Err(Failure::new(
                "InvalidQueues",
                format!("1 to {MAX_QUEUES} queues can be served"),
            ));
        }
        let tuning = arguments.tuning();
        tuning
            .check()
            .map_err(|error| Failure::new("InvalidProcessor", with_causes(&error)))?;
        let crew = crew.ok_or_else(|| Failure::new("Threads", "there are none"))?;
        let cipher = derive(config.store, config.size, key)?;
        let (data, metadata, origin) = match own {
            Own::Store { data, metadata } => (data, metadata, Origin::New(socket)),
            // From here on the guest waits.
            Own::Predecessor(bridge) => {
                let taken = take_over(&bridge, &claim.attachment, &config)?;
                (taken.data, taken.metadata, Origin::Predecessor(taken.sessions))
            }
        };
        let (store, capacity) = open_store(config.size, data, metadata, bases)?;
        let direct = store.is_direct();
        // Of several sessions some may write.
        let disk = Disk::new(capacity, false, &config.serial, cipher, store);
        let disk = Arc::new(if config.shared { disk.shared() } else { disk });
        disk.room().set_holds(config.on_full == OnFull::Stop);
        let context = QueueContext::new(disk.clone(), barrier.clone(), tuning, crew);
        let sessions = Arc::new(Sessions::new(context));
        begin(&claim, &config, origin, &sessions)?;
        log::info!(
            "serving {}: {} bytes, {}, {}",
            config.disk,
            capacity.bytes().0,
            if config.encrypted { "AES-256-XTS" } else { "plain" },
            if direct { "direct I/O" } else { "page cache" }
        );
        Ok((disk, sessions))
    })();
    let (disk, sessions) = report(&channel, started)?;
    if let Some(Err(error)) = notifier.map(Notifier::ready) {
        log::warn!("the supervisor was not notified: {error}");
    }

    let looks = Looks::at(disk.clone()).map_err(|error| Failure::new("Looks", error.to_string()))?;
    let commander = Commander {
        claim,
        control,
        sandbox: Some(lacks),
        config,
        disk: disk.clone(),
        barrier,
        sessions: sessions.clone(),
        looks,
        syncs: Aside::default(),
    };
    let end = ending.wait(move || commander.run(channel))?;
    finish(end, &sessions, &disk);
    Ok(())
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

/// Whom is served to begin with.
enum Origin {
    /// A socket, and nobody on it; or not even that, if the attachment that was claimed is not one of the disk's any more.
    New(Option<VhostSocket>),
    /// Whom a predecessor has served.
    Predecessor(Vec<TakenSession>),
}

/// Begins the first sessions.
fn begin(
    claim: &Claim,
    config: &AttachmentConfig,
    origin: Origin,
    sessions: &Sessions,
) -> Result<(), Failure> {
    match origin {
        Origin::New(None) => Ok(()),
        Origin::New(Some(socket)) => {
            let (socket, path) = socket.into_parts();
            let session = SessionConfig {
                attachment: claim.attachment.clone(),
                queues: config.queues,
                read_only: config.read_only,
            };
            sessions.add(session, socket, path)
        }
        Origin::Predecessor(taken) => taken
            .into_iter()
            .try_for_each(|session| sessions.adopt(session.config, session.server)),
    }
}

/// The keys of the disk: where it can grow, for all that it can become.
fn derive(store: StoreKind, size: u64, key: Option<LineageKey>) -> Result<Option<DiskCipher>, Failure> {
    let capacity = match store {
        StoreKind::Layered => Capacity::LARGEST,
        StoreKind::Raw => capacity_of(size)?,
    };
    key.map(|key| DiskCipher::derive(&key, capacity))
        .transpose()
        .map_err(|error| Failure::new(code::KEY_UNUSABLE, with_causes(&error)))
}

fn capacity_of(size: u64) -> Result<Capacity, Failure> {
    Capacity::new(ByteLen(size)).map_err(|error| Failure::new(code::STORE_UNUSABLE, error.to_string()))
}

/// Opens the store of a disk that is to be served, and says how large the disk is.
fn open_store(
    size: u64,
    data: File,
    metadata: Option<File>,
    bases: Vec<FilePair>,
) -> Result<(Store, Capacity), Failure> {
    let capacity = capacity_of(size)?;
    let Some(metadata) = metadata else {
        let store = RawStore::open(data, capacity).map_err(|error| store_failure(&error))?;
        return Ok((Store::Raw(store), capacity));
    };
    let store =
        ThinStore::open(FilePair { data, metadata }, bases, true).map_err(|error| store_failure(&error))?;
    // What the store says counts: the KMS may not have heard of the last change.
    let capacity = Capacity::new(ByteLen(store.layers().sectors() * SECTOR_BYTES as u64))
        .map_err(|error| Failure::new(code::STORE_DAMAGED, error.to_string()))?;
    Ok((Store::Thin(store), capacity))
}

/// Copies the data of one store to another, as long as the KMS is there.
fn copy_store(end: Ending, claimed: Claimed) -> Result<(), Failure> {
    let Claimed {
        channel,
        config,
        own,
        bases,
        key,
        source,
    } = claimed;
    let opened = (|| {
        let (Own::Store { data, metadata }, Some(source)) = (own, source) else {
            return Err(Failure::new(code::NOT_SUPPORTED, "there is nothing to copy"));
        };
        let Mode::Copy {
            phase,
            position,
            clean,
        } = config.mode
        else {
            return Err(Failure::new(code::NOT_SUPPORTED, "there is nothing to copy"));
        };
        let cipher = derive(config.store, config.size, key)?;
        let (store, capacity) = open_store(config.size, data, metadata, bases)?;
        let destination = Disk::new(capacity, false, &config.serial, cipher, store);
        Copy::new(open_source(source)?, destination, phase, position, clean)
    })();
    let copy = Arc::new(report(&channel, opened)?);
    end.wait(move || {
        std::thread::scope(|scope| {
            scope.spawn(|| copy.run());
            if let Err(error) = copying(&copy, &channel) {
                log::warn!("the KMS is lost: {}", with_causes(&error));
            }
        });
        // The last checkpoints come before the process ends.
        drop(copy);
        Ended::Detached
    })?;
    Ok(())
}

/// Opens what is copied from, and says how large it is.
fn open_source(source: ClaimedSource) -> Result<(Input, Capacity), Failure> {
    let ClaimedSource {
        config,
        data,
        metadata,
        bases,
        key,
    } = source;
    let cipher = derive(config.store, config.size, key)?;
    let (store, capacity) = if config.foreign {
        let store = RawStore::foreign(data).map_err(|error| store_failure(&error))?;
        let capacity = capacity_of(config.size)?;
        if config.format == FileFormat::Qcow2 {
            let image = Image::open(store, config.size)
                .map_err(|error| Failure::new(code::STORE_UNUSABLE, with_causes(&error)))?;
            return Ok((Input::Image(Box::new(image)), capacity));
        }
        (Store::Raw(store), capacity)
    } else {
        open_store(config.size, data, metadata, bases)?
    };
    Ok(Input::of_disk(Disk::new(capacity, true, "", cipher, store)))
}

/// Makes a store if need be, and carries out commands on it, as long as the KMS is there.
fn maintain_store(end: Ending, claimed: Claimed) -> Result<(), Failure> {
    let Claimed {
        channel,
        config,
        own,
        bases,
        ..
    } = claimed;
    let opened = (|| {
        let Own::Store {
            data,
            metadata: Some(metadata),
        } = own
        else {
            let text = "only layered stores can be maintained";
            return Err(Failure::new(code::NOT_SUPPORTED, text));
        };
        let file = FilePair { data, metadata };
        let store = match &config.mode {
            Mode::Create { lineage, snapshot } => {
                let new = new_store(&config, lineage.as_deref())?;
                let snapshot = snapshot.as_deref().map(|id| object(id, "snap")).transpose()?;
                ThinStore::create(file, bases, &new, snapshot)
            }
            _ => ThinStore::open(file, bases, false),
        };
        store.map_err(|error| store_failure(&error))
    })();
    let store = report(&channel, opened)?;
    end.wait(move || {
        if let Err(error) = maintain(&store, &channel) {
            log::warn!("the KMS is lost: {}", with_causes(&error));
        }
        // Its last checkpoint comes before the process ends.
        drop(store);
        Ended::Detached
    })?;
    Ok(())
}

fn new_store(config: &AttachmentConfig, lineage: Option<&str>) -> Result<NewStore, Failure> {
    let capacity = Capacity::new(ByteLen(config.size))
        .map_err(|error| Failure::new(code::INVALID_SIZE, error.to_string()))?;
    let mut uuid = [0; 16];
    getrandom::fill(&mut uuid).map_err(|error| Failure::new("Randomness", error.to_string()))?;
    Ok(NewStore {
        uuid: Uuid(uuid),
        capacity,
        disk: object(&config.disk, "disk").or_else(|_| object(&config.disk, "bak"))?,
        lineage: lineage.map_or(Ok(ObjectId::NONE), |lineage| object(lineage, "lin"))?,
    })
}

fn object(id: &str, prefix: &str) -> Result<ObjectId, Failure> {
    ObjectId::parse(id, prefix)
        .ok_or_else(|| Failure::new("InvalidId", format!("{id:?} is not {prefix}- and 16 characters")))
}

/// Tells the KMS how the start went.
fn report<T>(channel: &Channel, started: Result<T, Failure>) -> Result<T, Failure> {
    match started {
        Ok(started) => {
            Claimed::report(channel, Ok(()))
                .map_err(|error| Failure::new("ClaimFailed", with_causes(&error)))?;
            Ok(started)
        }
        Err(failure) => {
            // The exit status and the connection's end say as much.
            let _ = Claimed::report(channel, Err(failure.clone()));
            Err(failure)
        }
    }
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

/// Drains and closes everything; after a detach that has been done.
fn finish(end: End, sessions: &Sessions, disk: &Disk) {
    sessions.close_paths();
    match end {
        End::Commander(Ended::Detached) => log::info!("detached"),
        End::Commander(Ended::HandedOver) => log::info!("handed over to a successor"),
        End::Terminated => {
            // Forced, so it cannot be refused.
            let _ = sessions.stop(true);
            if let Err(error) = disk.sync() {
                log::error!("the last writes may not be durable: {}", with_causes(&error));
            }
            log::info!("terminated, everything is drained");
        }
    }
}

/// They end the process.
const ENDING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

/// All threads inherit the block. SIGHUP is never waited for: the kernel sends it when the KMS ends while this process is
/// stopped (setpgid(2), orphaned groups).
fn block_signals(signals: &[Signal]) -> Result<(), Failure> {
    let signals: SigSet = signals.iter().copied().collect();
    signals
        .thread_block()
        .map_err(|error| Failure::new("Signals", error.to_string()))
}

/// What the process waits for once it serves, and what keeps its end from taking for ever.
struct Ending {
    sender: mpsc::Sender<End>,
    receiver: mpsc::Receiver<End>,
}

impl Ending {
    /// From here on SIGTERM and SIGINT, which are blocked, end the process: in order if that is soon, and in any case. They are
    /// waited for by a thread of their own.
    fn watch() -> Result<Self, Failure> {
        let signals: SigSet = ENDING.into_iter().collect();
        let (sender, receiver) = mpsc::channel();
        let told = sender.clone();
        spawn("signals", Kind::Waiter, move || {
            while let Err(error) = signals.wait() {
                log::warn!("waiting for signals: {error}");
            }
            // The receiver is gone only when the process is ending for another reason.
            let _ = told.send(End::Terminated);
            end_in_any_case();
        })?;
        Ok(Ending { sender, receiver })
    }

    /// Waits for a signal, or for the end of `command`, which has a thread of its own. From then on the process ends in any
    /// case.
    fn wait(self, command: impl FnOnce() -> Ended + Send + 'static) -> Result<End, Failure> {
        let Ending { sender, receiver } = self;
        spawn("control", Kind::Control, move || {
            let ended = command();
            let _ = sender.send(End::Commander(ended));
            end_in_any_case();
        })?;
        receiver
            .recv()
            .map_err(|error| Failure::new("Threads", error.to_string()))
    }
}

fn spawn(name: &str, kind: Kind, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            narrow(kind);
            work();
        })
        .map(|_| ())
        .map_err(|error| Failure::new("Threads", error.to_string()))
}

/// Ends the process if it has not ended by itself after [`END_PATIENCE`]: its medium does not answer. That is as a kill is:
/// the next process takes up what is in flight, and what was written is in the page cache.
fn end_in_any_case() {
    std::thread::sleep(END_PATIENCE);
    log::error!(
        "requests in flight, or the last sync, do not end: the storage does not answer. Ending without them"
    );
    logging::flush();
    std::process::exit(1);
}

fn read_token(arguments: &Arguments) -> Result<Token, Failure> {
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

fn listen(
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

fn socket_failure(error: &SocketError) -> Failure {
    Failure::new(code::SOCKET_UNUSABLE, with_causes(error))
}

fn store_failure(error: &OpenError) -> Failure {
    let code = match error {
        OpenError::Lock(LockError::InUse) => code::STORE_IN_USE,
        OpenError::Layered(error) => store_code(error),
        _ => code::STORE_UNUSABLE,
    };
    Failure::new(code, with_causes(error))
}

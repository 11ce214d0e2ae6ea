//! The serving process of one attachment. See the library's documentation for the way of a request.

mod arguments;
mod confine;
mod ending;
mod stores;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use nix::sys::signal::Signal;
use sealblk::barrier::Barrier;
use sealblk::control::{
    Aside, Claim, Claimed, Commander, Ended, Looks, Own, Sessions, TakenSession, copying, expected, maintain,
    take_over,
};
use sealblk::copy::Copy;
use sealblk::disk::Disk;
use sealblk::limits::MAX_QUEUES;
use sealblk::logging;
use sealblk::socket::VhostSocket;
use sealblk::store::layered::Expected;
use sealblk::store::{FilePair, LayeredFile};
use sealblk::vhost::QueueContext;
use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::Channel;
use sealblk_proto::control;
use sealblk_proto::message::{AttachmentConfig, Failure, Mode, OnFull, SessionConfig, code};
use sealblk_proto::process::{close_inherited, forbid_core_dumps, leave_session_keyring};

use arguments::{Arguments, read_token, socket_failure};
use confine::{Place, become_user, check_sandbox, prepare_sandbox};
use ending::{ENDING, End, Ending, block_signals};
use stores::{derive, new_store, object, open_source, open_store, shown_of, store_failure};

/// Standard error may be a file where there is no room.
fn fail(error: std::fmt::Arguments<'_>) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    // Before there is anything to dump.
    if let Err(error) = forbid_core_dumps() {
        return fail(format_args!("CoreDumps: core dumps cannot be forbidden: {error}"));
    }
    let arguments = Arguments::parse();
    if let Err(error) = close_inherited(&arguments.descriptors()) {
        return fail(format_args!(
            "Descriptors: what was inherited cannot be closed: {error}"
        ));
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
    let sandbox = prepare_sandbox(arguments.makes_socket())?;
    block_signals(&[Signal::SIGHUP])?;

    let claim = Claim::new(kms, arguments.attachment.clone().unwrap_or_default(), token);
    let claimed = claim
        .take()
        .map_err(|error| Failure::new("ClaimFailed", with_causes(&error)))?;
    // From here on they are waited for.
    block_signals(&ENDING)?;
    let place = match Place::take(arguments, inherited, control, &claimed, sandbox) {
        Ok(place) => place,
        Err(failure) => return report(&claimed.channel, Err(failure)),
    };
    let end = Ending::watch()?;
    match claimed.config.mode {
        Mode::Serve | Mode::TakeOver => serve(arguments, place, end, claim, claimed),
        Mode::Maintain | Mode::Create { .. } => maintain_store(end, claim.version(), claimed),
        Mode::Copy { .. } => copy_store(end, claim.version(), claimed),
    }
}

/// Serves a guest.
fn serve(
    arguments: &Arguments,
    place: Place,
    ending: Ending,
    claim: Claim,
    claimed: Claimed,
) -> Result<(), Failure> {
    let Place {
        socket,
        control,
        notifier,
        crew,
        lacks,
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
        let tell = Claimed::opening(&channel, claim.version());
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
        let cipher = derive(config.store, config.size, key)?;
        let (data, metadata, origin, known) = match own {
            Own::Store { data, metadata } => {
                let known = expected(&config.disk, &config.expected)?;
                (data, metadata, Origin::New(socket), known)
            }
            // From here on the guest waits.
            Own::Predecessor(bridge) => {
                let taken = take_over(&bridge, &claim.attachment, &config)?;
                let origin = Origin::Predecessor(taken.sessions);
                // The open file that was served until now, whatever it is.
                (taken.data, taken.metadata, origin, Expected::default())
            }
        };
        let (store, capacity) = open_store(config.size, data, metadata, bases, &known, &tell)?;
        let direct = store.is_direct();
        let capacity = shown_of(capacity, config.guest_size)?;
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
    if let Some(Err(error)) = notifier.map(|notifier| notifier.tell("READY=1")) {
        log::warn!("the supervisor was not notified: {error}");
    }

    let no_looks = |error: std::io::Error| Failure::new("Looks", error.to_string());
    let looks = Looks::at(disk.clone()).map_err(no_looks)?;
    let checks = Looks::checks_of(disk.clone()).map_err(no_looks)?;
    let keeps_size = config.guest_size.is_some().into();
    let commander = Commander {
        claim,
        control,
        sandbox: Some(lacks),
        config,
        disk: disk.clone(),
        barrier,
        sessions: sessions.clone(),
        looks,
        checks,
        syncs: Aside::default(),
        keeps_size,
    };
    let end = ending.wait(move |ends| commander.run(channel, ends))?;
    finish(end, &sessions, &disk);
    Ok(())
}

/// The sessions that a process begins with.
enum Origin {
    /// A socket, and nobody on it; or not even that, if the attachment that was claimed is not one of the disk's any more.
    New(Option<VhostSocket>),
    /// The sessions of a predecessor.
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

/// Copies the data of one store to another, as long as the KMS is there.
fn copy_store(end: Ending, version: u32, claimed: Claimed) -> Result<(), Failure> {
    let Claimed {
        channel,
        config,
        own,
        bases,
        key,
        source,
    } = claimed;
    let opened = (|| {
        let tell = Claimed::opening(&channel, version);
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
        let known = expected(&config.disk, &config.expected)?;
        let (store, capacity) = open_store(config.size, data, metadata, bases, &known, &tell)?;
        let destination = Disk::new(capacity, false, &config.serial, cipher, store);
        Copy::new(open_source(source, &tell)?, destination, phase, position, clean)
    })();
    let copy = Arc::new(report(&channel, opened)?);
    end.wait(move |ends| {
        if let Err(error) = copying(&copy, &channel, ends) {
            log::warn!("the KMS is lost: {}", with_causes(&error));
        }
        // The last checkpoints come before the process ends.
        drop(copy);
        Ended::Detached
    })?;
    Ok(())
}

/// Makes a store if need be, and carries out commands on it, as long as the KMS is there.
fn maintain_store(end: Ending, version: u32, claimed: Claimed) -> Result<(), Failure> {
    let Claimed {
        channel,
        config,
        own,
        bases,
        ..
    } = claimed;
    let opened = (|| {
        let tell = Claimed::opening(&channel, version);
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
                LayeredFile::create(file, bases, &new, snapshot)
            }
            _ => {
                let known = expected(&config.disk, &config.expected)?;
                LayeredFile::open(file, bases, &known, false, &tell)
            }
        };
        store.map_err(|error| store_failure(&error))
    })();
    let store = report(&channel, opened)?;
    end.wait(move |ends| {
        if let Err(error) = maintain(&store, &channel, ends) {
            log::warn!("the KMS is lost: {}", with_causes(&error));
        }
        // Its last checkpoint comes before the process ends.
        drop(store);
        Ended::Detached
    })?;
    Ok(())
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

//! A backend for the daemon's tests: speaks `sealblk_proto` and serves nothing. A layered store is to it a JSON object
//! in the store's file.
//!
//! The name by which it is called says how it behaves: `frontend-connected` refuses to detach without force, `unfit`
//! says that it cannot serve, `locked-out` that another has the store, `keyless` that it cannot take its key, `dies` ends at once, `keeps-key` does not wipe the key's descriptor, `stubborn` claims to
//! detach and does not end, and keeps its sessions, `unsociable` takes no second one, `slow` takes a minute before it can be reached again, `chatty` answers a detach with readiness for ever,
//! `dies-before-change` and `dies-after-change` do so at each change of a layered store, `full` has no room for any, `examines` never ends an examination and answers all else meanwhile,
//! `unshared` says that its guest's memory is not shared, `short` has no room for what a guest writes, `elder` says nothing of
//! room and is told nothing of it, `tells-key` logs the digest of its key, `earlier` gives no sockets back, has no sandbox, does not look which store it is given
//! and dials a KMS that has come back, as earlier versions, `bare` has less of a sandbox, `opens-slowly` takes longer for its store than any silence may last, and says so, and `mute` never says what a store holds or what it can have to keep it in bounds. As a copy's process `halts` gets 4096
//! bytes further and not to an end, and `fails-to-copy` finds no room. By any other name it does as sealblk does.

#[path = "fake_backend/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Uid;
use sealblk_proto::channel::{Bound, Channel, Listener};
use sealblk_proto::control;
use sealblk_proto::key_transfer::take_key;
use sealblk_proto::message::{
    AttachmentConfig, Change, ClosedStores, Command, CopyPhase, CopyProgress, CopySource, Failure, Hello,
    HelloAnswer, Mode, OLDEST_VERSION, OnFull, Outcome, PROTOCOL_VERSION, Readiness, Reply, Request,
    RoomStats, SessionDetail, SessionStatus, Stats, StoreKind, code,
};
use sealblk_proto::process::inherited_descriptor;
use sealblk_proto::token::Token;
use sha2::{Digest, Sha256};

use crate::store::Store;

/// What is wrong with them where they are missing.
const NAMESPACES: &str = "Operation not permitted";

/// What the backend has been given.
#[derive(Default)]
struct Given {
    kept: Vec<OwnedFd>,
    store: Option<Store>,
    short_lived: bool,
    /// From where a copy goes on, and how much there is of it.
    copy: Option<(CopyPhase, u64, u64)>,
    /// Who is served, each with its socket, unless another supervisor would bind that.
    sessions: BTreeMap<String, Option<OwnedFd>>,
    on_full: OnFull,
    /// What guests see of the disk.
    guest_size: u64,
    /// Where a KMS that has come back dials.
    listener: Option<Listener>,
}

struct Arguments {
    kms: PathBuf,
    attachment: String,
    token: Token,
    socket: Option<i32>,
    control: Option<Bound>,
}

fn main() {
    let name = std::env::args_os().next().map(PathBuf::from);
    let behaviour = name
        .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .unwrap_or_default();
    if behaviour == "dies" {
        std::process::exit(3);
    }
    if std::env::args().any(|word| word == "--check-sandbox") {
        std::process::exit(check_sandbox(&behaviour));
    }
    let mut arguments = arguments(behaviour != "earlier");
    let mut serving = false;
    let mut given = Given::default();
    loop {
        let connected = match &given.listener {
            Some(listener) => listener.accept().ok(),
            None => Channel::connect(&arguments.kms).ok(),
        };
        let claimed =
            connected.and_then(|channel| claim(channel, &arguments, &behaviour, serving, &mut given));
        if let Some(channel) = claimed {
            if let Some(bound) = arguments.control.take().filter(|_| !given.short_lived) {
                given.listener = Some(bound.listen().unwrap());
            }
            serving = true;
            obey(&channel, &behaviour, &mut given);
            if given.short_lived {
                return;
            }
            if behaviour == "slow" {
                std::thread::sleep(Duration::from_secs(60));
            }
        } else if !serving {
            std::process::exit(1);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// As sealblk answers; earlier versions do not know the option.
fn check_sandbox(behaviour: &str) -> i32 {
    match behaviour {
        "earlier" => 2,
        "mute" => {
            std::thread::sleep(Duration::from_secs(60));
            3
        }
        "bare" => {
            println!("system calls: ok\nnamespaces: missing: {}", NAMESPACES);
            1
        }
        _ => {
            println!("system calls: ok\nnamespaces: ok");
            0
        }
    }
}

fn arguments(has_control: bool) -> Arguments {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let position = words.iter().position(|word| word == flag)?;
        words.get(position + 1).cloned()
    };
    let kms = PathBuf::from(value("--kms").unwrap());
    let control = has_control.then(|| control::bind(&kms).unwrap());
    if let Some(user) = value("--user") {
        // One thread is all that this process has.
        let user = Uid::from_raw(user.parse().unwrap());
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
    }
    let token = match (value("--token-fd"), value("--token-file")) {
        (Some(number), _) => inherited_descriptor(number.parse().unwrap()).unwrap().into(),
        (None, Some(path)) => File::open(path).unwrap(),
        (None, None) => panic!("no token"),
    };
    Arguments {
        kms,
        attachment: value("--attachment").unwrap(),
        token: Token::read_from(token).unwrap(),
        socket: value("--socket-fd").map(|number| number.parse().unwrap()),
        control,
    }
}

fn unshared() -> SessionDetail {
    SessionDetail {
        features: vec!["VERSION_1".to_owned()],
        regions: 1,
        memory: 4096,
        troubles: vec![Failure::new(code::MEMORY_NOT_SHARED, "share=on is missing")],
        ..SessionDetail::default()
    }
}

fn claim(
    channel: Channel,
    arguments: &Arguments,
    behaviour: &str,
    serving: bool,
    given: &mut Given,
) -> Option<Channel> {
    let hello = Hello {
        version: match behaviour {
            "earlier" => OLDEST_VERSION,
            _ => PROTOCOL_VERSION,
        },
        attachment: arguments.attachment.clone(),
        token: arguments.token.clone(),
        serving,
    };
    channel.send(&hello, &[]).ok()?;
    let (answer, descriptors) = channel.receive::<HelloAnswer>().ok()?;
    let HelloAnswer::Welcome(config) = answer else {
        return None;
    };
    if serving {
        return Some(channel);
    }
    if let Mode::Copy { phase, position, .. } = config.mode {
        let (source, descriptors) = channel.receive::<CopySource>().ok()?;
        take_source(&source, descriptors, given);
        given.copy = Some((phase, position, source.size));
    }
    if config.mode == Mode::Serve && !config.socket.is_empty() {
        let socket = arguments
            .socket
            .map(|number| inherited_descriptor(number).unwrap());
        given.sessions.insert(arguments.attachment.clone(), socket);
    }
    if let Err(failure) = take(&config, descriptors, behaviour, given) {
        channel.send(&Readiness::Failed(failure), &[]).ok()?;
        return None;
    }
    if behaviour == "opens-slowly" && config.mode == Mode::Serve {
        for _ in 0..22 {
            std::thread::sleep(Duration::from_secs(1));
            channel.send(&Readiness::Opening, &[]).ok()?;
        }
    }
    channel.send(&Readiness::Ready, &[]).ok()?;
    Some(channel)
}

/// Takes what came with the welcome.
fn take(
    config: &AttachmentConfig,
    descriptors: Vec<OwnedFd>,
    behaviour: &str,
    given: &mut Given,
) -> Result<(), Failure> {
    let mut descriptors = descriptors.into_iter();
    let data = descriptors.next().unwrap();
    // Conflicts with open-file-description locks, such as sealblk's, and ends with this process.
    rustix::fs::fcntl_lock(&data, rustix::fs::FlockOperation::LockExclusive).unwrap();
    match behaviour {
        "locked-out" => return Err(Failure::new(code::STORE_IN_USE, "another has it")),
        "keyless" => return Err(Failure::new(code::KEY_UNUSABLE, "no memory can be locked")),
        _ => {}
    }
    println!("size {}", config.size);
    given.on_full = config.on_full;
    given.guest_size = config.guest_size.unwrap_or(config.size);
    given.short_lived = config.mode != Mode::Serve;
    if config.store == StoreKind::Layered {
        let metadata = File::from(descriptors.next().unwrap());
        let bases: Vec<_> = descriptors.by_ref().take(2 * usize::from(config.bases)).collect();
        given.store = Some(Store::take(config, metadata, bases)?);
    }
    given.kept.push(data);
    let key = descriptors.next();
    let has_key = matches!(config.mode, Mode::Serve | Mode::Copy { .. });
    assert_eq!(key.is_some(), config.encrypted && has_key);
    assert!(descriptors.next().is_none());
    match key {
        Some(key) if behaviour == "keeps-key" => given.kept.push(key),
        Some(key) if behaviour == "tells-key" => {
            let digest: [u8; 32] = Sha256::digest(take_key(key).unwrap().expose()).into();
            eprintln!("key {digest:?}");
        }
        Some(key) => drop(take_key(key).unwrap()),
        None => {}
    }
    if behaviour == "unfit" {
        return Err(Failure::new(code::STORE_UNUSABLE, "this backend is unfit"));
    }
    Ok(())
}

/// Takes what a copy is made from.
fn take_source(source: &CopySource, mut descriptors: Vec<OwnedFd>, given: &mut Given) {
    if source.encrypted {
        drop(take_key(descriptors.pop().unwrap()).unwrap());
    }
    let own = if source.store == StoreKind::Layered { 2 } else { 1 };
    assert_eq!(descriptors.len(), own + 2 * usize::from(source.bases));
    if !source.foreign {
        rustix::fs::fcntl_lock(&descriptors[0], rustix::fs::FlockOperation::LockExclusive).unwrap();
    }
    given.kept.append(&mut descriptors);
}

fn progress(behaviour: &str, copy: Option<(CopyPhase, u64, u64)>) -> Outcome {
    let Some((phase, position, total)) = copy else {
        return Outcome::Failed(Failure::new(code::NOT_SUPPORTED, "nothing is copied"));
    };
    let halts = behaviour == "halts";
    let reached = if halts { position + 4096 } else { total };
    Outcome::Progress(CopyProgress {
        phase: if halts { phase } else { CopyPhase::Done },
        position: reached,
        done: reached,
        total,
        failure: (behaviour == "fails-to-copy").then(|| Failure::new(code::NO_SPACE, "there is no room")),
    })
}

fn obey(channel: &Channel, behaviour: &str, given: &mut Given) {
    let copy = given.copy;
    while let Ok((request, mut descriptors)) = channel.receive::<Request>() {
        let connected = behaviour == "frontend-connected";
        let detaches = matches!(&request.command, Command::Detach { .. });
        let outcome = match request.command {
            Command::Stats => Outcome::Stats(Stats {
                frontend_connected: connected,
                reads: 7,
                room: (behaviour != "elder").then(|| RoomStats {
                    on_full: given.on_full,
                    is_short: behaviour == "short",
                    held: if behaviour == "short" && given.on_full == OnFull::Stop {
                        3
                    } else {
                        0
                    },
                }),
                sandbox: match behaviour {
                    "earlier" => None,
                    "bare" => Some(vec![format!("namespaces: {NAMESPACES}")]),
                    _ => Some(Vec::new()),
                },
                store: given
                    .store
                    .as_ref()
                    .filter(|_| behaviour != "earlier")
                    .map(Store::state),
                guest_size: (behaviour != "earlier").then_some(given.guest_size),
                ..Stats::default()
            }),
            Command::Detach { force: false } if connected => {
                Outcome::Failed(Failure::new(code::FRONTEND_CONNECTED, "a frontend is connected"))
            }
            Command::Change { .. } if behaviour == "dies-before-change" => std::process::exit(3),
            Command::Change { .. } if behaviour == "full" => {
                Outcome::Failed(Failure::new(code::NO_SPACE, "there is no room"))
            }
            Command::Check { .. } if behaviour == "examines" && !given.short_lived => continue,
            Command::Check { .. } if behaviour == "examines" => {
                std::thread::sleep(Duration::from_secs(600));
                Outcome::Done
            }
            Command::Store { .. } if behaviour == "mute" => {
                std::thread::sleep(Duration::from_secs(60));
                Outcome::Done
            }
            Command::Change { .. }
            | Command::WasMade { .. }
            | Command::Store { .. }
            | Command::Check { .. } => {
                let dies =
                    behaviour == "dies-after-change" && matches!(&request.command, Command::Change { .. });
                if let Command::Change {
                    change: Change::Resize { size, hidden: false },
                    ..
                } = &request.command
                {
                    given.guest_size = *size;
                }
                let outcome = match given.store.as_mut() {
                    Some(store) => store.obey(request.command, connected),
                    None => Outcome::Failed(Failure::new(code::NOT_SUPPORTED, "it is a raw store")),
                };
                if dies {
                    std::process::exit(3);
                }
                outcome
            }
            Command::Progress => progress(behaviour, copy),
            Command::AddSession(_) if behaviour == "unsociable" => {
                Outcome::Failed(Failure::new(code::TOO_MANY, "one is enough"))
            }
            Command::AddSession(config) => {
                let socket = descriptors.pop().expect("a socket");
                given.sessions.insert(config.attachment, Some(socket));
                Outcome::Done
            }
            Command::RemoveSession { force: false, .. } if connected => {
                Outcome::Failed(Failure::new(code::FRONTEND_CONNECTED, "a frontend is connected"))
            }
            Command::RemoveSession { .. } if behaviour == "stubborn" => {
                Outcome::Failed(Failure::new("Busy", "it keeps it"))
            }
            Command::RemoveSession { attachment, .. } => {
                given.sessions.remove(&attachment);
                Outcome::Done
            }
            Command::Listen { attachment } => {
                let socket = descriptors.pop().expect("a socket");
                given.sessions.insert(attachment, Some(socket));
                Outcome::Done
            }
            Command::Sessions => {
                let status = |attachment: &String| SessionStatus {
                    attachment: attachment.clone(),
                    frontend_connected: connected,
                    detail: (behaviour == "unshared").then(unshared),
                };
                Outcome::Sessions(given.sessions.keys().map(status).collect())
            }
            Command::OnFull(_) if behaviour == "elder" => std::process::exit(3),
            Command::OnFull(on_full) => {
                given.on_full = on_full;
                Outcome::Done
            }
            Command::Detach { .. } | Command::Quiesce { .. } | Command::Resume => Outcome::Done,
            Command::HandOver => Outcome::Failed(Failure::new(code::NOT_SUPPORTED, "not in tests")),
        };
        if behaviour == "chatty" && detaches {
            while channel.send(&Readiness::Ready, &[]).is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
            return;
        }
        let ends = detaches && outcome == Outcome::Done;
        let sockets = given.sessions.values().flatten().map(AsFd::as_fd);
        let sends_them = matches!(outcome, Outcome::Sessions(_)) && behaviour != "earlier";
        let sockets: Vec<_> = sockets.filter(|_| sends_them).collect();
        let sent = channel.send(&Reply::to(request.id, outcome), &sockets);
        if ends && sent.is_ok() && behaviour != "stubborn" {
            if behaviour != "earlier" && request.id & Request::KNOWS_STORE != 0 {
                let closed = ClosedStores {
                    store: given.store.as_ref().map(Store::state),
                    source: None,
                };
                let _ = channel.send(&Reply::to(request.id, Outcome::Closed(closed)), &[]);
            }
            std::process::exit(0);
        }
    }
}

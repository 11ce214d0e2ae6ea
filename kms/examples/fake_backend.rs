//! A backend for the daemon's tests: speaks `sealblk_proto` and serves nothing.
//!
//! The name by which it is called says how it behaves: `frontend-connected` refuses to detach without force, `unfit`
//! says that it cannot serve, `dies` ends at once, `keeps-key` does not wipe the key's descriptor, `stubborn` claims to
//! detach and does not end, `slow` takes a minute to dial again, `chatty` answers a detach with readiness for ever. By any other name it does as sealblk does.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Uid;
use sealblk_proto::channel::Channel;
use sealblk_proto::key_transfer::take_key;
use sealblk_proto::message::{
    Command, Failure, Hello, HelloAnswer, Outcome, PROTOCOL_VERSION, Readiness, Reply, Request, Stats, code,
};
use sealblk_proto::process::inherited_descriptor;
use sealblk_proto::token::Token;

struct Arguments {
    kms: PathBuf,
    attachment: String,
    token: Token,
}

fn main() {
    let name = std::env::args_os().next().map(PathBuf::from);
    let behaviour = name
        .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .unwrap_or_default();
    if behaviour == "dies" {
        std::process::exit(3);
    }
    let arguments = arguments();
    let mut serving = false;
    let mut kept: Vec<OwnedFd> = Vec::new();
    loop {
        if let Some(channel) = dial(&arguments, &behaviour, serving, &mut kept) {
            serving = true;
            obey(&channel, &behaviour);
            if behaviour == "slow" {
                std::thread::sleep(Duration::from_secs(60));
            }
        } else if !serving {
            std::process::exit(1);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn arguments() -> Arguments {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let position = words.iter().position(|word| word == flag)?;
        words.get(position + 1).cloned()
    };
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
        kms: value("--kms").unwrap().into(),
        attachment: value("--attachment").unwrap(),
        token: Token::read_from(token).unwrap(),
    }
}

fn dial(arguments: &Arguments, behaviour: &str, serving: bool, kept: &mut Vec<OwnedFd>) -> Option<Channel> {
    let channel = Channel::connect(&arguments.kms).ok()?;
    let hello = Hello {
        version: PROTOCOL_VERSION,
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
    let mut descriptors = descriptors.into_iter();
    let store = descriptors.next().unwrap();
    // Conflicts with open-file-description locks, such as sealblk's, and ends with this process.
    rustix::fs::fcntl_lock(&store, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let key = descriptors.next();
    assert_eq!(key.is_some(), config.encrypted);
    match key {
        Some(key) if behaviour == "keeps-key" => kept.push(key),
        Some(key) => drop(take_key(key).unwrap()),
        None => {}
    }
    kept.push(store);
    if behaviour == "unfit" {
        let failure = Failure::new(code::STORE_UNUSABLE, "this backend is unfit");
        channel.send(&Readiness::Failed(failure), &[]).ok()?;
        return None;
    }
    channel.send(&Readiness::Ready, &[]).ok()?;
    Some(channel)
}

fn obey(channel: &Channel, behaviour: &str) {
    while let Ok((request, _)) = channel.receive::<Request>() {
        let connected = behaviour == "frontend-connected";
        let outcome = match request.command {
            Command::Stats => Outcome::Stats(Stats {
                frontend_connected: connected,
                reads: 7,
                ..Stats::default()
            }),
            Command::Detach { force: false } if connected => {
                Outcome::Failed(Failure::new(code::FRONTEND_CONNECTED, "a frontend is connected"))
            }
            _ => Outcome::Done,
        };
        if behaviour == "chatty" && matches!(request.command, Command::Detach { .. }) {
            while channel.send(&Readiness::Ready, &[]).is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
            return;
        }
        let ends = matches!(request.command, Command::Detach { .. }) && outcome == Outcome::Done;
        let sent = channel.send(
            &Reply {
                id: request.id,
                outcome,
            },
            &[],
        );
        if ends && sent.is_ok() && behaviour != "stubborn" {
            std::process::exit(0);
        }
    }
}

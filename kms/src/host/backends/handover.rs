//! The hand-over: a backend dials, proves its attachment, and receives configuration, store and key; or one that serves already
//! is dialled, and proves its attachment.
//!
//! Runs in a thread of its own for each connection, since every step waits for the other side.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::{Channel, ChannelError};
use sealblk_proto::key_transfer::KeyInTransit;
use sealblk_proto::message::{
    AttachmentConfig, Command, CopySource, Failure, Hello, HelloAnswer, Mode, OLDEST_VERSION, OnFull,
    Outcome, PROTOCOL_VERSION, Readiness, Stats, StoreKind, code,
};
use sealblk_proto::peer::PeerCredentials;
use sealblk_proto::token::TokenHash;

use super::connection::Connection;
use super::plan::{Plan, StorePlace};
use super::process::Process;
use super::sandbox::Sandbox;
use super::served::{Claimant, Served};
use super::shared::Shared;
use super::{attend, maintained, states};
use crate::error::Error;
use crate::host::passed::Passed;
use crate::host::records::KeyUse;
use crate::host::store;
use crate::limits;

/// Which token was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Current,
    Next,
}

/// By what right the attachment is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The process was started to serve.
    Begins,
    /// The process was started to take over from the one that serves.
    TakesOver,
    /// The process serves already.
    Returns,
}

/// The attachment is being handed over; released when dropped.
struct Claim<'a> {
    served: &'a Served,
    claimant: Arc<Claimant>,
}

impl Claim<'_> {
    /// From here on no other hand-over can take its place; an error if one has.
    fn settle(&self) -> Result<(), Failure> {
        self.served.update(|inner| {
            if !inner.is_claimed_by(&self.claimant) {
                return Err(already_served());
            }
            self.claimant.settled.store(true, Ordering::Relaxed);
            Ok(())
        })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.served.update(|inner| {
            if inner.is_claimed_by(&self.claimant) {
                inner.claimant = None;
            }
        });
    }
}

/// Takes back a backend that serves, and that this process has dialled.
///
/// # Errors
/// A [`Failure`] that says why not.
pub(super) fn take_back(served: &Arc<Served>, shared: &Shared, channel: Channel) -> Result<(), Failure> {
    exchange(served, shared, channel, true)
}

/// Serves one connection up to the point where the backend serves.
pub(super) fn hand_over(served: &Arc<Served>, shared: &Shared, channel: Channel) {
    let attachment = &served.plan.service;
    if let Err(failure) = exchange(served, shared, channel, false) {
        log::warn!("{attachment}: hand-over failed: {failure}");
    }
}

fn exchange(served: &Arc<Served>, shared: &Shared, channel: Channel, dialled: bool) -> Result<(), Failure> {
    let lost = |error: &dyn std::error::Error| Failure::new("BackendFailed", with_causes(error));
    channel
        .set_timeout(Some(limits::BACKEND_TIME))
        .map_err(|error| lost(&error))?;
    let peer = channel.peer().map_err(|error| lost(&error))?;
    let (hello, _) = channel.receive::<Hello>().map_err(|error| lost(&error))?;
    let shown = match check(served, &hello, peer) {
        Ok(shown) => shown,
        Err(failure) => return refuse(&channel, failure),
    };
    if dialled && !hello.serving {
        return refuse(
            &channel,
            Failure::new(code::NOT_YOURS, "whoever is dialled must serve already"),
        );
    }
    let process = Arc::new(Process::open(peer.pid).map_err(|error| lost(&error))?);
    // The number may be another's by now, which is not to be supervised, let alone be killed.
    if !process.is_of(peer.uid) {
        return Err(Failure::new("BackendFailed", "who has connected has ended"));
    }
    let claimant = Arc::new(Claimant {
        process: Arc::clone(&process),
        channel: channel.try_clone().map_err(|error| lost(&error))?,
        replaceable: shown == Shown::Next,
        settled: AtomicBool::new(false),
    });
    // A process that is started while another serves takes over from that one, which is remembered until then.
    let bridge = match shown {
        Shown::Next if !hello.serving => served.update(|inner| inner.bridge.take()),
        _ => None,
    };
    let takes_over = bridge.is_some();
    let way = match shown {
        Shown::Current if hello.serving => Way::Returns,
        _ if takes_over => Way::TakesOver,
        _ => Way::Begins,
    };
    let claim = match claim(served, claimant, way) {
        Ok(claim) => claim,
        Err(failure) => return refuse(&channel, failure),
    };
    if !takes_over && let Err(failure) = remember(served, shared, &process) {
        return refuse(&channel, failure);
    }
    if hello.serving {
        // A process of an earlier version does not know of these; see `tell_on_full`. One that serves is prepared for its queues.
        let config = AttachmentConfig {
            on_full: OnFull::Error,
            all_queues: 0,
            ..served.config()
        };
        let welcome = HelloAnswer::Welcome(config);
        channel.send(&welcome, &[]).map_err(|error| lost(&error))?;
    } else if let Err(failure) = give(served, shared, &channel, hello.version, bridge) {
        // A start that is under way fails with this.
        served.update(|inner| {
            if inner.is_claimed_by(&claim.claimant) && !takes_over {
                inner.failure = Some(failure.clone());
            }
        });
        return Err(failure);
    }
    claim.settle()?;
    if takes_over {
        remember(served, shared, &process)?;
    }
    if shown == Shown::Next {
        confirm_token(served, shared, hello.token.hash())?;
    }
    let connection =
        Connection::new(channel, process.pid(), &shared.runtime).map_err(|error| lost(&error))?;
    let connection = Arc::new(connection);
    // From a process that an earlier KMS has started come its sockets.
    if served.plan.shared || served.sessions.lacks_socket() {
        attend::reconcile(served, shared, &connection).map_err(|error| {
            Failure::new("BackendFailed", format!("its sessions: {}", with_causes(&error)))
        })?;
    }
    let stats = first_stats(served, &connection);
    if let Some(stats) = &stats
        && way == Way::Returns
    {
        tell_on_full(served, &connection, stats);
    }
    if served.plan.is_attachment() {
        // A later process may not find an older store.
        let state = stats.as_ref().and_then(|stats| stats.store.as_ref());
        shared.runtime.block_on(states::note(served, shared, state));
    }
    let sandbox = stats.map(|stats| Sandbox::of(stats.sandbox));
    served.serves(connection, process, sandbox);
    Ok(())
}

/// What a process that serves says of itself; none if it does not say so soon.
fn first_stats(served: &Served, connection: &Connection) -> Option<Stats> {
    if !served.plan.is_attachment() {
        return None;
    }
    match connection.try_exchange(Command::Stats, limits::STATS_TIME) {
        Ok(Outcome::Stats(stats)) => Some(stats),
        _ => None,
    }
}

/// What is to become of writes without room may have changed while the process had no KMS. One of an earlier version, which
/// says nothing of room, goes on as it does; `disk show` says so.
fn tell_on_full(served: &Served, connection: &Connection, stats: &Stats) {
    let wanted = served.config().on_full;
    let there = stats.room.as_ref().map(|room| room.on_full);
    if there.is_some_and(|there| there != wanted) {
        let told = connection.exchange(Command::OnFull(wanted), None, limits::STATS_TIME);
        if !matches!(told, Ok(Outcome::Done)) {
            log::warn!("{}: it was not told what to do without room", served.plan.service);
        }
    }
}

fn refuse(channel: &Channel, failure: Failure) -> Result<(), Failure> {
    // If this is not heard, the connection's end is.
    let _ = channel.send(&HelloAnswer::Refused(failure.clone()), &[]);
    Err(failure)
}

fn check(served: &Served, hello: &Hello, peer: PeerCredentials) -> Result<Shown, Failure> {
    if !(OLDEST_VERSION..=PROTOCOL_VERSION).contains(&hello.version) {
        let text = format!(
            "this KMS speaks versions {OLDEST_VERSION} to {PROTOCOL_VERSION}, not {}",
            hello.version
        );
        return Err(Failure::new(code::VERSION, text));
    }
    // One answer for all, so that nobody learns which part was wrong.
    let not_yours = || Failure::new(code::NOT_YOURS, "this attachment is not yours to serve");
    if peer.uid != served.plan.uid || hello.attachment != served.plan.service {
        return Err(not_yours());
    }
    let hash = hello.token.hash();
    let inner = served.look();
    if inner.removed {
        return Err(not_yours());
    }
    match (&inner.tokens.current, &inner.tokens.next) {
        (Some(current), _) if same(current, &hash) => Ok(Shown::Current),
        (_, Some(next)) if same(next, &hash) => Ok(Shown::Next),
        _ => Err(not_yours()),
    }
}

/// Compares without telling by its time where the difference is.
fn same(one: &TokenHash, other: &TokenHash) -> bool {
    let difference = one.0.iter().zip(&other.0).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Rule A08: one backend at a time. The store's lock is what enforces it; this tells the second one why.
///
/// A backend that returns serves a guest already, so it takes precedence over one that is only being started.
fn claim(served: &Served, claimant: Arc<Claimant>, way: Way) -> Result<Claim<'_>, Failure> {
    let returns = way == Way::Returns;
    let pid = claimant.process.pid();
    served.update(|inner| {
        let busy = inner
            .connection
            .as_ref()
            .is_some_and(|connection| connection.pid() != pid && !connection.is_dead());
        if busy && way != Way::TakesOver {
            return Err(already_served());
        }
        if inner.detaching && !returns {
            return Err(Failure::new(
                "Detaching",
                "the disk is being detached: no backend is given it",
            ));
        }
        if let Some(other) = &inner.claimant {
            if !returns || !other.replaceable || other.settled.load(Ordering::Relaxed) {
                return Err(already_served());
            }
            log::warn!(
                "process {pid} is back: process {}, started in its place, is ended",
                other.process.pid()
            );
            other.end();
        }
        if way != Way::TakesOver
            && let Some(old) = inner.connection.take()
        {
            old.end();
        }
        inner.claimant = Some(Arc::clone(&claimant));
        Ok(Claim { served, claimant })
    })
}

fn already_served() -> Failure {
    Failure::new(code::ALREADY_SERVED, "another process serves this attachment")
}

/// Writes down who gets the store, before it does.
fn remember(served: &Served, shared: &Shared, process: &Process) -> Result<(), Failure> {
    let Some(identity) = process.identity().cloned() else {
        return Err(Failure::new("BackendFailed", "/proc does not show the process"));
    };
    if served.look().backend.as_ref() == Some(&identity) {
        return Ok(());
    }
    if !served.plan.is_attachment() {
        return maintained::note(&served.plan, &identity).map_err(|error| {
            Failure::new(
                "BackendFailed",
                format!("the process cannot be noted: {}", with_causes(&error)),
            )
        });
    }
    let stored = shared.records.process(&served.plan.service, &identity);
    let stored = shared.runtime.block_on(stored);
    stored.map_err(|error| failure_of(&error))?;
    served.update(|inner| inner.backend = Some(identity));
    Ok(())
}

/// Sends configuration, store (or the socket to the process that has it) and key, and waits for the backend's word that
/// it serves. The backend speaks `version`.
fn give(
    served: &Served,
    shared: &Shared,
    channel: &Channel,
    version: u32,
    bridge: Option<Channel>,
) -> Result<(), Failure> {
    let lost = |error: &dyn std::error::Error| Failure::new("BackendFailed", with_causes(error));
    let plan = &served.plan;
    let used = (object_of(plan), plan.config.disk.as_str());
    let opened = key_in_transit(plan, plan.lineage.as_deref(), used, shared).and_then(|key| {
        let stores = open_stores(plan, bridge.is_none()).map_err(|error| store_failure(&error))?;
        let source = open_source(plan, shared)?;
        let expected = shared.runtime.block_on(states::open(served, shared));
        let expected = expected.map_err(|error| failure_of(&error))?;
        Ok((key, stores, source, expected))
    });
    let (mut key, stores, mut source, expected) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            let _ = refuse(channel, failure.clone());
            return Err(failure);
        }
    };
    let mut config = served.config();
    if bridge.is_some() {
        config.mode = Mode::TakeOver;
    }
    let were_closed = expected.were_closed;
    let understands = version > OLDEST_VERSION;
    if understands {
        config.expected = expected.own;
    } else {
        config.all_queues = 0;
        log::warn!(
            "{}: a process of an earlier version does not look which store it is given",
            plan.service
        );
    }
    let mut descriptors: Vec<_> = bridge.iter().map(AsFd::as_fd).collect();
    descriptors.extend(stores.iter().map(AsFd::as_fd));
    descriptors.extend(key.as_ref().map(KeyInTransit::descriptor));
    channel
        .send(&HelloAnswer::Welcome(config), &descriptors)
        .map_err(|error| lost(&error))?;
    if let (Some(given), Some(source)) = (&source, &plan.source) {
        let mut config = source.config.clone();
        if understands && !config.foreign {
            (config.disk, config.expected) = (Some(source.object.clone()), expected.source);
        }
        send_source(&config, channel, given).map_err(|error| lost(&error))?;
    }
    // The predecessor must see the end of its successor.
    drop(bridge);
    // The backend's lock belongs to the open file description: with our copy open, it would outlive the backend.
    drop(stores);
    let mut source_key = source.as_mut().and_then(|given| given.key.take());
    drop(source);
    let is_taken = |key: &mut Option<KeyInTransit>| key.as_mut().is_none_or(KeyInTransit::is_taken);
    wait_until_ready(served, channel).inspect_err(|failure| {
        let refused = states::refused(plan, shared, failure, were_closed);
        shared.runtime.block_on(refused);
    })?;
    if !is_taken(&mut key) || !is_taken(&mut source_key) {
        let text = "the backend has not wiped the key's descriptor";
        return Err(Failure::new(code::KEY_UNUSABLE, text));
    }
    Ok(())
}

/// However long the store takes to open, as long as that gets on.
fn wait_until_ready(served: &Served, channel: &Channel) -> Result<(), Failure> {
    loop {
        let received = channel.receive::<Readiness>();
        match received
            .map_err(|error| Failure::new("BackendFailed", with_causes(&error)))?
            .0
        {
            Readiness::Opening => served.gets_on(),
            Readiness::Failed(failure) => return Err(failure),
            Readiness::Ready => return Ok(()),
        }
    }
}

/// Opens the store, if it is not a predecessor's to give, and, if it is layered, all that belongs to it, in the order of
/// [`HelloAnswer`].
fn open_stores(plan: &Plan, own: bool) -> Result<Vec<File>, store::StoreError> {
    let mut files = Vec::new();
    if own {
        files = open_own(&plan.store, plan.config.store, plan.config.size)?;
    }
    open_bases(&plan.bases, &mut files)?;
    Ok(files)
}

fn open_own(place: &StorePlace, kind: StoreKind, size: u64) -> Result<Vec<File>, store::StoreError> {
    if let Some(passed) = &place.passed {
        return passed_again(passed, place);
    }
    let layered = kind == StoreKind::Layered;
    // A layered store is thin: how long its file is, is its own affair.
    let least = if layered { 0 } else { size };
    let mut files = vec![store::open_for_service(&place.path, least, &place.expected)?];
    if layered {
        files.push(store::open_again(&files[0], &place.path, true)?);
    }
    Ok(files)
}

/// What a caller has passed is given as it is, and locked by one process after the other.
fn passed_again(passed: &Passed, place: &StorePlace) -> Result<Vec<File>, store::StoreError> {
    let again = passed.file().try_clone();
    again
        .map(|file| vec![file])
        .map_err(|source| store::StoreError::Io {
            path: place.path.clone(),
            source,
        })
}

fn open_bases(bases: &[StorePlace], files: &mut Vec<File>) -> Result<(), store::StoreError> {
    for base in bases {
        let data = store::open_base(&base.path, &base.expected)?;
        let metadata = store::open_again(&data, &base.path, false)?;
        files.extend([data, metadata]);
    }
    Ok(())
}

/// What is given to be copied from.
struct GivenSource {
    files: Vec<File>,
    key: Option<KeyInTransit>,
}

fn open_source(plan: &Plan, shared: &Shared) -> Result<Option<GivenSource>, Failure> {
    let Some(source) = &plan.source else {
        return Ok(None);
    };
    let used = (plan.config.disk.as_str(), source.object.as_str());
    let key = key_in_transit(plan, source.lineage.as_deref(), used, shared)?;
    let opened = if let Some(passed) = &source.store.passed {
        passed_again(passed, &source.store)
    } else if source.config.foreign {
        store::open_base(&source.store.path, &source.store.expected).map(|file| vec![file])
    } else {
        open_own(&source.store, source.config.store, source.config.size)
    };
    let opened = opened.and_then(|mut files| {
        open_bases(&source.bases, &mut files)?;
        Ok(files)
    });
    let files = opened.map_err(|error| store_failure(&error))?;
    Ok(Some(GivenSource { files, key }))
}

fn send_source(config: &CopySource, channel: &Channel, given: &GivenSource) -> Result<(), ChannelError> {
    let mut descriptors: Vec<_> = given.files.iter().map(AsFd::as_fd).collect();
    descriptors.extend(given.key.as_ref().map(KeyInTransit::descriptor));
    channel.send(config, &descriptors)
}

fn store_failure(error: &store::StoreError) -> Failure {
    Failure::new(store_code(error), with_causes(error))
}

/// What a key is used for, in the audit log.
fn object_of(plan: &Plan) -> &str {
    match plan.source {
        Some(_) => &plan.config.disk,
        None => &plan.service,
    }
}

fn store_code(error: &store::StoreError) -> &'static str {
    match error {
        store::StoreError::InUse(_) => code::STORE_IN_USE,
        _ => code::STORE_UNUSABLE,
    }
}

/// Opens the lineage key, after the audit log has it (rules M04 and A06: also when a backend is restarted).
fn key_in_transit(
    plan: &Plan,
    lineage: Option<&str>,
    (object, volume): (&str, &str),
    shared: &Shared,
) -> Result<Option<KeyInTransit>, Failure> {
    let Some(lineage) = lineage else {
        return Ok(None);
    };
    let opened = shared.records.lineage_key(KeyUse {
        account: &plan.account,
        lineage,
        object,
        volume,
    });
    let opened = shared.runtime.block_on(opened);
    let key = opened.map_err(|error| failure_of(&error))?;
    let transit = KeyInTransit::new(&key);
    transit
        .map(Some)
        .map_err(|error| Failure::new(code::KEY_UNUSABLE, error.to_string()))
}

fn failure_of(error: &Error) -> Failure {
    Failure::new(error.code().name(), error.full_message())
}

fn confirm_token(served: &Served, shared: &Shared, hash: TokenHash) -> Result<(), Failure> {
    if served.plan.is_attachment() {
        let stored = shared.records.token(&served.plan.service, hash.clone());
        let stored = shared.runtime.block_on(stored);
        stored.map_err(|error| failure_of(&error))?;
    }
    served.update(|inner| {
        inner.tokens.current = Some(hash);
        inner.tokens.next = None;
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use sealblk_proto::message::StoreExpected;

    use super::*;
    use crate::host::backends::plan::StorePlace;
    use crate::host::backends::served::Tokens;

    fn served() -> Served {
        let plan = Plan {
            service: "att-1".into(),
            account: "default".into(),
            lineage: None,
            config: AttachmentConfig {
                disk: "disk-1".into(),
                serial: "disk-1".into(),
                size: 512,
                encrypted: false,
                read_only: false,
                queues: 1,
                store: StoreKind::Raw,
                bases: 0,
                shared: false,
                all_queues: 0,
                on_full: OnFull::Error,
                expected: StoreExpected::default(),
                guest_size: None,
                mode: Mode::Serve,
                socket: String::new(),
            },
            store: StorePlace {
                path: "/nowhere".into(),
                expected: crate::host::store::Expected::of(None, None),
                passed: None,
            },
            bases: Vec::new(),
            source: None,
            backend_socket: "/nowhere".into(),
            runtime: "/nowhere".into(),
            log: "/nowhere".into(),
            sessions: Vec::new(),
            shared: false,
            start: true,
            backend: None,
            uid: 0,
        };
        Served::new(plan, Tokens::default())
    }

    fn claimant(replaceable: bool) -> (Child, Arc<Claimant>) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let claimant = Claimant {
            process: Arc::new(Process::open(child.id() as i32).unwrap()),
            channel: Channel::pair().unwrap().0,
            replaceable,
            settled: AtomicBool::new(false),
        };
        (child, Arc::new(claimant))
    }

    /// A process that is silent for longer than a step may take is given up, and no other.
    #[test]
    fn a_store_may_take_long_to_open_as_long_as_that_gets_on() {
        let served = served();
        let (ours, theirs) = Channel::pair().unwrap();
        let step = std::time::Duration::from_millis(400);
        ours.set_timeout(Some(step)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..8 {
                    std::thread::sleep(step / 4);
                    theirs.send(&Readiness::Opening, &[]).unwrap();
                }
                theirs.send(&Readiness::Ready, &[]).unwrap();
            });
            wait_until_ready(&served, &ours).unwrap();
        });
        assert!(wait_until_ready(&served, &ours).is_err());
    }

    #[test]
    fn a_returning_backend_takes_the_place_of_one_that_is_not_ready() {
        let served = served();
        let (mut new_child, new) = claimant(true);
        let (mut old_child, old) = claimant(false);
        let new_claim = claim(&served, new, Way::Begins).unwrap();
        assert!(
            claim(&served, Arc::clone(&old), Way::Begins).is_err(),
            "only one that returns"
        );
        let old_claim = claim(&served, old, Way::Returns).unwrap();
        assert!(!new_child.wait().unwrap().success(), "it was killed");
        assert!(new_claim.settle().is_err());
        drop(new_claim);
        old_claim.settle().unwrap();
        old_child.kill().unwrap();
        old_child.wait().unwrap();
    }

    #[test]
    fn a_backend_that_serves_keeps_its_place_and_none_is_taken_while_detaching() {
        let served = served();
        let (mut first_child, first) = claimant(true);
        let (mut second_child, second) = claimant(false);
        let held = claim(&served, Arc::clone(&first), Way::Begins).unwrap();
        held.settle().unwrap();
        assert!(claim(&served, Arc::clone(&second), Way::Returns).is_err());
        drop(held);
        served.update(|inner| inner.detaching = true);
        assert!(claim(&served, first, Way::Begins).is_err());
        assert!(claim(&served, second, Way::Returns).is_ok());
        for child in [&mut first_child, &mut second_child] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

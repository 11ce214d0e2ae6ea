//! Commands from the KMS, carried out one after another.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use sealblk_proto::causes::with_causes;
use sealblk_proto::channel::{Channel, ChannelError, Listener};
use sealblk_proto::message::{
    AttachmentConfig, Change, ClosedStores, Command, Failure, OnFull, Outcome, Reply, Request, RoomStats,
    SessionConfig, Stats, code,
};

use super::aside::{Aside, Undone};
use super::layers;
use super::link::{Claim, LinkError};
use super::looks::Looks;
use super::sessions::Sessions;
use super::takeover;
use crate::barrier::Barrier;
use crate::disk::Disk;
use crate::limits::MAX_HOLD_MS;
use crate::store::layered::{FileMedium, LayeredStore};
use crate::units::{ByteLen, Capacity, SECTOR_BYTES};
use crate::vhost::StopError;

/// How long one reply may take to be sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long requests in flight may take to end before the disk's contents are replaced.
const REST_PATIENCE: Duration = Duration::from_secs(10);
/// How long an attachment's requests in flight may take to end when it is removed, and the sync afterwards: together less
/// than the KMS waits for an answer.
const REMOVE_PATIENCE: Duration = Duration::from_secs(4);
/// Time between two attempts to take a connection, where there are no descriptors to be had.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(200);

/// Why [`Commander::run`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The disk was detached: everything is drained, durable and closed.
    Detached,
    /// A successor serves it.
    HandedOver,
}

/// Carries out commands on one served disk.
pub struct Commander {
    /// What it shows to a KMS that has come back.
    pub claim: Claim,
    /// Where that dials; none if there is no such socket, and no KMS comes back.
    pub control: Option<Listener>,
    /// What the process's sandbox lacks, each as `name: cause`; none if it has none.
    pub sandbox: Option<Vec<String>>,
    /// What is being served.
    pub config: AttachmentConfig,
    /// The disk.
    pub disk: Arc<Disk>,
    /// To bring its workers to rest.
    pub barrier: Arc<Barrier>,
    /// Its sockets and frontends.
    pub sessions: Arc<Sessions>,
    /// What is carried out beside other commands: looks at what the store holds.
    pub looks: Looks,
    /// And examinations of it.
    pub checks: Looks,
    /// Syncs that are not waited for as long as they take.
    pub syncs: Aside,
    /// Guests see the size that they have seen until now, however much the disk grows.
    pub keeps_size: AtomicBool,
}

impl Commander {
    /// Answers commands until the disk is detached. When the KMS goes away, waits until it dials. Calls `ends` when nothing is left
    /// to be done but the last checkpoint.
    pub fn run(&self, mut channel: Channel, ends: &dyn Fn()) -> Ended {
        // As it is seen from where this process is now, like those who dial later.
        let kms = channel.peer().map(|peer| peer.uid);
        loop {
            match self.serve(&channel, ends) {
                Ok(ended) => return ended,
                Err(ChannelError::Closed) => log::info!("the KMS has gone; serving on"),
                Err(error) => log::warn!("the KMS is lost, serving on: {}", with_causes(&error)),
            }
            // Nobody is left to lift a hold.
            self.barrier.release();
            self.looks.forget();
            self.checks.forget();
            drop(channel);
            channel = match (&self.control, &kms) {
                (Some(control), Ok(kms)) => self.wait_for_kms(control, *kms),
                _ => serve_alone(),
            };
        }
    }

    /// Waits until a KMS has dialled that takes this process back.
    fn wait_for_kms(&self, control: &Listener, kms: u32) -> Channel {
        let mut complained = false;
        loop {
            let channel = match control.accept() {
                Ok(channel) => channel,
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        log::warn!("no connection can be taken: {error}");
                    }
                    std::thread::sleep(ACCEPT_INTERVAL);
                    continue;
                }
            };
            match self.claim.renew(&channel, kms) {
                Ok(config) => {
                    // What is done without room, who else is served and how much guests see is told by command to a process
                    // that serves; what the store must be, only to one that opens it.
                    let same = AttachmentConfig {
                        on_full: self.config.on_full,
                        all_queues: self.config.all_queues,
                        expected: self.config.expected.clone(),
                        guest_size: self.config.guest_size,
                        ..config
                    };
                    if same != self.config {
                        log::warn!("the KMS has another configuration for this attachment; it is ignored");
                    }
                    log::info!("the KMS is back");
                    return channel;
                }
                // The KMS has dialled and not waited: another attempt, or another KMS, comes next.
                Err(LinkError::Channel(ChannelError::Closed)) => {}
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        log::warn!(
                            "one has dialled and is not served: {}; serving on",
                            with_causes(&error)
                        );
                    }
                }
            }
        }
    }

    /// Serves one connection. Returns at the end of the disk; the end of the connection is an error.
    fn serve(&self, channel: &Channel, ends: &dyn Fn()) -> Result<Ended, ChannelError> {
        channel.set_timeout(Some(PATIENCE))?;
        loop {
            let is_there = self.wait(channel)?;
            for (id, outcome) in self.looks.answers().into_iter().chain(self.checks.answers()) {
                channel.send(&Reply::to(id, outcome), &[])?;
            }
            if !is_there {
                continue;
            }
            let (request, descriptors) = channel.receive::<Request>()?;
            let begun = match &request.command {
                Command::Store { after } => Some(self.looks.begin(request.id, after.clone())),
                Command::Check { repair: false } => Some(self.checks.begin(request.id, None)),
                _ => None,
            };
            let outcome = match (begun, &request.command) {
                (Some(Ok(())), _) => continue,
                (Some(Err(failure)), _) => Outcome::Failed(failure),
                (None, Command::HandOver) => self.hand_over(descriptors),
                (None, Command::AddSession(config)) => self.add_session(config, descriptors),
                (None, Command::Listen { attachment }) => self.listen(attachment, descriptors),
                (None, command) => self.carry_out(command),
            };
            let ended = match &request.command {
                _ if outcome != Outcome::Done => None,
                Command::Detach { .. } => Some(Ended::Detached),
                Command::HandOver => Some(Ended::HandedOver),
                _ => None,
            };
            let sockets = match &outcome {
                Outcome::Sessions(_) => self.sessions.sockets(),
                _ => Vec::new(),
            };
            let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            let sent = channel.send(&Reply::to(request.id, outcome), &sockets);
            if ended == Some(Ended::Detached) {
                ends();
                say_closed(channel, request.id, || ClosedStores {
                    store: self.disk.store().close().as_ref().map(layers::state_report),
                    source: None,
                });
            }
            if let Some(ended) = ended {
                // What is done is done, whether the KMS hears of it or not.
                return Ok(ended);
            }
            sent?;
        }
    }

    /// Waits for a command or for an answer. Returns whether a command, or the connection's end, is there.
    fn wait(&self, channel: &Channel) -> io::Result<bool> {
        let mut fds = [
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(&self.looks, PollFlags::IN),
            PollFd::new(&self.checks, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn carry_out(&self, command: &Command) -> Outcome {
        match command {
            Command::Stats => Outcome::Stats(self.stats()),
            Command::Quiesce { hold_ms } => self.quiesce(*hold_ms),
            Command::Resume => {
                self.barrier.release();
                Outcome::Done
            }
            Command::OnFull(on_full) => {
                self.disk.room().set_holds(*on_full == OnFull::Stop);
                Outcome::Done
            }
            Command::Detach { force } => self.detach(*force),
            Command::RemoveSession { attachment, force } => self.remove_session(attachment, *force),
            Command::Sessions => Outcome::Sessions(self.sessions.status()),
            Command::HandOver
            | Command::AddSession(_)
            | Command::Listen { .. }
            | Command::Store { .. }
            | Command::Check { repair: false } => {
                unreachable!("carried out by who has its socket, or beside the others")
            }
            Command::Progress => Outcome::Failed(Failure::new(code::NOT_SUPPORTED, "nothing is copied")),
            Command::Change { operation, change } => self
                .change(operation, change)
                .map_or_else(Outcome::Failed, |()| Outcome::Done),
            Command::WasMade { operation } => self.with_layers(|store| layers::was_made(store, operation)),
            Command::Check { repair: true } => {
                let text = "a store can be repaired only while its disk is detached";
                Outcome::Failed(Failure::new(code::NOT_SUPPORTED, text))
            }
        }
    }

    fn stats(&self) -> Stats {
        let counters = self.disk.counters();
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            frontend_connected: self.sessions.is_connected(),
            poisoned: self.disk.is_poisoned(),
            cause: self.disk.store().poison().cause(),
            reads: read(&counters.reads),
            writes: read(&counters.writes),
            flushes: read(&counters.flushes),
            bytes_read: read(&counters.bytes_read),
            bytes_written: read(&counters.bytes_written),
            errors: read(&counters.errors),
            allocated: self.sessions.allocated(),
            room: Some(RoomStats {
                on_full: match self.disk.room().holds() {
                    true => OnFull::Stop,
                    false => OnFull::Error,
                },
                is_short: self.disk.room().is_short(),
                held: self.disk.room().held(),
            }),
            sandbox: self.sandbox.clone(),
            store: self
                .disk
                .store()
                .layered()
                .map(|store| layers::state_report(&store.store_state())),
            guest_size: Some(self.disk.capacity().bytes().0),
        }
    }

    fn with_layers(&self, answer: impl FnOnce(&LayeredStore<FileMedium>) -> Outcome) -> Outcome {
        self.layered().map_or_else(Outcome::Failed, answer)
    }

    fn layered(&self) -> Result<&LayeredStore<FileMedium>, Failure> {
        layers::layers_of(self.disk.store())
    }

    /// Changes the store, with the guest's requests at rest where that is needed.
    fn change(&self, operation: &str, change: &Change) -> Result<(), Failure> {
        let store = self.layered()?;
        if self.checks.are_going_on() && !matches!(change, Change::Pin { .. } | Change::Unpin { .. }) {
            return Err(Failure::new("Busy", "the store is being examined"));
        }
        if layers::needs_rest(change) && !layers::is_forced(change) && self.sessions.is_connected() {
            let text = "a virtual machine is connected, and does not expect its disk to change";
            return Err(Failure::new(code::FRONTEND_CONNECTED, text));
        }
        let rests = layers::needs_rest(change);
        if rests {
            // Also where it is held: a hold ends by itself.
            self.barrier
                .raise(REST_PATIENCE)
                .map_err(|error| Failure::new("Busy", error.to_string()))?;
        }
        let made = layers::change(store, operation, change);
        if rests {
            self.barrier.lower();
        }
        made?;
        if matches!(change, Change::Resize { hidden: true, .. }) {
            self.keeps_size.store(true, Ordering::Relaxed);
        }
        if self.keeps_size.load(Ordering::Relaxed) {
            return Ok(());
        }
        let capacity = Capacity::new(ByteLen(store.sectors() * SECTOR_BYTES as u64));
        if let Ok(capacity) = capacity
            && capacity != self.disk.capacity()
        {
            self.disk.grow(capacity);
            let told = self.sessions.notify_config_change();
            log::info!(
                "the disk has {} bytes now; the guest {}",
                capacity.bytes().0,
                if told {
                    "was told"
                } else {
                    "sees it when it is attached anew"
                }
            );
        }
        Ok(())
    }

    fn quiesce(&self, hold_ms: u64) -> Outcome {
        // From here on the guest may be waiting.
        let deadline = Instant::now() + Duration::from_millis(hold_ms.min(MAX_HOLD_MS));
        match self.hold_and_sync(deadline) {
            Ok(()) => Outcome::Done,
            Err(failure) => {
                self.barrier.release();
                Outcome::Failed(failure)
            }
        }
    }

    fn hold_and_sync(&self, deadline: Instant) -> Result<(), Failure> {
        let busy = |text: &str| Failure::new("Busy", text);
        self.barrier
            .hold(deadline)
            .map_err(|error| busy(&with_causes(&error)))?;
        let left = deadline.saturating_duration_since(Instant::now());
        match self.sync_within(left) {
            Ok(Err(error)) => Err(Failure::new("SyncFailed", with_causes(&error))),
            Ok(Ok(())) if self.barrier.is_held() => Ok(()),
            Ok(Ok(())) | Err(Undone::Late) => Err(busy("the data took longer to sync than the hold lasts")),
            Err(undone) => Err(busy(&format!(
                "the data was not synced: {}",
                with_causes(&undone)
            ))),
        }
    }

    fn hand_over(&self, mut descriptors: Vec<OwnedFd>) -> Outcome {
        let failed = |code: &str, text: &str| Outcome::Failed(Failure::new(code, text));
        if self.barrier.is_held() {
            return failed("Busy", "the disk is held");
        }
        if self.checks.are_going_on() {
            // An examination makes checkpoints, of which the successor would know nothing.
            return failed("Busy", "the store is being examined");
        }
        let Some(bridge) = descriptors.pop().map(Channel::from) else {
            return failed(code::NOT_SUPPORTED, "no successor was named");
        };
        match takeover::give(
            &bridge,
            &self.claim.attachment,
            &self.sessions,
            &self.disk,
            &self.barrier,
        ) {
            Ok(()) => {
                self.sessions.leave_paths();
                Outcome::Done
            }
            Err(failure) => {
                log::warn!("not handed over, serving on: {failure}");
                Outcome::Failed(failure)
            }
        }
    }

    fn add_session(&self, config: &SessionConfig, mut descriptors: Vec<OwnedFd>) -> Outcome {
        let Some(socket) = descriptors.pop().map(UnixListener::from) else {
            return Outcome::Failed(Failure::new(code::SOCKET_UNUSABLE, "no socket came with it"));
        };
        let added = self.sessions.add(config.clone(), socket, None);
        added.map_or_else(Outcome::Failed, |()| Outcome::Done)
    }

    fn listen(&self, attachment: &str, mut descriptors: Vec<OwnedFd>) -> Outcome {
        let Some(socket) = descriptors.pop().map(UnixListener::from) else {
            return Outcome::Failed(Failure::new(code::SOCKET_UNUSABLE, "no socket came with it"));
        };
        let changed = self.sessions.listen_on(attachment, socket);
        changed.map_or_else(Outcome::Failed, |()| Outcome::Done)
    }

    fn remove_session(&self, attachment: &str, force: bool) -> Outcome {
        match self.sessions.remove(attachment, force, REMOVE_PATIENCE) {
            Err(error @ StopError::FrontendConnected) => {
                Outcome::Failed(Failure::new(code::FRONTEND_CONNECTED, error.to_string()))
            }
            Err(error @ StopError::Busy) => Outcome::Failed(Failure::new("Busy", error.to_string())),
            Ok(false) => Outcome::Done,
            Ok(true) => {
                // The others are served on, and so are commands about them.
                match self.sync_within(REMOVE_PATIENCE) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => not_durable(&error),
                    Err(undone) => log::warn!(
                        "the removed attachment's last writes are not durable yet: {}",
                        with_causes(&undone)
                    ),
                }
                Outcome::Done
            }
        }
    }

    fn detach(&self, force: bool) -> Outcome {
        // Workers at rest stop as well; a refused detach must not end a hold.
        match self.sessions.stop(force) {
            Err(error) => Outcome::Failed(Failure::new(code::FRONTEND_CONNECTED, error.to_string())),
            Ok(()) => {
                // However long it takes: nobody is served any more, and a KMS that cannot wait kills the process.
                let _ = self.disk.sync().inspect_err(not_durable);
                Outcome::Done
            }
        }
    }

    /// Syncs the disk. None: that takes longer, and goes on, or an earlier one still does.
    fn sync_within(&self, patience: Duration) -> Result<io::Result<()>, Undone> {
        let disk = self.disk.clone();
        self.syncs.within(patience, "sync", move || disk.sync())
    }
}

/// Closes the stores, after the answer to a [`Command::Detach`] of this id, and says what is left of them, if that is
/// understood. Otherwise they are closed when they are dropped.
pub(super) fn say_closed(channel: &Channel, id: u64, close: impl FnOnce() -> ClosedStores) {
    if id & Request::KNOWS_STORE != 0 {
        // If it is not heard, the KMS does not know the end, and takes whatever is not older.
        let _ = channel.send(&Reply::to(id, Outcome::Closed(close())), &[]);
    }
}

/// Until a signal ends the process.
fn serve_alone() -> ! {
    log::error!("no KMS can reach this process: it serves on until it is ended by a signal");
    loop {
        std::thread::park();
    }
}

/// A guest that needed durability has flushed and been told; a last sync is for the others.
fn not_durable(error: &io::Error) {
    log::error!("the last writes may not be durable: {}", with_causes(error));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use sealblk_proto::message::{CheckReport, Mode, StoreExpected, StoreKind, StoreReport};
    use sealblk_proto::token::Token;
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::driver::{self, Driver, FLUSH, OK, PROTOCOL_FEATURES, VERSION_1};
    use crate::store::{RawStore, Store};
    use crate::vhost::{Crew, QueueContext, Tuning};

    /// For two sessions of one queue each.
    fn commander(looks: Looks, checks: Looks) -> Commander {
        let capacity = Capacity::new(ByteLen(4096)).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let store = Store::Raw(RawStore::open(file, capacity).unwrap());
        let disk = Arc::new(Disk::new(capacity, false, "", None, store));
        let barrier = Arc::new(Barrier::default());
        let context = QueueContext::new(
            disk.clone(),
            barrier.clone(),
            Tuning::default(),
            Crew::new(2).unwrap(),
        );
        Commander {
            claim: Claim::new("/nowhere".into(), "att-1".to_owned(), Token::generate().unwrap()),
            control: None,
            sandbox: None,
            config: AttachmentConfig {
                disk: "disk-1".to_owned(),
                serial: String::new(),
                size: 4096,
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
            disk,
            barrier,
            sessions: Arc::new(Sessions::new(context)),
            looks,
            checks,
            syncs: Aside::default(),
            keeps_size: AtomicBool::new(false),
        }
    }

    fn ask(channel: &Channel, id: u64, command: Command) {
        channel.send(&Request { id, command }, &[]).unwrap();
    }

    #[test]
    fn a_look_that_takes_long_holds_up_no_other_command() {
        let (answer, answers) = mpsc::channel::<()>();
        let looks = Looks::new(move |_, _| {
            answers.recv().unwrap();
            Outcome::Store(StoreReport::default())
        });
        let (checked, checks) = mpsc::channel::<()>();
        let checks = Looks::new(move |_, _| {
            checks.recv().unwrap();
            Outcome::Check(CheckReport::default())
        });
        let commander = commander(looks.unwrap(), checks.unwrap());
        let (ours, theirs) = Channel::pair().unwrap();
        let run = std::thread::spawn(move || commander.run(theirs, &|| ()));
        let look = |id: u64| {
            let after = Some(format!("snap-{id}"));
            ask(&ours, id, Command::Store { after });
        };
        ask(&ours, 10, Command::Check { repair: false });
        look(1);
        look(2);
        let received = || ours.receive::<Reply>().unwrap().0;
        ask(&ours, 3, Command::Stats);
        let reply = received();
        assert!(matches!(reply.outcome, Outcome::Stats(_)) && reply.id == 3);
        ask(&ours, 4, Command::Quiesce { hold_ms: 30_000 });
        assert_eq!(received(), Reply::to(4, Outcome::Done));
        ask(&ours, 5, Command::Resume);
        assert_eq!(received(), Reply::to(5, Outcome::Done));
        for id in 1..=2 {
            answer.send(()).unwrap();
            let reply = received();
            assert!(matches!(reply.outcome, Outcome::Store(_)) && reply.id == id);
        }
        // An examination, which takes longest, has held up nobody; but its checkpoints must not meet a hand-over's.
        ask(&ours, 11, Command::HandOver);
        assert!(matches!(received().outcome, Outcome::Failed(busy) if busy.code == "Busy"));
        checked.send(()).unwrap();
        assert_eq!(received(), Reply::to(10, Outcome::Check(CheckReport::default())));
        // One more of each that is not answered does not hold up the end either.
        ask(&ours, 12, Command::Check { repair: false });
        look(6);
        ask(&ours, 7, Command::Detach { force: false });
        assert_eq!(received(), Reply::to(7, Outcome::Done));
        assert_eq!(run.join().unwrap(), Ended::Detached);
    }

    #[test]
    fn a_hold_that_ends_without_its_sync_says_whose_sync_it_was() {
        let looks = || Looks::new(|_, _| Outcome::Done).unwrap();
        let commander = commander(looks(), looks());
        let text = |outcome| match outcome {
            Outcome::Failed(failure) => failure.message,
            other => panic!("{other:?}"),
        };
        // As long as this has the turn to sync, no other sync begins.
        let wake = Arc::new(EventFd::new(0).unwrap());
        assert!(commander.disk.try_begin_sync(&wake));
        let late = text(commander.quiesce(20));
        assert!(late.contains("longer to sync than the hold lasts"), "{late}");
        let earlier = text(commander.quiesce(30_000));
        assert!(earlier.contains("an earlier one has not ended"), "{earlier}");
        commander.disk.end_sync(Ok(())).unwrap();
    }

    #[test]
    fn a_session_that_is_removed_and_does_not_end_is_busy_and_the_others_are_served() {
        let looks = || Looks::new(|_, _| Outcome::Done).unwrap();
        let commander = commander(looks(), looks());
        let (disk, sessions) = (commander.disk.clone(), commander.sessions.clone());
        let directory = tempfile::tempdir().unwrap();
        let [mut one, mut other] = ["att-1", "att-2"].map(|attachment| {
            let socket = directory.path().join(attachment);
            let config = SessionConfig {
                attachment: attachment.to_owned(),
                queues: 1,
                read_only: false,
            };
            let listener = UnixListener::bind(&socket).unwrap();
            sessions.add(config, listener, None).unwrap();
            Driver::connect(&socket).running(VERSION_1 | PROTOCOL_FEATURES | FLUSH, 1, 128)
        });
        let (ours, theirs) = Channel::pair().unwrap();
        ours.set_timeout(Some(driver::PATIENCE)).unwrap();
        let run = std::thread::spawn(move || commander.run(theirs, &|| ()));
        // As long as this has the turn to sync, no flush ends.
        assert!(disk.try_begin_sync(&Arc::new(EventFd::new(0).unwrap())));
        one.begin_flush();
        let removed = |id| {
            let attachment = "att-1".to_owned();
            ask(
                &ours,
                id,
                Command::RemoveSession {
                    attachment,
                    force: true,
                },
            );
            ours.receive::<Reply>().unwrap().0.outcome
        };
        let outcome = removed(1);
        assert!(
            matches!(&outcome, Outcome::Failed(busy) if busy.code == "Busy"),
            "{outcome:?}"
        );
        assert!(one.is_closed());
        assert_eq!(other.write(0, &[1; 512]), OK);
        ask(&ours, 2, Command::Stats);
        assert!(matches!(
            ours.receive::<Reply>().unwrap().0.outcome,
            Outcome::Stats(_)
        ));
        // The session has not been forgotten: it ends when its flush has.
        disk.end_sync(Ok(())).unwrap();
        assert_eq!(removed(3), Outcome::Done);
        assert_eq!(other.read(0, 512), [1; 512]);
        ask(&ours, 4, Command::Detach { force: true });
        assert_eq!(ours.receive::<Reply>().unwrap().0, Reply::to(4, Outcome::Done));
        assert_eq!(run.join().unwrap(), Ended::Detached);
    }

    #[test]
    fn one_that_nobody_waits_for_any_more_is_given_up() {
        let (begun, begins) = mpsc::channel();
        let (given_up, ends) = mpsc::channel();
        let looks = Looks::new(move |_, is_wanted| {
            begun.send(()).unwrap();
            while is_wanted() {
                std::thread::yield_now();
            }
            given_up.send(()).unwrap();
            Outcome::Done
        });
        let looks = looks.unwrap();
        looks.begin(1, None).unwrap();
        begins.recv().unwrap();
        looks.forget();
        ends.recv().unwrap();
        while looks.are_going_on() {
            std::thread::yield_now();
        }
        assert_eq!(looks.answers(), []);
    }

    #[test]
    fn looks_that_wait_have_a_limit() {
        let (answer, answers) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let looks = Looks::new(move |_, _| {
            begun.send(()).unwrap();
            answers.recv().unwrap();
            Outcome::Done
        });
        let looks = looks.unwrap();
        looks.begin(0, None).unwrap();
        begins.recv().unwrap();
        let mut id = 0;
        while looks.begin(id + 1, None).is_ok() {
            id += 1;
            assert!(id < 100);
        }
        // One answer for all that waited.
        for _ in 0..2 {
            answer.send(()).unwrap();
        }
        let mut answered = Vec::new();
        while answered.len() <= id as usize {
            answered.extend(looks.answers().into_iter().map(|(id, _)| id));
            std::thread::yield_now();
        }
        assert_eq!(answered, (0..=id).collect::<Vec<_>>());
    }
}

//! The real process is killed again and again under load from several queues; what was acknowledged is there afterwards.
//!
//! Writes, discards and zeros go to four queues, with flushes, while snapshots are taken and deleted. At any moment the
//! process is killed (SIGKILL), which its guest does not learn. Then the next process must have: each acknowledged
//! request; of those without an answer, each sector as before or as after; each acknowledged snapshot, as the disk was at
//! one moment while it was taken.
//!
//! `SEALBLK_KILLS` says how often, `SEALBLK_SEED` repeats the choices of an earlier run (but not what met at a moment).

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc;
use std::time::Instant;

use sealblk_proto::channel::Channel;
use sealblk_proto::message::{Change, Command as Order, Outcome, Reply, Request};

use crate::driver::{
    DISCARD, Driver, FLUSH, NO_STATUS, OK, PATIENCE, PROTOCOL_FEATURES, T_DISCARD, T_FLUSH, T_IN, T_OUT,
    T_WRITE_ZEROES, VERSION_1, WRITE_ZEROES, readable, writable,
};
use crate::stage::{Served, Stage};

const SIZE: u64 = 8 << 20;
const SECTORS: usize = (SIZE / 512) as usize;
const QUEUES: u16 = 4;
/// Requests in flight on each queue, each with memory of its own.
const DEPTH: usize = 8;
const RING: u16 = 128;
/// A request has at most three descriptors. Its slots in the ring's table come round again after this many others.
const REQUESTS_PER_ROUND: u64 = RING as u64 / 3 - 1;
const MEMORY: u64 = 0x40_0000;
const MEMORY_OF_REQUEST: u64 = 0x2_0000;
/// Where the data is, and the status.
const DATA_OFFSET: u64 = 0x1000;
const STATUS_OFFSET: u64 = 16;
const KILLS: u64 = 10;
/// Most requests that are answered before a kill.
const REQUESTS: u64 = 600;
const SNAPSHOTS: usize = 4;

/// xorshift64* (Vigna, 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What a sector holds: zeros (0), or what the write of this number put there.
type Value = u64;

fn put_sector(value: Value, sector: usize, bytes: &mut [u8]) {
    let word = if value == 0 {
        0
    } else {
        value << 24 | sector as u64
    };
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

fn value_of(what: &str, sector: usize, bytes: &[u8]) -> Value {
    let word = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let mut expected = [0; 512];
    put_sector(word >> 24, sector, &mut expected);
    assert!(
        bytes == expected,
        "{what}: sector {sector} holds no write of its own in whole: begins with {word:#x}"
    );
    word >> 24
}

/// A change of one sector: submitted and answered at these ticks of the test's own clock.
#[derive(Clone, Copy, Debug)]
struct Event {
    value: Value,
    submitted: u64,
    answered: Option<u64>,
}

/// What the disk may hold. Requests in flight never touch the same sector, so that a sector's changes have an order.
struct Model {
    /// Changes of each sector, oldest first; the first stands for what was there before.
    sectors: Vec<Vec<Event>>,
    tick: u64,
}

impl Model {
    fn new() -> Self {
        let zeros = Event {
            value: 0,
            submitted: 0,
            answered: Some(0),
        };
        Model {
            sectors: vec![vec![zeros]; SECTORS],
            tick: 0,
        }
    }

    fn now(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    fn is_busy(&self, first: usize, count: usize) -> bool {
        let busy = |events: &Vec<Event>| events.last().is_some_and(|event| event.answered.is_none());
        self.sectors[first..first + count].iter().any(busy)
    }

    fn submit(&mut self, first: usize, count: usize, value: Value) {
        let submitted = self.now();
        for events in &mut self.sectors[first..first + count] {
            events.push(Event {
                value,
                submitted,
                answered: None,
            });
        }
    }

    fn answer(&mut self, first: usize, count: usize) {
        let now = self.now();
        for events in &mut self.sectors[first..first + count] {
            events.last_mut().unwrap().answered = Some(now);
        }
    }

    /// The disk holds what was acknowledged, and of the rest one or the other. From now on it holds what was found.
    fn settle(&mut self, found: &[Value]) {
        for (sector, (events, found)) in self.sectors.iter_mut().zip(found).enumerate() {
            let last = events.pop().unwrap();
            let before = events.last().copied();
            let open_before = before.filter(|_| last.answered.is_none());
            assert!(
                *found == last.value || open_before.is_some_and(|event| event.value == *found),
                "sector {sector} holds {found}; expected {} ({}) or {:?}",
                last.value,
                if last.answered.is_some() {
                    "acknowledged"
                } else {
                    "in flight"
                },
                open_before.map(|event| event.value)
            );
            *events = vec![Event {
                value: *found,
                submitted: 0,
                answered: Some(0),
            }];
        }
    }
}

/// What a snapshot may hold: the changes of each sector that were known when it was answered.
struct Snapshot {
    /// When it was asked for.
    asked: u64,
    /// When it was answered; none if it never was.
    answered: Option<u64>,
    sectors: Vec<Vec<Event>>,
    /// Its deletion was asked for: it may be there or not.
    going: bool,
}

impl Snapshot {
    /// There is one moment, after it was asked for and before it was answered, such that each change is in it that had
    /// been answered before, and none that was submitted after.
    fn verify(&self, name: &str, found: &[Value]) {
        // The moment is not before and not after these ticks, because of these sectors.
        let mut not_before = (self.asked, usize::MAX);
        let mut not_after = (self.answered.unwrap_or(u64::MAX), usize::MAX);
        for (sector, (events, found)) in self.sectors.iter().zip(found).enumerate() {
            // Zeros may have been there more than once: any time will do, and none is proof of the moment.
            let fits = |index: &usize| {
                let next = events.get(index + 1).and_then(|event| event.answered);
                events[*index].submitted <= not_after.0
                    && next.is_none_or(|answered| answered >= not_before.0)
            };
            let held = (0..events.len())
                .filter(|index| events[*index].value == *found)
                .find(fits);
            let Some(held) = held else {
                let of = |sector: usize| self.sectors.get(sector);
                panic!(
                    "{name}, asked for at {} and answered at {:?}: sector {sector} holds {found} of {events:?}, which was \
                     at no moment after {not_before:?} {:?} and before {not_after:?} {:?}",
                    self.asked,
                    self.answered,
                    of(not_before.1),
                    of(not_after.1)
                );
            };
            if *found != 0 {
                not_before = not_before.max((events[held].submitted, sector));
                if let Some(answered) = events.get(held + 1).and_then(|event| event.answered) {
                    not_after = not_after.min((answered, sector));
                }
            }
        }
        assert!(not_before <= not_after, "{name} is no moment");
    }
}

/// What is in flight in one of a queue's places.
struct Flight {
    head: u16,
    sequence: u64,
    /// Sectors that it changes; none if it is a flush.
    range: Option<(usize, usize)>,
}

#[derive(Default)]
struct Load {
    flights: Vec<Vec<Option<Flight>>>,
    sequences: Vec<u64>,
    completed: u64,
}

impl Load {
    fn new() -> Self {
        Load {
            flights: (0..QUEUES).map(|_| (0..DEPTH).map(|_| None).collect()).collect(),
            sequences: vec![0; QUEUES.into()],
            completed: 0,
        }
    }

    fn memory(queue: usize, place: usize) -> u64 {
        MEMORY + (queue * DEPTH + place) as u64 * MEMORY_OF_REQUEST
    }

    /// Gives a queue another request, if it has a free place.
    fn submit(
        &mut self,
        driver: &mut Driver,
        model: &mut Model,
        queue: usize,
        value: Value,
        random: &mut Random,
    ) {
        let flights = &self.flights[queue];
        let oldest = flights.iter().flatten().map(|flight| flight.sequence).min();
        let sequence = self.sequences[queue];
        let Some(place) = flights.iter().position(Option::is_none) else {
            return;
        };
        if oldest.is_some_and(|oldest| sequence - oldest >= REQUESTS_PER_ROUND) {
            return;
        }
        let base = Self::memory(queue, place);
        let (kind, range) = choose(random);
        if range.is_some_and(|(first, count)| model.is_busy(first, count)) {
            return;
        }
        driver.header(base, kind, 0);
        driver.put(base + STATUS_OFFSET, &[NO_STATUS]);
        let mut descriptors = vec![readable(base, 16)];
        if let Some((first, count)) = range {
            let data = if kind == T_OUT {
                driver.header(base, kind, first as u64);
                let mut bytes = vec![0; count * 512];
                for (index, bytes) in bytes.chunks_exact_mut(512).enumerate() {
                    put_sector(value, first + index, bytes);
                }
                bytes
            } else {
                let unmap = u32::from(kind == T_WRITE_ZEROES) * (value as u32 & 1);
                [
                    &(first as u64).to_le_bytes()[..],
                    &(count as u32).to_le_bytes(),
                    &unmap.to_le_bytes(),
                ]
                .concat()
            };
            driver.put(base + DATA_OFFSET, &data);
            descriptors.push(readable(base + DATA_OFFSET, data.len() as u32));
            model.submit(first, count, if kind == T_OUT { value } else { 0 });
        }
        descriptors.push(writable(base + STATUS_OFFSET, 1));
        let head = driver.chain(queue, &descriptors);
        self.flights[queue][place] = Some(Flight {
            head,
            sequence,
            range,
        });
        self.sequences[queue] += 1;
        driver.offer(queue, head);
        driver.kick(queue);
    }

    /// Takes what has been answered.
    fn collect(&mut self, driver: &mut Driver, model: &mut Model) {
        for queue in 0..self.flights.len() {
            while driver.has_completion(queue) {
                let (head, _) = driver.completion(queue);
                let known =
                    |flight: &Option<Flight>| flight.as_ref().is_some_and(|flight| flight.head == head);
                let place = self.flights[queue]
                    .iter()
                    .position(known)
                    .expect("an answer to a request");
                let flight = self.flights[queue][place].take().unwrap();
                let status = driver.get(Self::memory(queue, place) + STATUS_OFFSET, 1);
                assert_eq!(status, [OK]);
                if let Some((first, count)) = flight.range {
                    model.answer(first, count);
                }
                self.completed += 1;
            }
        }
    }
}

/// Mostly writes, of all lengths and at all sectors, many of them close together.
fn choose(random: &mut Random) -> (u32, Option<(usize, usize)>) {
    let kind = random.below(100);
    if kind < 4 {
        return (T_FLUSH, None);
    }
    let longest = [1, 8, 32, 128][random.below(4) as usize];
    let count = 1 + random.below(longest) as usize;
    let area = if random.below(2) == 0 {
        SECTORS / 16
    } else {
        SECTORS
    };
    let first = random.below((area - count) as u64) as usize;
    match kind {
        4..12 => {
            // Of what is not whole blocks, a discard may leave all or nothing.
            let blocks = count.div_ceil(8);
            (T_DISCARD, Some((first / 8 * 8, blocks * 8)))
        }
        12..20 => (T_WRITE_ZEROES, Some((first, count))),
        _ => (T_OUT, Some((first, count))),
    }
}

/// Every sector, as a guest reads it.
fn read_all(driver: &mut Driver, what: &str) -> Vec<Value> {
    const STEP: usize = 512;
    let mut values = Vec::with_capacity(SECTORS);
    for first in (0..SECTORS).step_by(STEP) {
        let memory = MEMORY + 0x100;
        let (status, _) = driver.request(0, T_IN, first as u64, &[writable(memory, STEP as u32 * 512)]);
        assert_eq!(status, OK);
        let bytes = driver.get(memory, STEP * 512);
        let sectors = bytes.chunks_exact(512).enumerate();
        values.extend(sectors.map(|(index, bytes)| value_of(what, first + index, bytes)));
    }
    values
}

fn connect(stage: &Stage) -> Driver {
    let features = VERSION_1 | PROTOCOL_FEATURES | FLUSH | DISCARD | WRITE_ZEROES;
    Driver::connect(&stage.path("vhost.sock")).running(features, QUEUES, RING)
}

/// A change of the store that the load does not wait for.
struct Pending {
    id: u64,
    snapshot: String,
    deletes: bool,
}

/// The snapshots that there may be, and the change under way.
#[derive(Default)]
struct Operator {
    snapshots: BTreeMap<String, Snapshot>,
    order: VecDeque<String>,
    pending: Option<Pending>,
    changes: u64,
    acknowledged: u64,
}

fn id(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:016}")
}

impl Operator {
    /// Asks for the next change: a snapshot, or, if there are enough, that the oldest goes.
    fn ask(&mut self, channel: &Channel, model: &mut Model) {
        if self.pending.is_some() {
            return;
        }
        self.changes += 1;
        let deletes = self.order.len() >= SNAPSHOTS;
        let (snapshot, change) = if deletes {
            let snapshot = self.order.pop_front().unwrap();
            self.snapshots.get_mut(&snapshot).unwrap().going = true;
            (snapshot.clone(), Change::DeleteSnapshot { snapshot })
        } else {
            let snapshot = id("snap", self.changes);
            let taken = Snapshot {
                asked: model.now(),
                answered: None,
                sectors: Vec::new(),
                going: false,
            };
            self.snapshots.insert(snapshot.clone(), taken);
            self.order.push_back(snapshot.clone());
            (snapshot.clone(), Change::Snapshot { snapshot })
        };
        let request = Request {
            id: self.changes,
            command: Order::Change {
                operation: id("op", self.changes),
                change,
            },
        };
        channel.send(&request, &[]).unwrap();
        self.pending = Some(Pending {
            id: self.changes,
            snapshot,
            deletes,
        });
    }

    fn answered(&mut self, id: u64, outcome: &Outcome, model: &mut Model) {
        let pending = self.pending.take().expect("an answer to a change");
        assert_eq!((id, outcome), (pending.id, &Outcome::Done));
        self.acknowledged += 1;
        if pending.deletes {
            self.snapshots.remove(&pending.snapshot);
        } else {
            let snapshot = self.snapshots.get_mut(&pending.snapshot).unwrap();
            snapshot.answered = Some(model.now());
            snapshot.sectors.clone_from(&model.sectors);
        }
    }

    /// What was asked for and not answered is there or not; if it is, it is one moment all the same.
    fn killed(&mut self, model: &Model) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        if let Some(snapshot) = self
            .snapshots
            .get_mut(&pending.snapshot)
            .filter(|_| !pending.deletes)
        {
            snapshot.sectors.clone_from(&model.sectors);
        }
    }

    /// Looks which snapshots there are, and forgets the others.
    fn compare(&mut self, served: &mut Served) {
        let Outcome::Store(report) = served.order(Order::Store { after: None }) else {
            panic!("no report");
        };
        let held: Vec<_> = report
            .snapshots
            .iter()
            .filter(|held| !held.hidden)
            .map(|held| held.id.clone())
            .collect();
        for id in &held {
            assert!(
                self.snapshots.contains_key(id),
                "{id} was deleted or never asked for"
            );
        }
        self.snapshots.retain(|id, snapshot| {
            let is_held = held.contains(id);
            assert!(
                is_held || snapshot.going || snapshot.answered.is_none(),
                "{id} was acknowledged and is not there"
            );
            is_held
        });
        self.order.retain(|id| self.snapshots.contains_key(id));
        // What has once been seen stays.
        for snapshot in self.snapshots.values_mut() {
            snapshot.answered.get_or_insert(u64::MAX);
        }
        for id in self.snapshots.keys() {
            // Its deletion was asked for and not made.
            if !self.order.contains(id) {
                self.order.push_front(id.clone());
            }
        }
    }

    fn change(&mut self, served: &mut Served, change: Change) {
        self.changes += 1;
        let operation = id("op", self.changes);
        assert_eq!(served.order(Order::Change { operation, change }), Outcome::Done);
    }
}

/// Load until the process is killed, in the midst of it.
fn run_and_kill(
    mut served: Served,
    driver: &mut Driver,
    model: &mut Model,
    operator: &mut Operator,
    random: &mut Random,
    values: &mut Value,
) -> u64 {
    let mut load = Load::new();
    let deadline = Instant::now() + PATIENCE;
    let goal = random.below(REQUESTS);
    let (answers, answered) = mpsc::channel();
    let Served { child, channel, .. } = &mut served;
    let channel = &*channel;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok((reply, _)) = channel.receive::<Reply>() {
                answers.send(reply).unwrap();
            }
        });
        while load.completed < goal {
            assert!(Instant::now() < deadline, "{} of {goal} requests", load.completed);
            for queue in 0..usize::from(QUEUES) {
                *values += 1;
                load.submit(driver, model, queue, *values, random);
            }
            load.collect(driver, model);
            for reply in answered.try_iter() {
                operator.answered(reply.id, &reply.outcome, model);
            }
            if random.below(64) == 0 {
                operator.ask(channel, model);
            }
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
    load.collect(driver, model);
    for reply in answered.try_iter() {
        operator.answered(reply.id, &reply.outcome, model);
    }
    operator.killed(model);
    load.completed
}

/// All that must hold after a kill.
fn verify(stage: &Stage, served: &mut Served, model: &mut Model, operator: &mut Operator) {
    let mut driver = connect(stage);
    model.settle(&read_all(&mut driver, "the disk"));
    operator.compare(served);
    let live: Vec<Value> = model.sectors.iter().map(|events| events[0].value).collect();
    let keep = id("snap", 0);
    operator.change(
        served,
        Change::Snapshot {
            snapshot: keep.clone(),
        },
    );
    for (name, snapshot) in &operator.snapshots {
        let change = Change::Rollback {
            snapshot: name.clone(),
            force: true,
        };
        operator.changes += 1;
        let operation = id("op", operator.changes);
        assert_eq!(served.order(Order::Change { operation, change }), Outcome::Done);
        snapshot.verify(name, &read_all(&mut driver, name));
    }
    operator.change(
        served,
        Change::Rollback {
            snapshot: keep.clone(),
            force: true,
        },
    );
    assert!(
        read_all(&mut driver, "the disk again") == live,
        "the disk is back where it was"
    );
    operator.change(served, Change::DeleteSnapshot { snapshot: keep });
    let Outcome::Check(check) = served.order(Order::Check { repair: false }) else {
        panic!("no check");
    };
    assert_eq!(
        (check.double_used, check.bad_pages),
        (0, 0),
        "{:?}",
        check.findings
    );
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn what_was_acknowledged_survives_kills_at_any_moment() {
    let kills = number_of("SEALBLK_KILLS").unwrap_or(KILLS);
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let seed = number_of("SEALBLK_SEED").unwrap_or(clock.as_nanos() as u64);
    println!("SEALBLK_SEED={seed} SEALBLK_KILLS={kills}");
    let mut random = Random(seed | 1);
    let stage = Stage::layered(SIZE, QUEUES);
    let mut model = Model::new();
    let mut operator = Operator::default();
    let mut values: Value = 0;
    let mut served = stage.serve();
    let mut completed = 0;
    for kill in 1..=kills {
        // A new connection: the requests in flight of the last one are nobody's.
        let mut driver = connect(&stage);
        completed += run_and_kill(
            served,
            &mut driver,
            &mut model,
            &mut operator,
            &mut random,
            &mut values,
        );
        drop(driver);
        served = stage.serve();
        verify(&stage, &mut served, &mut model, &mut operator);
        println!(
            "kill {kill}: {completed} requests and {} changes acknowledged so far",
            operator.acknowledged
        );
    }
    assert!(completed > 10 * kills, "hardly anything happened: {completed}");
    served.child.kill().unwrap();
    served.child.wait().unwrap();
}

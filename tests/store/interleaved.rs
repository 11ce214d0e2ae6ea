//! Several writes in flight, of which some overlap, and snapshots and discards meanwhile.

use std::io;

use sealblk::store::layered::{ObjectId, Operation};

use crate::medium::{Limits, Recording};
use crate::rng::{Rng, seed, states};
use crate::script::Run;
use crate::sectors::Value;
use crate::worker::{Disk, Part, boot};

const SECTORS: u64 = 3 * 128 + 5;
/// Writes in flight at most.
const IN_FLIGHT: usize = 6;

/// A write that has not been answered.
struct InFlight {
    number: usize,
    value: Value,
    at: u64,
    end: u64,
    part: Option<Part>,
    is_put: bool,
}

impl InFlight {
    fn begin(run: &mut Run, rng: &mut Rng) -> Self {
        let at = rng.below(0..SECTORS);
        let end = at + rng.below(1..(SECTORS - at).min(160) + 1);
        let value = run.number();
        InFlight {
            number: run.history.write_begins(value, at..end, run.medium.position()),
            value,
            at,
            end,
            part: None,
            is_put: false,
        }
    }

    /// Goes one step further. Returns whether it has ended.
    fn advance(&mut self, disk: &Disk) -> io::Result<bool> {
        match self.part.take() {
            None => self.part = disk.try_begin(self.at, self.end - self.at, self.value)?,
            Some(part) if !self.is_put => {
                self.part = Some(disk.put(part)?);
                self.is_put = true;
            }
            Some(part) => {
                self.at += part.count;
                disk.finish(part)?;
                self.is_put = false;
            }
        }
        Ok(self.at == self.end)
    }
}

fn advance_one(run: &mut Run, in_flight: &mut Vec<InFlight>, begins: bool, rng: &mut Rng) {
    if begins && in_flight.len() < IN_FLIGHT && rng.once_in(3) {
        in_flight.push(InFlight::begin(run, rng));
    }
    if in_flight.is_empty() {
        return;
    }
    let index = rng.below(0..in_flight.len() as u64) as usize;
    let outcome = in_flight[index].advance(&run.disk);
    if let Err(error) = &outcome {
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    }
    if !matches!(outcome, Ok(false)) {
        let ended = in_flight.swap_remove(index);
        let position = run.medium.position();
        run.history.write_ended(ended.number, position, outcome.is_err());
    }
}

/// Discards whole clusters, of which some may be in use.
fn discard(run: &mut Run, rng: &mut Rng) {
    let start = rng.below(0..3) * 128;
    let number = run
        .history
        .write_begins(0, start..start + 128, run.medium.position());
    let done = run.disk.try_discard(start, 128).unwrap();
    let position = run.medium.position();
    run.history.write_ended(number, position, done != Some(128));
}

/// Takes a snapshot on another thread, while writes go on.
fn snapshot(run: &mut Run, in_flight: &mut Vec<InFlight>, rng: &mut Rng) {
    let (operation, id) = (run.id('o'), run.id('s'));
    let what = Operation::Snapshot(id);
    let number = run
        .history
        .operation_begins(operation, what, run.medium.position());
    // The store is shared with the other thread, and the rest of the run is not.
    let store = run.disk.store.clone();
    let taking = std::thread::spawn(move || store.operate(operation, what).unwrap());
    let mut steps = rng.below(0..40);
    while !taking.is_finished() {
        advance_one(run, in_flight, steps > 0, rng);
        steps = steps.saturating_sub(1);
        std::thread::yield_now();
    }
    taking.join().unwrap();
    run.history.operation_ended(number, run.medium.position());
    // From here on it must not change, whatever is still in flight.
    let copy = Recording::new(run.medium.image(), Limits::NONE);
    let copy = Disk::open(copy, Vec::new(), boot(0)).unwrap();
    copy.store
        .operate(ObjectId::NONE, Operation::Rollback(id))
        .unwrap();
    let content = copy.read_all().unwrap();
    let made = run.history.expected(number + 1).snapshots[&id];
    run.history
        .check_snapshot(id, made, &content, run.medium.position());
    run.history.set_content(id, content);
}

#[test]
fn writes_in_flight_over_snapshots() {
    let wanted = states(6_000, 20);
    let mut looked_at = 0;
    let mut number = 0;
    while looked_at < wanted {
        let mut rng = Rng::new(seed(), 3000 + number);
        let mut run = Run::new(SECTORS);
        run.medium.set_limits(Limits {
            bytes: rng.below(39..63) << 16,
            pages: usize::MAX,
        });
        let mut in_flight = Vec::new();
        for _ in 0..rng.below(40..120) {
            match rng.below(0..24) {
                0 => snapshot(&mut run, &mut in_flight, &mut rng),
                1 | 2 => run.flush(),
                5..8 => discard(&mut run, &mut rng),
                3 => {
                    run.disk.store.step().unwrap();
                }
                4 if run.visible().len() > 2 => _ = run.operate(Operation::Delete(run.visible()[1])),
                _ => advance_one(&mut run, &mut in_flight, true, &mut rng),
            }
        }
        looked_at += run.crash_sometimes(24, 4, &mut rng);
        number += 1;
    }
    eprintln!("{looked_at} crash states");
}

//! All workloads of up to three steps, on an empty store and on one with a past.

use crate::rng::{Rng, seed, states};
use crate::script::{Run, Step};

/// Four clusters and a part of a block.
pub(crate) const SECTORS: u64 = 4 * 128 + 5;

pub(crate) const ALPHABET: [Step; 16] = [
    Step::Write(8, 8),
    Step::Write(131, 10),
    Step::Write(120, 24),
    Step::Write(SECTORS - 9, 9),
    Step::Discard(0, 128),
    Step::Discard(124, 20),
    Step::WriteZeroes(4, 24),
    Step::Flush,
    Step::Snapshot,
    Step::Delete(0),
    Step::Rollback(0),
    Step::Reinitialise,
    Step::Grow(131),
    Step::Checkpoint,
    Step::Clone(0),
    Step::Background,
];

/// What the store with a past has behind it: snapshots, shared and split clusters, something deleted, and records that
/// are not in the pages.
pub(crate) const PAST: [Step; 13] = [
    Step::Write(0, 256),
    Step::Write(300, 30),
    Step::Snapshot,
    Step::Write(16, 8),
    Step::Checkpoint,
    Step::Discard(0, 8),
    Step::Snapshot,
    Step::Write(120, 24),
    Step::Write(384, 128),
    Step::Checkpoint,
    Step::Write(24, 8),
    Step::Discard(384, 128),
    Step::Write(480, 8),
];

/// Crashes during the last step of each workload: those before are the last of shorter ones. The tests' least numbers of
/// crash states are 100,000 together.
fn crash_all(past: &[Step], (share, shares): (usize, usize), cuts: usize, usual: usize) {
    let mut before = Run::new(SECTORS);
    before.steps(past);
    let (image, history) = before.end();
    let workloads: Vec<Vec<Step>> = (1..=3).flat_map(|len| workloads(&ALPHABET, len)).collect();
    let wanted = states(usual, 20);
    let mut looked_at = 0;
    let mut round = 0;
    while looked_at < wanted {
        let mut rng = Rng::new(seed(), round);
        for (number, steps) in workloads.iter().enumerate() {
            if number % shares != share {
                continue;
            }
            let _name = Named(steps);
            let mut run = Run::of(image.clone(), history.clone());
            let (last, others) = steps.split_last().unwrap();
            run.steps(others);
            let first = run.position();
            run.step(*last);
            looked_at += run.crash(first, cuts, &mut rng);
        }
        round += 1;
    }
    eprintln!("{looked_at} crash states");
    assert!(looked_at >= usual, "only {looked_at} crash states");
}

/// Says which workload it was, if a test ends in it.
pub(crate) struct Named<'a>(pub(crate) &'a [Step]);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("workload: {:?}", self.0);
        }
    }
}

/// All of so many steps.
pub(crate) fn workloads(alphabet: &[Step], len: usize) -> Vec<Vec<Step>> {
    match len {
        0 => vec![Vec::new()],
        len => workloads(alphabet, len - 1)
            .into_iter()
            .flat_map(|steps| {
                alphabet
                    .iter()
                    .map(move |step| [steps.clone(), vec![*step]].concat())
            })
            .collect(),
    }
}

#[test]
fn on_an_empty_store() {
    crash_all(&[], (0, 1), 5, 40_000);
}

#[test]
fn on_a_store_with_a_past() {
    crash_all(&PAST, (0, 2), 6, 30_000);
}

#[test]
fn on_a_store_with_a_past_the_others() {
    crash_all(&PAST, (1, 2), 6, 30_000);
}

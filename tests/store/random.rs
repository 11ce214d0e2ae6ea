//! Longer workloads, by chance, on media that are so small that clusters are used again and again, and full at times.

use crate::medium::Limits;
use crate::rng::{Rng, seed, states};
use crate::script::{Run, Step};

/// Five clusters and a part of a block.
pub(crate) const SECTORS: u64 = 5 * 128 + 3;

/// Length of a medium, in clusters, of which 17 are superblocks and journal.
pub(crate) const CLUSTERS: std::ops::Range<u64> = 37..55;

pub(crate) fn limits(clusters: u64) -> Limits {
    Limits {
        bytes: clusters << 16,
        pages: usize::MAX,
    }
}

pub(crate) fn any_step(rng: &mut Rng, sectors: u64) -> Step {
    let start = rng.below(0..sectors);
    let count = rng.below(1..(sectors - start).min(200) + 1);
    let index = rng.below(0..3) as usize;
    match rng.below(0..32) {
        0..10 => Step::Write(start, count),
        10..12 => Step::Write(start / 8 * 8, count.min(8).min(sectors - start / 8 * 8)),
        12..16 => Step::Discard(start, count),
        16..18 => Step::WriteZeroes(start, count),
        18..21 => Step::Flush,
        21..23 => Step::Snapshot,
        23..25 => Step::Delete(index),
        25 => Step::Rollback(index),
        26 if rng.once_in(3) => Step::Reinitialise,
        26 => Step::Clone(index),
        27 => Step::Checkpoint,
        28 if sectors < 2 * SECTORS => Step::Grow(rng.below(1..40)),
        _ => Step::Background,
    }
}

#[test]
fn workloads_on_small_media() {
    let wanted = states(8_000, 20);
    let mut looked_at = 0;
    let mut number = 0;
    while looked_at < wanted {
        let mut rng = Rng::new(seed(), 1000 + number);
        let mut run = Run::new(SECTORS);
        run.medium.set_limits(limits(rng.below(CLUSTERS)));
        for _ in 0..rng.below(20..60) {
            let step = any_step(&mut rng, run.sectors());
            run.step(step);
        }
        looked_at += run.crash_sometimes(24, 4, &mut rng);
        number += 1;
    }
    eprintln!("{looked_at} crash states");
}

/// A journal of 1024 records that is gone round.
#[test]
fn the_journal_wraps() {
    let wanted = states(2_000, 10);
    let mut looked_at = 0;
    let mut number = 0;
    while looked_at < wanted {
        let mut rng = Rng::new(seed(), 2000 + number);
        let mut run = Run::new(SECTORS);
        run.medium.set_limits(limits(rng.below(CLUSTERS)));
        for round in 0..700 {
            let at = rng.below(0..40) * 8;
            run.step(Step::Write(at, 8));
            run.step(Step::Discard(at / 16 * 16, 16));
            if round % 50 == 0 {
                let step = any_step(&mut rng, run.sectors());
                run.step(step);
                run.step(Step::Background);
            }
        }
        looked_at += run.crash_sometimes(100, 4, &mut rng);
        number += 1;
    }
    eprintln!("{looked_at} crash states");
}

//! Workloads on media that fail: any call of the last step, in any way, and in longer ones several. What holds after a
//! crash holds then, too. Besides: a read that fails takes nothing with it but what was to be read; neither does space
//! that cannot be had. After a write of metadata or a sync that fails, nothing more is asked of the medium.

use sealblk::store::layered::{ObjectId, Operation};

use crate::bounded::{ALPHABET, Named, PAST, SECTORS, workloads};
use crate::crash::{Crash, Moment};
use crate::examine::{examine, look};
use crate::faults::{Call, Fault, Lasting};
use crate::history::History;
use crate::medium::{Event, Image, Limits, PAGE, Recording};
use crate::random;
use crate::rng::{Rng, seed, states};
use crate::script::{Run, Step};
use crate::worker::{Disk, boot};

const BESIDES: [Step; 4] = [Step::Work, Step::Read, Step::Check, Step::Repair];

/// Workloads up to this length fail in every way, of longer ones each call in one, in each round another.
const IN_EVERY_WAY: usize = 1;

/// Workloads that are carried out in each round: space comes back, of discards and of deletions.
const GIVING_BACK: [&[Step]; 3] = [
    &[Step::Write(131, 200), Step::Discard(128, 256), Step::Work],
    &[Step::Snapshot, Step::Delete(0), Step::Work],
    &[Step::Reinitialise, Step::Delete(0), Step::Work],
];

/// What a store that is sound is asked for when its medium is.
const AFTERWARDS: [Step; 7] = [
    Step::Write(200, 70),
    Step::Flush,
    Step::Snapshot,
    Step::Discard(0, 40),
    Step::Write(250, 30),
    Step::Work,
    Step::Flush,
];

/// Ways in which a call can fail.
pub(crate) fn ways(call: Call) -> Vec<(i32, Lasting)> {
    let eio = [Lasting::Once, Lasting::Kind, Lasting::All].map(|lasting| (libc::EIO, lasting));
    let full = [Lasting::Once, Lasting::Kind].map(|lasting| (libc::ENOSPC, lasting));
    match call {
        Call::Read => [&eio[..], &[(libc::EIO, Lasting::There)]].concat(),
        Call::Write | Call::Sync | Call::Grow | Call::Reserve => [&eio[..], &full].concat(),
        Call::Size | Call::Punch => eio.to_vec(),
    }
}

pub(crate) fn fault(after: usize, (errno, lasting): (i32, Lasting), rng: &mut Rng) -> Fault {
    let left = if rng.once_in(2) { u64::MAX } else { rng.next() };
    Fault {
        after,
        errno,
        lasting,
        left,
    }
}

/// One failure, of any call, in the last step of each workload. Of the workloads of two and three steps one in so many is
/// carried out in each round: after as many rounds, all have been.
fn fail_all(past: &[Step], shares: [usize; 2]) {
    let mut before = Run::new(SECTORS);
    before.steps(past);
    let begin = before.end();
    let alphabet = [&ALPHABET[..], &BESIDES].concat();
    let [one, two, three] = [1, 2, 3].map(|len| workloads(&alphabet, len));
    let (seed, wanted) = (seed(), states(1, 25));
    let (mut looked_at, mut round) = (0, 0);
    while looked_at < wanted {
        let mut rng = Rng::new(seed, 6000 + round);
        let longer = share(&two, shares[0], seed + round).chain(share(&three, shares[1], seed + round));
        let longer = longer.map(Vec::as_slice).chain(GIVING_BACK);
        for steps in one.iter().map(Vec::as_slice).chain(longer) {
            let _name = Named(steps);
            looked_at += fail_last(&begin, steps, &mut rng);
        }
        round += 1;
    }
    eprintln!("{looked_at} faulted states");
}

fn share(all: &[Vec<Step>], shares: usize, round: u64) -> impl Iterator<Item = &Vec<Step>> {
    all.iter().skip(round as usize % shares).step_by(shares)
}

fn fail_last((image, history): &(Image, History), steps: &[Step], rng: &mut Rng) -> usize {
    let Some((last, others)) = steps.split_last() else {
        return 0;
    };
    let begin = || {
        let mut run = Run::of(image.clone(), history.clone());
        run.steps(others);
        run.medium.heal();
        run
    };
    let mut dry = begin();
    dry.step(*last);
    let calls = dry.medium.faults().calls.clone();
    let mut looked_at = 0;
    for (after, call) in calls.into_iter().enumerate() {
        let mut ways = ways(call);
        if steps.len() > IN_EVERY_WAY {
            ways = vec![ways[rng.below(0..ways.len() as u64) as usize]];
        }
        for way in ways {
            let fault = fault(after, way, rng);
            let _name = NamedFault(call, fault);
            let mut run = begin();
            run.medium.faults().begin(vec![fault]);
            run.step(*last);
            assert_ne!(run.medium.faults().hits.len(), 0);
            looked_at += judge(run, rng);
        }
    }
    looked_at
}

/// Says which failure it was, if a test ends in it.
pub(crate) struct NamedFault(pub(crate) Call, pub(crate) Fault);

impl Drop for NamedFault {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failure: {:?}, {:?}", self.0, self.1);
        }
    }
}

/// Looks at a store whose medium has failed, and at what a crash leaves of it. Returns the number of states.
fn judge(mut run: Run, rng: &mut Rng) -> usize {
    let hits = run.medium.hits();
    // Where data goes, which a worker does, does not concern the store.
    let fatal = hits.iter().any(|hit| match hit.call {
        Call::Write => !hit.data,
        Call::Sync => true,
        Call::Read | Call::Size | Call::Grow | Call::Reserve | Call::Punch => false,
    });
    assert_eq!(
        run.disk.store.has_failed(),
        fatal,
        "whether the store has failed: {hits:?}"
    );
    run.check_live();
    // What lasts may have hit that, too.
    let hits = run.medium.hits();
    run.medium.heal();
    if fatal {
        refuses(&run);
    } else {
        // Of the map, what could not be read stays so until the store is opened anew.
        if !hits.iter().any(|hit| hit.call == Call::Read && !hit.data) {
            run.medium.faults().hits.clear();
        }
        run.check_live();
        run.steps(&AFTERWARDS);
        run.check_live();
        assert!(!run.disk.store.has_failed());
    }
    look_after_crash(&run, rng)
}

fn look_after_crash(run: &Run, rng: &mut Rng) -> usize {
    let events = run.medium.events();
    let position = events.len();
    let moment = Moment::at(&run.start, &events, position);
    let (crash, image) = match rng.below(0..3) {
        0 => (Crash::Kill, moment.killed()),
        1 => (Crash::PowerCut, moment.subset(rng.next())),
        _ => (Crash::PowerCut, moment.torn(rng)),
    };
    examine(&run.history, image, crash, position, rng.once_in(4), rng)
}

/// Nothing is done by a store that has failed, whatever it is asked for.
fn refuses(run: &Run) {
    let (disk, store) = (&run.disk, &run.disk.store);
    let before = (run.position(), run.medium.faults().calls.len());
    assert!(disk.read(0, 8).is_err());
    assert!(disk.write(0, 8, 1).is_err());
    assert!(disk.discard(0, 128).is_err());
    assert!(disk.flush().is_err());
    assert!(store.sync().is_err());
    assert!(store.checkpoint_now().is_err());
    assert!(store.check_all(true).is_err());
    let snapshot = Operation::Snapshot(ObjectId([b'x'; 16]));
    assert!(store.operate(ObjectId::NONE, snapshot).is_err());
    let _ = store.step();
    let after = (run.position(), run.medium.faults().calls.len());
    assert_eq!(before, after, "a store that has failed uses its medium");
}

#[test]
fn on_an_empty_store() {
    fail_all(&[], [1, 16]);
}

#[test]
fn on_a_store_with_a_past() {
    fail_all(&PAST, [4, 128]);
}

/// One failure while a store is opened, after each kind of crash. Either it is opened, and holds what it should, or it is
/// not; whatever was written by then takes nothing from who opens it next.
#[test]
fn while_it_is_opened() {
    let alphabet = [&ALPHABET[..], &BESIDES].concat();
    let wanted = states(2_000, 5);
    let (mut looked_at, mut round, seed) = (0, 0, seed());
    while looked_at < wanted {
        let mut rng = Rng::new(seed, 8000 + round);
        for step in &alphabet {
            let steps = [&PAST[..], &[*step]].concat();
            let _name = Named(&steps);
            let mut run = Run::new(SECTORS);
            run.steps(&steps);
            let events = run.medium.events();
            let moment = Moment::at(&run.start, &events, events.len());
            looked_at += fail_opening(&run.history, moment.killed(), Crash::Kill, events.len(), &mut rng);
            let cut = moment.torn(&mut rng);
            looked_at += fail_opening(&run.history, cut, Crash::PowerCut, events.len(), &mut rng);
        }
        round += 1;
    }
    eprintln!("{looked_at} faulted states");
}

fn fail_opening(history: &History, image: Image, crash: Crash, position: usize, rng: &mut Rng) -> usize {
    let boot_now = boot(u8::from(crash == Crash::PowerCut));
    let medium = || Recording::new(image.clone(), Limits::NONE);
    let dry = medium();
    Disk::open(dry.clone(), Vec::new(), boot_now).unwrap();
    let calls = dry.faults().calls.clone();
    let mut looked_at = 0;
    for (after, call) in calls.into_iter().enumerate() {
        for way in ways(call) {
            let fault = fault(after, way, rng);
            let _name = NamedFault(call, fault);
            let medium = medium();
            medium.faults().begin(vec![fault]);
            let opened = Disk::open(medium.clone(), Vec::new(), boot_now);
            medium.heal();
            let events = medium.events();
            if let Ok(disk) = opened {
                assert!(!disk.store.has_failed());
                let fatal = |call| matches!(call, Call::Write | Call::Sync);
                let hits = medium.hits();
                assert!(!hits.iter().any(|hit| fatal(hit.call)), "{hits:?}");
                look(history, &disk, &medium, crash, position);
            }
            let moment = Moment::at(&image, &events, events.len());
            let (crash, image) = match rng.below(0..2) {
                0 => (crash, moment.killed()),
                _ => (Crash::PowerCut, moment.torn(rng)),
            };
            looked_at += examine(history, image, crash, position, false, rng);
        }
    }
    looked_at
}

/// One failure while a damaged space table is repaired: another repair can be made, or none has to be.
#[test]
fn while_it_is_repaired() {
    let mut rng = Rng::new(seed(), 9000);
    let mut run = Run::new(SECTORS);
    run.steps(&PAST);
    run.steps(&[Step::Checkpoint, Step::Write(9, 9)]);
    let position = run.position();
    let tables = run.medium.events().into_iter().filter_map(|event| match event {
        Event::Write { offset, bytes } if bytes.len() == PAGE && bytes[..4] == *b"SBpg" && bytes[8] == 3 => {
            Some(offset)
        }
        _ => None,
    });
    let damage = |image: &mut Image| image.write(tables.clone().last().unwrap() + 100, &[0xee; 8]);
    let mut damaged = run.medium.image();
    damage(&mut damaged);
    let open = |medium: &Recording| {
        assert!(Disk::open(medium.clone(), Vec::new(), boot(0)).is_err());
        Disk::maintain(medium.clone(), boot(0)).unwrap()
    };
    let begin = || Recording::new(damaged.clone(), Limits::NONE);
    let dry = begin();
    let disk = open(&dry);
    dry.heal();
    disk.store.check_all(true).unwrap();
    let calls = dry.faults().calls.clone();
    let mut looked_at = 0;
    for (after, call) in calls.into_iter().enumerate() {
        for way in ways(call) {
            let fault = fault(after, way, &mut rng);
            let _name = NamedFault(call, fault);
            let medium = begin();
            let disk = open(&medium);
            medium.faults().begin(vec![fault]);
            let _ = disk.store.check_all(true);
            medium.heal();
            drop(disk);
            let events = medium.events();
            let moment = Moment::at(&damaged, &events, events.len());
            let medium = Recording::new(moment.killed(), Limits::NONE);
            if Disk::open(medium.clone(), Vec::new(), boot(0)).is_err() {
                let findings = open(&medium).store.check_all(true).unwrap();
                assert_eq!(findings.repaired, findings.bad_pages, "{findings:?}");
            }
            looked_at += examine(
                &run.history,
                medium.image(),
                Crash::Kill,
                position,
                false,
                &mut rng,
            );
        }
    }
    eprintln!("{looked_at} faulted states");
    assert!(looked_at > 100);
}

/// Several failures in longer workloads, on media that are full at times.
#[test]
fn workloads_on_small_media() {
    let wanted = states(4_000, 10);
    let (mut looked_at, mut number, seed) = (0, 0, seed());
    while looked_at < wanted {
        let mut rng = Rng::new(seed, 7000 + number);
        let mut run = Run::new(random::SECTORS);
        run.medium.set_limits(random::limits(rng.below(random::CLUSTERS)));
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..rng.below(20..60) {
            if rng.once_in(6) {
                let calls = [Call::Read, Call::Read, Call::Grow, Call::Write, Call::Sync];
                let ways = ways(calls[rng.below(0..5) as usize]);
                let way = ways[rng.below(0..ways.len() as u64) as usize];
                faults.push(fault(rng.below(0..12) as usize, way, &mut rng));
                run.medium.faults().begin(faults.clone());
            }
            if rng.once_in(8) {
                run.medium.heal();
                faults.clear();
            }
            let step = random::any_step(&mut rng, run.sectors());
            run.step(step);
        }
        run.check_live();
        run.medium.heal();
        if run.disk.store.has_failed() {
            refuses(&run);
        }
        looked_at += run.crash_sometimes(12, 3, &mut rng);
        number += 1;
    }
    eprintln!("{looked_at} faulted states");
}

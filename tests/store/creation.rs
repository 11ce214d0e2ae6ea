//! Crashes while a store is made: there is all of it, or nothing that could be taken for one.

use sealblk::store::layered::{LayeredError, SuperblockError};

use crate::crash::Moment;
use crate::medium::{Event, Image, Limits, Recording};
use crate::rng::{Rng, seed};
use crate::script::{Run, Step};
use crate::worker::{Disk, boot, create};

const SECTORS: u64 = 3 * 128;

/// At each sync but the first `skipped`, and at the end.
fn crash(start: &Image, skipped: usize, made: &Recording, bases: &[Recording], content: &[u32]) {
    let mut rng = Rng::new(seed(), 4000);
    let events = made.events();
    let is_sync = |position: &usize| matches!(events.get(*position), None | Some(Event::Sync));
    for position in (0..=events.len()).filter(is_sync).skip(skipped) {
        let moment = Moment::at(start, &events, position);
        for image in moment.power_cuts(64, &mut rng) {
            let medium = Recording::new(image, Limits::NONE);
            let bases = bases.to_vec();
            match Disk::open(medium, bases, boot(1)) {
                Ok(disk) => assert_eq!(disk.read_all().unwrap(), content),
                Err(error) if position < events.len() => {
                    let nothing = [SuperblockError::Missing, SuperblockError::Damaged];
                    assert!(
                        matches!(&error, LayeredError::Superblock(error) if nothing.contains(error)),
                        "{error}"
                    );
                }
                Err(error) => panic!("a store that was made: {error}"),
            }
        }
    }
}

#[test]
fn of_an_empty_store() {
    let medium = Recording::new(Image::default(), Limits::NONE);
    create(&medium, SECTORS, 1, None).unwrap();
    crash(&Image::default(), 0, &medium, &[], &[0; SECTORS as usize]);
}

/// A device whose beginning was wiped has the second copy of a superblock still, of a store that is gone.
#[test]
fn of_a_store_where_another_one_was() {
    let mut former = Run::new(SECTORS);
    former.steps(&[Step::Write(3, 200), Step::Checkpoint, Step::Flush]);
    let mut start = former.medium.image();
    start.punch(0, 1 << 20);
    let medium = Recording::new(start.clone(), Limits::NONE);
    create(&medium, SECTORS, 2, None).unwrap();
    // Until the first one the former store has not been touched.
    crash(&start, 1, &medium, &[], &[0; SECTORS as usize]);
}

#[test]
fn of_a_clone() {
    let mut run = Run::new(SECTORS);
    run.steps(&[Step::Write(3, 200), Step::Snapshot, Step::Clone(0)]);
    let snapshot = run.visible()[0];
    let medium = Recording::new(Image::default(), Limits::NONE);
    create(&medium, SECTORS, 2, Some((&run.medium, snapshot))).unwrap();
    let content = run.history.content(snapshot).clone();
    // The base is cut off too.
    let (start, events) = (run.start.clone(), run.medium.events());
    let base = Moment::at(&start, &events, events.len()).subset(0);
    let bases = [Recording::new(base, Limits::NONE)];
    crash(&Image::default(), 0, &medium, &bases, &content);
}

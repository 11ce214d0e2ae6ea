//! Bytes that change on the medium: they are found, or change nothing. Wrong data is never read.

use sealblk::store::layered::Medium;

use crate::crash::Moment;
use crate::medium::{Event, Limits, PAGE, Recording};
use crate::rng::{Rng, seed};
use crate::script::{Run, Step};
use crate::worker::{Disk, boot};

const RECORD: usize = 64;

/// A store with a past, most of it in pages, some in the journal.
fn run() -> Run {
    let mut run = Run::new(5 * 128);
    run.steps(&[
        Step::Write(0, 300),
        Step::Snapshot,
        Step::Write(8, 20),
        Step::Checkpoint,
        Step::Discard(128, 128),
        Step::Write(400, 30),
        Step::Flush,
    ]);
    run
}

/// Where metadata was written: pages, and records.
fn metadata(run: &Run) -> Vec<(u64, usize)> {
    let mut places = Vec::new();
    for event in run.medium.events() {
        let Event::Write { offset, bytes } = event else {
            continue;
        };
        let is_journal = (1 << 16..2 << 16).contains(&offset);
        if is_journal || bytes.starts_with(b"SEALBLK\0") {
            places.push((offset, bytes.len()));
        } else if u64::from_le_bytes(bytes[32..40].try_into().unwrap()) == offset / PAGE as u64 {
            places.extend((0..bytes.len() / PAGE).map(|page| (offset + (page * PAGE) as u64, PAGE)));
        }
    }
    // A damaged mark looks as if the flush had not come so far: those before the last one are not missed.
    let last = places.iter().filter(|(_, len)| *len == RECORD).max().copied();
    places.retain(|place| Some(*place) != last);
    places.sort_unstable();
    places.dedup();
    places
}

#[test]
fn a_changed_byte_of_metadata_is_found_or_without_effect() {
    let run = run();
    let live = run.disk.read_all().unwrap();
    let mut rng = Rng::new(seed(), 5000);
    let (mut found, mut tried) = (0, 0);
    for (offset, len) in metadata(&run) {
        for _ in 0..if len == PAGE { 24 } else { len } {
            let medium = Recording::new(run.medium.image(), Limits::NONE);
            let at = offset + rng.below(0..len as u64);
            let mut byte = [0];
            medium.read(at, &mut byte).unwrap();
            medium.write(at, &[byte[0] ^ 1 << rng.below(0..8)]).unwrap();
            tried += 1;
            match Disk::open(medium, Vec::new(), boot(1)) {
                Ok(disk) => match disk.read_all() {
                    Ok(now) => assert!(now == live, "after a change at {at}"),
                    Err(_) => found += 1,
                },
                Err(_) => found += 1,
            }
        }
    }
    assert!(found > tried / 10, "{found} of {tried} were found");
}

/// A power cut cannot tear records, since none lies across two sectors. But a medium may return anything for a sector
/// that was being written.
#[test]
fn garbage_behind_the_last_mark_is_no_record() {
    let mut run = run();
    let live = run.disk.read_all().unwrap();
    run.steps(&[Step::Write(500, 8)]);
    let events = run.medium.events();
    let Some(Event::Write { offset, bytes }) = events.last() else {
        panic!("a record is the last that is written");
    };
    assert_eq!(bytes.len(), RECORD);
    let moment = Moment::at(&run.start, &events, events.len());
    for byte in 0..RECORD {
        let mut image = moment.killed();
        let mut record = bytes.to_vec();
        record[byte] ^= 0x10;
        image.write(*offset, &record);
        let medium = Recording::new(image, Limits::NONE);
        let disk = Disk::open(medium, Vec::new(), boot(0)).unwrap();
        assert!(disk.read_all().unwrap() == live, "after a change of byte {byte}");
    }
}

/// A write that the medium has lost, although it said that it was durable, leaves an older page of the same kind.
#[test]
fn an_older_page_in_the_place_of_a_newer_one_is_found() {
    let mut run = Run::new(5 * 128);
    for round in 0..60 {
        run.steps(&[Step::Write(round % 9 * 70, 9), Step::Checkpoint]);
    }
    run.step(Step::Flush);
    let live = run.disk.read_all().unwrap();
    let mut found = 0;
    for event in run.medium.events() {
        let Event::Write { offset, bytes } = event else {
            continue;
        };
        let is_page = bytes.len() == PAGE
            && offset >= 2 << 16
            && u64::from_le_bytes(bytes[32..40].try_into().unwrap()) == offset / PAGE as u64;
        if !is_page {
            continue;
        }
        let medium = Recording::new(run.medium.image(), Limits::NONE);
        medium.write(offset, &bytes).unwrap();
        match Disk::open(medium, Vec::new(), boot(1)).map(|disk| disk.read_all()) {
            Ok(Ok(now)) => assert!(now == live, "after an older page at {offset}"),
            _ => found += 1,
        }
    }
    assert!(found > 0);
}

//! A store of the first version of the format becomes one of the present when it is opened to be written. Wherever that is
//! cut short, all of it is there, and a program of the first version either refuses it or finds what it left.

use crate::crash::Moment;
use crate::history::History;
use crate::medium::{Event, Image, Limits, PAGE, Recording};
use crate::rng::{Rng, seed};
use crate::script::{Run, Step};
use crate::worker::{Disk, boot};

/// Four clusters and a part of a block.
const SECTORS: u64 = 4 * 128 + 5;
/// Clusters of the journal: the fewest that the first version has.
const JOURNAL: u32 = 16;
/// Records of a cluster.
const CLUSTER_RECORDS: u64 = 1024;
const CLUSTER: u64 = 64 << 10;
const RECORD: usize = 64;
/// Pages of the superblock's copies, in the first version and now.
const OLD_COPIES: [u64; 2] = [0, 1];
const COPIES: [u64; 2] = [0, 256];

/// Snapshots, shared and split clusters, something deleted, and records that are not in the pages.
const PAST: [Step; 13] = [
    Step::Write(0, 256),
    Step::Snapshot,
    Step::Write(16, 8),
    Step::Checkpoint,
    Step::Snapshot,
    Step::Write(120, 24),
    Step::Delete(0),
    Step::Write(384, 120),
    Step::Checkpoint,
    Step::Write(24, 8),
    Step::Discard(384, 64),
    Step::Flush,
    Step::Write(480, 8),
];

fn page(image: &Image, page: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    assert!(image.read(page * PAGE as u64, &mut bytes));
    bytes
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn add(bytes: &mut [u8], at: usize, shift: u64) {
    let sum = number(bytes, at) + shift;
    bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
}

fn version(superblock: &[u8]) -> u32 {
    u32::from_le_bytes(superblock[8..12].try_into().unwrap())
}

fn checksum(superblock: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&superblock[..12]), &[0; 4]);
    crc32c::crc32c_append(crc, &superblock[16..])
}

/// The store as a program of the first version would have left it, with `shift` records more behind it.
fn of_the_first_version(image: &Image, shift: u64) -> Image {
    let mut old = image.clone();
    let uuid = &page(image, 0)[16..32];
    for (to, from) in OLD_COPIES.into_iter().zip(COPIES) {
        let mut copy = page(image, from);
        copy[8..12].copy_from_slice(&1u32.to_le_bytes());
        // Where the journal begins, and how far it is committed.
        add(&mut copy, 80, shift);
        add(&mut copy, 88, shift);
        let crc = checksum(&copy);
        copy[12..16].copy_from_slice(&crc.to_le_bytes());
        old.write(to * PAGE as u64, &copy);
    }
    old.punch(CLUSTER, u64::from(JOURNAL) * CLUSTER);
    // It has not gone round yet, nor come to the gap.
    for at in (0..u64::from(JOURNAL - 1) * CLUSTER).step_by(RECORD) {
        let mut record = [0; RECORD];
        assert!(image.read(CLUSTER + at, &mut record));
        if record == [0; RECORD] {
            continue;
        }
        add(&mut record, 16, shift);
        if record[4] == 4 {
            // A mark.
            add(&mut record, 24, shift);
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(uuid), &record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
        let place = number(&record, 16) % (u64::from(JOURNAL) * CLUSTER_RECORDS);
        old.write(CLUSTER + place * RECORD as u64, &record);
    }
    old
}

/// Stores with [`PAST`]: with both copies of the superblock, or with either alone; and with records everywhere, across
/// the border of what is the gap now, or at the end of the ring.
fn stores() -> Vec<(Image, History)> {
    let mut past = Run::with_journal(SECTORS, JOURNAL);
    past.steps(&PAST);
    let (image, history) = past.end();
    let start = number(&page(&image, 0), 80);
    let gap = u64::from(JOURNAL - 1) * CLUSTER_RECORDS;
    let shifts = [0, gap - start - 2, gap + CLUSTER_RECORDS - start - 2];
    let mut stores = Vec::new();
    for shift in shifts {
        let both = of_the_first_version(&image, shift);
        stores.push((both.clone(), history.clone()));
        for lost in OLD_COPIES {
            let mut one = both.clone();
            one.write(lost * PAGE as u64, &[0xff; PAGE]);
            stores.push((one, history.clone()));
        }
    }
    stores
}

#[test]
fn is_cut_short_anywhere() {
    let mut rng = Rng::new(seed(), 6000);
    let mut states = 0;
    for (image, history) in stores() {
        let mut run = Run::of(image, history);
        run.steps(&[Step::Write(8, 8), Step::Flush, Step::Snapshot]);
        states += run.crash(0, 48, &mut rng);
        look_as_the_first_version(&run, &mut rng);
    }
    eprintln!("{states} crash states");
    assert!(states > 1000);
}

/// What a program of the first version finds where an upgrade was cut short.
fn look_as_the_first_version(run: &Run, rng: &mut Rng) {
    let events = run.medium.events();
    let (mut refused, mut used) = (0, 0);
    for position in 0..=events.len() {
        let moment = Moment::at(&run.start, &events, position);
        let mut images = vec![moment.killed()];
        if matches!(events.get(position), None | Some(Event::Sync)) {
            images.extend(moment.power_cuts(24, rng));
        }
        for image in images {
            let copies = OLD_COPIES.map(|copy| page(&image, copy));
            if copies
                .iter()
                .any(|copy| copy.starts_with(b"SEALBLK\0") && version(copy) > 1)
            {
                refused += 1;
                continue;
            }
            let is_sound = |copy: &&Vec<u8>| {
                let crc = u32::from_le_bytes(copy[12..16].try_into().unwrap());
                copy.starts_with(b"SEALBLK\0") && version(copy) == 1 && crc == checksum(copy)
            };
            assert!(copies.iter().any(|copy| is_sound(&copy)), "neither copy is left");
            for journal in 16..16 + u64::from(JOURNAL) * CLUSTER / PAGE as u64 {
                assert!(page(&image, journal) == page(&run.start, journal));
            }
            used += 1;
        }
    }
    assert!(refused > 0 && used > 0);
}

#[test]
fn with_a_copy_of_the_superblock_that_cannot_be_read() {
    for (number, (image, history)) in stores().into_iter().enumerate() {
        let live = Run::of(image.clone(), history).disk.read_all().unwrap();
        // The first of three has both.
        let needed: &[u64] = if number % 3 == 0 {
            &[]
        } else {
            &[1 - (number as u64 % 3 - 1)]
        };
        for unreadable in [0, 1] {
            let medium = Recording::new(image.clone(), Limits::NONE);
            medium.set_unreadable([unreadable]);
            let opened = Disk::open(medium.clone(), Vec::new(), boot(0));
            if needed.contains(&unreadable) {
                let error = opened.map(|_| ()).unwrap_err().to_string();
                assert!(error.contains("cannot be read"), "{error}");
                continue;
            }
            assert_eq!(opened.unwrap().read_all().unwrap(), live);
            let again = Disk::open(medium, Vec::new(), boot(0)).unwrap();
            assert_eq!(again.read_all().unwrap(), live);
            assert_eq!(
                version(&page(&again.store.medium(Default::default()).image(), 1)),
                2
            );
        }
    }
}

use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use sealblk_proto::keys::LineageKey;

use super::*;
use crate::crypto::DiskCipher;
use crate::store::layered::{Expected, NewStore, ObjectId, Operation, Uuid};
use crate::store::{FilePair, LayeredFile, RawStore, Store};
use crate::units::ByteLen;

fn capacity(bytes: u64) -> Capacity {
    Capacity::new(ByteLen(bytes)).unwrap()
}

fn cipher(byte: Option<u8>) -> Option<DiskCipher> {
    byte.map(|byte| {
        let key = LineageKey::new_with(|key| key.fill(byte)).unwrap();
        DiskCipher::derive(&key, Capacity::LARGEST).unwrap()
    })
}

/// A file on a disk, if temporary files are there.
struct Place {
    file: tempfile::NamedTempFile,
    layered: bool,
    key: Option<u8>,
    bytes: u64,
}

impl Place {
    fn new(layered: bool, key: Option<u8>, bytes: u64) -> Self {
        let place = Place {
            file: tempfile::NamedTempFile::new().unwrap(),
            layered,
            key,
            bytes,
        };
        if layered {
            let new = NewStore {
                uuid: Uuid([7; 16]),
                capacity: capacity(bytes),
                disk: ObjectId::parse("disk-aaaaaaaaaaaaaaaa", "disk").unwrap(),
                lineage: ObjectId::NONE,
            };
            LayeredFile::create(place.pair(), Vec::new(), &new, None).unwrap();
        } else {
            place.file.as_file().set_len(bytes).unwrap();
        }
        place
    }

    fn pair(&self) -> FilePair {
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .open(self.file.path())
                .unwrap()
        };
        FilePair {
            data: open(),
            metadata: open(),
        }
    }

    fn open(&self) -> Disk {
        self.open_on(Vec::new())
    }

    fn open_on(&self, bases: Vec<FilePair>) -> Disk {
        let FilePair { data, metadata } = self.pair();
        let store = if self.layered {
            Store::Layered(
                LayeredFile::open(
                    FilePair { data, metadata },
                    bases,
                    &Expected::default(),
                    true,
                    &|| {},
                )
                .unwrap(),
            )
        } else {
            Store::Raw(RawStore::open(data, capacity(self.bytes)).unwrap())
        };
        Disk::new(capacity(self.bytes), false, "", cipher(self.key), store)
    }

    /// As a guest writes.
    fn write(&self, at: u64, bytes: &[u8]) {
        let (disk, mut hand) = (self.open(), Hand::new().unwrap());
        for (number, part) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let sectors = (part.len() / SECTOR_BYTES) as u64;
            let first = at / SECTOR_BYTES as u64 + number as u64 * CHUNK_SECTORS;
            hand.set_first(part);
            hand.write_first(&disk, disk.capacity().range(first, sectors).unwrap(), false)
                .unwrap();
        }
        disk.sync().unwrap();
    }

    /// As a guest reads.
    fn read(&self) -> Vec<u8> {
        let (input, capacity) = Input::of_disk(self.open());
        let mut hand = Hand::new().unwrap();
        let all = capacity.range(0, capacity.sectors()).unwrap();
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < self.bytes {
            let chunk = all.slice((bytes.len() / SECTOR_BYTES) as u64, CHUNK_SECTORS);
            hand.read_first(&input, chunk).unwrap();
            bytes.extend_from_slice(hand.get_first(chunk));
        }
        bytes
    }
}

fn copy(source: &Place, destination: &Place, clean: bool) -> Copy {
    Copy::new(
        Input::of_disk(source.open()),
        destination.open(),
        CopyPhase::Copy,
        0,
        clean,
    )
    .unwrap()
}

fn done(copy: &Copy) {
    copy.run();
    let progress = copy.progress();
    assert_eq!((progress.failure, progress.phase), (None, CopyPhase::Done));
    assert_eq!(progress.done, progress.total);
}

/// As [`done`]; the chunks that were read, when copying and when comparing.
fn visited(copy: &Copy) -> u64 {
    done(copy);
    copy.visited.load(Ordering::Relaxed)
}

/// A file that is no disk's.
fn foreign(file: &tempfile::NamedTempFile, bytes: u64) -> Disk {
    let store = RawStore::foreign(File::open(file.path()).unwrap()).unwrap();
    Disk::new(capacity(bytes), true, "", None, Store::Raw(store))
}

/// What a disk has at some places, by sector, a block each.
fn blocks(disk: Disk, sectors: &[u64]) -> Vec<Vec<u8>> {
    let (input, capacity) = Input::of_disk(disk);
    let mut hand = Hand::new().unwrap();
    let block = |sector: &u64| {
        let block = capacity.range(*sector, 8).unwrap();
        hand.read_first(&input, block).unwrap();
        hand.get_first(block).to_vec()
    };
    sectors.iter().map(block).collect()
}

const MIB: usize = 1 << 20;

#[test]
fn data_is_copied_in_all_directions_and_sizes_need_not_be_whole_blocks() {
    let bytes = (MIB + 512) as u64;
    let mut data = vec![0; bytes as usize];
    data[3000 * 16..3000 * 16 + 70_000].fill(3);
    data[bytes as usize - 512..].fill(4);
    for (from_layered, from_key) in [(false, None), (false, Some(1)), (true, None), (true, Some(1))] {
        let source = Place::new(from_layered, from_key, bytes);
        source.write(0, &data);
        for (to_layered, to_key) in [(false, None), (false, Some(2)), (true, None), (true, Some(2))] {
            let destination = Place::new(to_layered, to_key, bytes + 4096);
            // Sectors of an enciphered raw disk that were never written are noise.
            let clean = to_layered || to_key.is_none();
            done(&copy(&source, &destination, clean));
            let mut expected = data.clone();
            expected.resize(bytes as usize + 4096, 0);
            assert!(
                destination.read() == expected,
                "{from_layered} {from_key:?} {to_layered} {to_key:?}"
            );
        }
    }
}

#[test]
fn what_is_not_written_takes_no_space() {
    let bytes = 64 * MIB as u64;
    let source = Place::new(true, Some(1), bytes);
    source.write(40 * MIB as u64, &vec![9; 8192]);
    source.write(50 * MIB as u64, &vec![0; 128 << 10]);
    let destinations = [
        Place::new(true, Some(2), bytes),
        Place::new(true, None, bytes),
        Place::new(false, None, bytes),
    ];
    for destination in &destinations {
        done(&copy(&source, destination, true));
        let store = destination.open();
        let taken = match store.store() {
            Store::Layered(layered) => layered.layered().report().unwrap().allocated,
            other => other.allocated().unwrap().0,
        };
        assert!(taken < 4 * MIB as u64, "{taken}");
    }
}

#[test]
fn a_destination_that_is_not_clean_is_overwritten_to_its_end() {
    let source = Place::new(true, Some(1), MIB as u64);
    source.write(4096, &[5; 4096]);
    let destination = Place::new(false, None, 2 * MIB as u64);
    destination.write(0, &vec![0xee; 2 * MIB]);
    done(&copy(&source, &destination, false));
    let mut expected = vec![0; 2 * MIB];
    expected[4096..8192].fill(5);
    assert!(destination.read() == expected);
}

#[test]
fn a_smaller_destination_is_refused() {
    let (source, destination) = (Place::new(false, None, 8192), Place::new(false, None, 4096));
    let refused = Copy::new(
        Input::of_disk(source.open()),
        destination.open(),
        CopyPhase::Copy,
        0,
        true,
    );
    assert_eq!(refused.err().unwrap().code, code::INVALID_SIZE);
}

#[test]
fn a_difference_is_found_and_said_where() {
    let source = Place::new(false, Some(1), MIB as u64);
    source.write(0, &vec![1; MIB]);
    let destination = Place::new(false, None, MIB as u64);
    done(&copy(&source, &destination, true));
    destination.file.as_file().write_all_at(&[2], 700_001).unwrap();
    let again = Copy::new(
        Input::of_disk(source.open()),
        destination.open(),
        CopyPhase::Verify,
        0,
        true,
    )
    .unwrap();
    again.run();
    let failure = again.progress().failure.unwrap();
    assert_eq!(failure.code, code::COPY_DIFFERS);
    assert!(failure.message.contains("700001"), "{failure}");
    assert_ne!(again.progress().phase, CopyPhase::Done);
}

#[test]
fn a_file_may_end_within_a_sector_and_have_holes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(MIB as u64).unwrap();
    file.as_file().write_all_at(&[6; 100], MIB as u64).unwrap();
    let source = foreign(&file, MIB as u64 + 512);
    let destination = Place::new(true, Some(2), MIB as u64 + 512);
    let copy = Copy::new(
        Input::of_disk(source),
        destination.open(),
        CopyPhase::Copy,
        0,
        true,
    )
    .unwrap();
    done(&copy);
    drop(copy);
    let mut expected = vec![0; MIB + 512];
    expected[MIB..MIB + 100].fill(6);
    assert!(destination.read() == expected);
}

#[test]
fn an_overwritten_disk_keeps_its_snapshots() {
    let source = Place::new(false, None, MIB as u64);
    source.write(0, &[1; 4096]);
    let destination = Place::new(true, Some(2), MIB as u64);
    destination.write(0, &[8; 8192]);
    let id = |text: &str, prefix| ObjectId::parse(text, prefix).unwrap();
    let snapshot = id("snap-aaaaaaaaaaaaaaaa", "snap");
    {
        let disk = destination.open();
        let layers = disk.store().layered().unwrap();
        layers
            .operate(id("op-aaaaaaaaaaaaaaaa", "op"), Operation::Snapshot(snapshot))
            .unwrap();
        layers
            .operate(id("op-aaaaaaaaaaaaaaab", "op"), Operation::Reinitialise)
            .unwrap();
    }
    done(&copy(&source, &destination, true));
    assert_eq!(destination.read()[4095..4097], [1, 0]);
    {
        let disk = destination.open();
        let layers = disk.store().layered().unwrap();
        layers
            .operate(id("op-aaaaaaaaaaaaaaac", "op"), Operation::Rollback(snapshot))
            .unwrap();
    }
    assert_eq!(destination.read()[4095..4097], [8, 8]);
}

const TIB: u64 = 1 << 40;

/// If each chunk of a hole were looked at, this would take hours.
#[test]
fn holes_are_passed_over_whatever_is_copied_to_what() {
    // In the first leaf of a map, in the 70th thousandth and at the end of the disk.
    let sectors = [8, TIB / 512 - 40_000, 2 * TIB / 512 - 8];
    let data: Vec<_> = (1..=3).map(|byte| vec![byte; 4096]).collect();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(2 * TIB).unwrap();
    for (sector, block) in sectors.iter().zip(&data) {
        image.as_file().write_all_at(block, sector * 512).unwrap();
    }
    let plain = Place::new(false, None, 2 * TIB);
    let sealed = Place::new(true, Some(1), 2 * TIB);
    let again = Place::new(true, Some(2), 2 * TIB);
    let back = Place::new(false, None, 2 * TIB);
    let onto = |source: Disk, destination: &Place| {
        let input = Input::of_disk(source);
        let copy = Copy::new(input, destination.open(), CopyPhase::Copy, 0, true).unwrap();
        visited(&copy)
    };
    assert_eq!(onto(foreign(&image, 2 * TIB), &plain), 6);
    assert_eq!(onto(plain.open(), &sealed), 6);
    assert_eq!(onto(sealed.open(), &again), 6);
    assert_eq!(onto(again.open(), &back), 6);
    assert_eq!(blocks(back.open(), &sectors), data);
    assert!(back.open().store().allocated().unwrap().0 < MIB as u64);
    // What is not clean has old data where there are holes now, and holes in most places.
    let old = Place::new(false, None, 2 * TIB);
    old.write(TIB, &[9; 4096]);
    assert_eq!(visited(&copy(&again, &old, false)), 4 + 4);
    assert_eq!(blocks(old.open(), &sectors), data);
    assert_eq!(blocks(old.open(), &[TIB / 512]), [[0; 4096]]);
}

#[test]
fn the_largest_disk_is_copied_though_most_of_it_is_not_there() {
    let bytes = Capacity::LARGEST.bytes().0;
    let (source, destination) = (Place::new(true, Some(1), bytes), Place::new(true, Some(2), bytes));
    source.write(bytes - 512, &[7; 512]);
    assert_eq!(visited(&copy(&source, &destination, true)), 2);
    assert_eq!(
        blocks(destination.open(), &[bytes / 512 - 8])[0][7 * 512..],
        [7; 512]
    );
}

/// Its unwritten sectors are no zeros, neither as they are read nor as they should be.
#[test]
fn an_enciphered_raw_disk_has_no_holes() {
    let source = Place::new(false, None, MIB as u64);
    let destination = Place::new(false, Some(1), 2 * MIB as u64);
    assert_eq!(visited(&copy(&source, &destination, false)), 8 + 8);
    assert!(destination.read() == vec![0; 2 * MIB]);
    let noise = Place::new(false, Some(1), MIB as u64);
    let copied = Place::new(true, Some(2), MIB as u64);
    assert_eq!(visited(&copy(&noise, &copied, true)), 4 + 4);
    assert!(copied.read() == noise.read() && noise.read() != vec![0; MIB]);
}

#[test]
fn data_where_the_source_has_a_hole_is_a_difference() {
    let source = Place::new(false, None, 64 * MIB as u64);
    source.write(4096, &[5; 4096]);
    for (layered, key) in [(false, None), (true, Some(2))] {
        let destination = Place::new(layered, key, 64 * MIB as u64);
        done(&copy(&source, &destination, true));
        destination.write(33 * MIB as u64 + 512, &[1; 512]);
        let (input, place) = (Input::of_disk(source.open()), destination.open());
        let again = Copy::new(input, place, CopyPhase::Verify, 0, true).unwrap();
        again.run();
        let failure = again.progress().failure.unwrap();
        assert_eq!(failure.code, code::COPY_DIFFERS);
        assert!(
            failure.message.contains(&(33 * MIB + 512).to_string()),
            "{failure}"
        );
    }
}

/// Something is written to a file that is imported, after that place has been passed over.
#[test]
fn what_comes_into_a_hole_meanwhile_is_a_difference() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(64 * MIB as u64).unwrap();
    let destination = Place::new(true, Some(2), 64 * MIB as u64);
    let of_image = |phase| {
        let input = Input::of_disk(foreign(&image, 64 * MIB as u64));
        Copy::new(input, destination.open(), phase, 0, true).unwrap()
    };
    assert_eq!(visited(&of_image(CopyPhase::Copy)), 0);
    image.as_file().write_all_at(&[1], 40_000_000).unwrap();
    let again = of_image(CopyPhase::Verify);
    again.run();
    assert_eq!(again.progress().failure.unwrap().code, code::COPY_DIFFERS);
}

/// A clone has what is in its own map, and in those of its bases.
#[test]
fn a_clone_has_the_data_of_its_base() {
    let bytes = 64 * MIB as u64;
    let base = Place::new(true, Some(1), bytes);
    base.write(40 * MIB as u64, &[4; 4096]);
    let id = |text: &str, prefix| ObjectId::parse(text, prefix).unwrap();
    let snapshot = id("snap-aaaaaaaaaaaaaaaa", "snap");
    let disk = id("disk-aaaaaaaaaaaaaaab", "disk");
    {
        let disk_of = base.open();
        let layers = disk_of.store().layered().unwrap();
        let operate = |number: &str, what| layers.operate(id(number, "op"), what).unwrap();
        operate("op-aaaaaaaaaaaaaaaa", Operation::Snapshot(snapshot));
        operate("op-aaaaaaaaaaaaaaab", Operation::Pin { id: snapshot, disk });
    }
    let clone = Place {
        file: tempfile::NamedTempFile::new().unwrap(),
        layered: true,
        key: Some(1),
        bytes,
    };
    let new = NewStore {
        uuid: Uuid([8; 16]),
        capacity: capacity(bytes),
        disk,
        lineage: ObjectId::NONE,
    };
    drop(LayeredFile::create(clone.pair(), vec![base.pair()], &new, Some(snapshot)).unwrap());
    let destination = Place::new(true, Some(2), bytes);
    let input = Input::of_disk(clone.open_on(vec![base.pair()]));
    let copy = Copy::new(input, destination.open(), CopyPhase::Copy, 0, true).unwrap();
    assert_eq!(visited(&copy), 2);
    drop(copy);
    assert!(destination.read() == base.read());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// What is called zeros is zeros, and goes on to the next data, on all kinds of disks.
    #[test]
    fn zeros_end_where_data_begins(
        writes in proptest::collection::vec((0u64..8000, 1usize..200), 0..8),
        looks in proptest::collection::vec((0u64..8100, 1u64..8192), 1..20),
        layered: bool,
    ) {
        // Sectors, so that data begins with a block; in all some leaves.
        let unit = 16;
        let bytes = 8192 * 512 * unit;
        let place = Place::new(layered, None, bytes);
        for (at, sectors) in writes {
            place.write(at * 512 * unit, &vec![1; sectors * 512]);
        }
        let data = place.read();
        let (disk, hand) = (place.open(), Hand::new().unwrap());
        for (at, count) in looks {
            let all = disk.capacity().range(0, disk.capacity().sectors()).unwrap();
            let range = all.slice(at * unit, count * unit);
            let zeros = zeros_of(&disk, range, hand.wake()).unwrap();
            let sectors = data.chunks(512).skip(range.start().0 as usize).take(range.count() as usize);
            let expected = sectors.take_while(|sector| sector.iter().all(|byte| *byte == 0)).count() as u64;
            prop_assert_eq!(zeros, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// A later process goes on behind what has been copied, and what is copied once more is the same.
    #[test]
    fn a_copy_goes_on_from_its_position(
        writes in proptest::collection::vec((0u64..2000, 1usize..40, 1u8..), 1..12),
        position in 1u64..4,
    ) {
        let (bytes, from) = (MIB as u64, position * CHUNK_BYTES as u64);
        let source = Place::new(true, Some(1), bytes);
        for (sector, sectors, byte) in writes {
            source.write(sector.min(2048 - sectors as u64) * 512, &vec![byte; sectors * 512]);
        }
        let destination = Place::new(true, Some(2), bytes);
        let before = source.read()[..from as usize].iter().any(|byte| *byte != 0);
        let late = Copy::new(Input::of_disk(source.open()), destination.open(), CopyPhase::Copy, from, true).unwrap();
        late.run();
        prop_assert_eq!(late.progress().failure.is_some_and(|found| found.code == code::COPY_DIFFERS), before);
        drop(late);
        for _ in 0..2 {
            done(&copy(&source, &destination, true));
            prop_assert!(source.read() == destination.read());
        }
    }
}

#[test]
fn a_copy_that_is_stopped_has_a_position_from_which_it_goes_on() {
    let source = Place::new(true, Some(1), MIB as u64);
    source.write(0, &vec![1; MIB]);
    let destination = Place::new(true, Some(2), MIB as u64);
    let stopped = copy(&source, &destination, true);
    stopped.stop();
    stopped.run();
    let progress = stopped.progress();
    assert_eq!(
        (progress.phase, progress.position, progress.failure),
        (CopyPhase::Copy, 0, None)
    );
    assert_eq!(progress.total, MIB as u64);
}

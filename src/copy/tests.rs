use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use sealblk_proto::keys::LineageKey;

use super::*;
use crate::crypto::DiskCipher;
use crate::store::layered::{NewStore, ObjectId, Operation, Uuid};
use crate::store::{FilePair, RawStore, Store, ThinStore};
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
            ThinStore::create(place.pair(), Vec::new(), &new, None).unwrap();
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
        let FilePair { data, metadata } = self.pair();
        let store = if self.layered {
            Store::Thin(ThinStore::open(FilePair { data, metadata }, Vec::new(), true).unwrap())
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
            let chunk = all.part((bytes.len() / SECTOR_BYTES) as u64, CHUNK_SECTORS);
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
            Store::Thin(thin) => thin.layers().report().unwrap().allocated,
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
    let store = RawStore::foreign(File::open(file.path()).unwrap()).unwrap();
    let source = Disk::new(capacity(MIB as u64 + 512), true, "", None, Store::Raw(store));
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
        let layers = disk.store().layers().unwrap();
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
        let layers = disk.store().layers().unwrap();
        layers
            .operate(id("op-aaaaaaaaaaaaaaac", "op"), Operation::Rollback(snapshot))
            .unwrap();
    }
    assert_eq!(destination.read()[4095..4097], [8, 8]);
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

//! Real stores in real files, read and written as the queue workers do it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealblk::store::layered::{
    FileMedium, LayeredError, LayeredStore, NewStore, ObjectId, OpenLayered, Operation, Uuid,
};
use sealblk::store::{Planned, ReadPlan, WritePlan};
use sealblk::units::{ByteLen, Capacity, SECTOR_BYTES, SectorRange};
use vmm_sys_util::eventfd::EventFd;

pub(crate) type Store = LayeredStore<FileMedium>;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
/// Sectors of a block.
const SECTORS: u64 = (BLOCK / SECTOR_BYTES) as u64;
/// Blocks of a cluster.
pub(crate) const CLUSTER: u64 = 16;
/// The host's boot, unless a test says otherwise.
pub(crate) const BOOT: [u8; 16] = [7; 16];
/// Size of the disks.
pub(crate) const SIZE: u64 = 64 << 20;

/// A store's file.
pub(crate) struct Rig {
    directory: tempfile::TempDir,
}

impl Rig {
    /// A file that is not there yet.
    pub(crate) fn new() -> Self {
        Rig {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// An empty store.
    pub(crate) fn with_store(uuid: u8) -> Self {
        let rig = Rig::new();
        File::create(rig.path()).unwrap();
        let new = NewStore {
            uuid: Uuid([uuid; 16]),
            capacity: Capacity::new(ByteLen(SIZE)).unwrap(),
            disk: id("disk"),
            lineage: id("lineage"),
        };
        new.create(&rig.medium(), None).unwrap();
        rig
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub(crate) fn medium(&self) -> FileMedium {
        medium(&self.path())
    }

    /// For a guest.
    pub(crate) fn open(&self) -> Result<Store, LayeredError> {
        self.open_after(BOOT)
    }

    /// For a guest, under another boot if `boot` is not [`BOOT`].
    pub(crate) fn open_after(&self, boot: [u8; 16]) -> Result<Store, LayeredError> {
        OpenLayered { boot, load: true }.open(self.medium(), Vec::new())
    }

    /// For commands.
    pub(crate) fn maintain(&self) -> Result<Store, LayeredError> {
        let options = OpenLayered {
            boot: BOOT,
            load: false,
        };
        options.open_for_maintenance(self.medium(), Vec::new())
    }
}

fn medium(path: &Path) -> FileMedium {
    let open = || File::options().read(true).write(true).open(path).unwrap();
    FileMedium::new(open(), open()).unwrap()
}

/// An id of 16 characters.
pub(crate) fn id(name: &str) -> ObjectId {
    ObjectId::parse(&format!("x-{name:0>16}"), "x").unwrap()
}

fn range(block: u64) -> SectorRange {
    Capacity::LARGEST.range(block * SECTORS, SECTORS).unwrap()
}

/// What to do when a store has to do something before it can answer.
type Wait = fn(&Store);

fn work(store: &Store) {
    // A store that has failed says so itself.
    let _ = store.work();
}

/// Where threads do the work.
fn wait(_: &Store) {
    std::thread::sleep(std::time::Duration::from_micros(100));
}

/// Carries an operation out that no other test has the id of.
pub(crate) fn operate(store: &Store, name: &str, operation: Operation) {
    store.operate(id(name), operation).unwrap();
    store.work().unwrap();
}

/// Writes a block full of one byte.
pub(crate) fn write(store: &Store, block: u64, byte: u8) -> io::Result<()> {
    write_waiting(store, block, byte, work)
}

/// As [`write`], where threads do the work.
pub(crate) fn write_in_use(store: &Store, block: u64, byte: u8) {
    write_waiting(store, block, byte, wait).unwrap();
}

fn write_waiting(store: &Store, block: u64, byte: u8, wait: Wait) -> io::Result<()> {
    let wake = Arc::new(EventFd::new(0).unwrap());
    let file = store.medium(sealblk::store::Slot::default()).data_file();
    for _ in 0..10_000 {
        match store.plan_write(range(block), &wake)? {
            Planned::Later => wait(store),
            Planned::Now(WritePlan::InPlace { offset, count, pass }) => {
                assert_eq!(count, SECTORS);
                let written = file.write_all_at(&[byte; BLOCK], offset);
                store.end(pass);
                return written;
            }
            Planned::Now(WritePlan::Change(change)) => {
                let mut span = vec![0; change.count as usize * SECTOR_BYTES];
                for source in change.sources.into_iter().flatten() {
                    for block in (0..source.blocks)
                        .filter(|block| source.mask >> (source.first_block + block) & 1 != 0)
                    {
                        let from = source.offset + u64::from(block) * BLOCK as u64;
                        let at = (source.first_block + block) as usize * BLOCK;
                        file.read_exact_at(&mut span[at..at + BLOCK], from)?;
                    }
                }
                assert_eq!(change.data, SECTORS);
                let at = (block * SECTORS - change.start) as usize * SECTOR_BYTES;
                span[at..at + BLOCK].fill(byte);
                file.write_all_at(&span, change.offset)?;
                return store.commit(&mut vec![change]);
            }
        }
    }
    panic!("block {block} cannot be written");
}

/// Reads a block, which must be full of one byte.
pub(crate) fn read(store: &Store, block: u64) -> io::Result<u8> {
    let wake = Arc::new(EventFd::new(0).unwrap());
    for _ in 0..10_000 {
        match store.plan_read(range(block), &wake)? {
            Planned::Later => work(store),
            Planned::Now(ReadPlan::Zeros { count }) => {
                assert_eq!(count, SECTORS);
                return Ok(0);
            }
            Planned::Now(ReadPlan::Transfer {
                slot, offset, pass, ..
            }) => {
                let mut bytes = [0; BLOCK];
                let read = store.medium(slot).data_file().read_exact_at(&mut bytes, offset);
                store.end(pass);
                read?;
                assert!(
                    bytes.iter().all(|byte| *byte == bytes[0]),
                    "block {block} is in one piece"
                );
                return Ok(bytes[0]);
            }
        }
    }
    panic!("block {block} cannot be read");
}

/// Discards a block, where threads do the work.
pub(crate) fn discard_in_use(store: &Store, block: u64) {
    let wake = Arc::new(EventFd::new(0).unwrap());
    while matches!(store.discard(range(block), &wake).unwrap(), Planned::Later) {
        wait(store);
    }
}

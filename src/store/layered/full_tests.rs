//! Devices without room, of which the space table has more pages than the arena keeps ready.
//!
//! One cluster in each page of the table is free, so that each cluster that is taken changes another one.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use super::format::record::Record;
use super::format::{CLUSTER_BYTES, CLUSTER_SECTORS, FANOUT, PAGE_BYTES, SPACE_ENTRIES};
use super::medium::{Medium, no_space};
use super::state::SPACE_OF_CHANGE;
use super::{LayeredStore, NewStore, ObjectId, OpenLayered, Operation, Threads, Uuid};
use crate::store::plan::{Planned, WritePlan};
use crate::units::{ByteLen, Capacity};

/// Pages of the space table. The arena is kept ready for some 1,740 pages.
const TABLES: u32 = 2_000;
/// Of the device: 123 GiB.
const CLUSTERS: u32 = TABLES * SPACE_ENTRIES as u32;
/// The disk's last cluster.
const LAST: u64 = 2 * CLUSTERS as u64 - 1;
/// Questions after which a store that always says "later" counts as stuck.
const PATIENCE: usize = 16;

/// A block device of which only metadata is kept. Clones are the same one.
#[derive(Clone, Debug, Default)]
struct Device(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    pages: HashMap<u64, Vec<u8>>,
    /// How often it was asked to be larger than it is.
    refused: u64,
}

impl Medium for Device {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let contents = self.0.lock().unwrap();
        let mut at = 0;
        while at < bytes.len() {
            let (page, within) = place(offset + at as u64);
            let end = bytes.len().min(at + PAGE_BYTES - within);
            match contents.pages.get(&page) {
                Some(page) => bytes[at..end].copy_from_slice(&page[within..within + end - at]),
                None => bytes[at..end].fill(0),
            }
            at = end;
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut contents = self.0.lock().unwrap();
        let mut at = 0;
        while at < bytes.len() {
            let (page, within) = place(offset + at as u64);
            let end = bytes.len().min(at + PAGE_BYTES - within);
            let page = contents.pages.entry(page).or_insert_with(|| vec![0; PAGE_BYTES]);
            page[within..within + end - at].copy_from_slice(&bytes[at..end]);
            at = end;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(u64::from(CLUSTERS) * CLUSTER_BYTES)
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        if size <= self.size()? {
            return Ok(());
        }
        self.0.lock().unwrap().refused += 1;
        Err(no_space())
    }

    fn reserve(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Page, and place within it.
fn place(offset: u64) -> (u64, usize) {
    (offset / PAGE_BYTES as u64, offset as usize % PAGE_BYTES)
}

struct Rig {
    device: Device,
    store: Arc<LayeredStore<Device>>,
    wake: Arc<EventFd>,
}

fn open(device: &Device) -> LayeredStore<Device> {
    let how = OpenLayered {
        boot: [7; 16],
        load: false,
    };
    how.open(device.clone(), Vec::new()).unwrap()
}

impl Rig {
    /// A device all of whose clusters are in use, but one in each page of the space table.
    fn new() -> Self {
        let device = Device::default();
        let new = NewStore {
            uuid: Uuid([1; 16]),
            capacity: Capacity::new(ByteLen(2 * u64::from(CLUSTERS) * CLUSTER_BYTES)).unwrap(),
            disk: ObjectId([b'd'; 16]),
            lineage: ObjectId([b'l'; 16]),
        };
        new.create(&device, None).unwrap();
        let store = Arc::new(open(&device));
        {
            let mut state = store.state();
            let used =
                (state.space.clusters()..CLUSTERS).filter(|cluster| cluster % SPACE_ENTRIES as u32 != 500);
            used.for_each(|cluster| state.space.set_used(cluster, 1));
        }
        let rig = Rig {
            device,
            store,
            wake: Arc::new(EventFd::new(0).unwrap()),
        };
        rig.store.checkpoint_now().unwrap();
        rig.store.work().unwrap();
        rig
    }

    /// Writes to a cluster of the disk, as far as the store sees it.
    fn write(&self, cluster: u64) -> io::Result<()> {
        let range = Capacity::LARGEST
            .range(cluster * CLUSTER_SECTORS, CLUSTER_SECTORS)
            .unwrap();
        self.ask(|| {
            Ok(match self.store.plan_write(range, &self.wake)? {
                Planned::Now(WritePlan::Change(change)) => {
                    Planned::Now(self.store.commit(&mut vec![change])?)
                }
                Planned::Now(WritePlan::InPlace { pass, .. }) => {
                    self.store.end(pass);
                    Planned::Now(())
                }
                Planned::Later => Planned::Later,
            })
        })
    }

    /// Asks until there is an answer, and has the background work in between.
    fn ask<T>(&self, mut question: impl FnMut() -> io::Result<Planned<T>>) -> io::Result<T> {
        for _ in 0..PATIENCE {
            if let Planned::Now(answer) = question()? {
                return Ok(answer);
            }
            self.store.step().unwrap();
        }
        panic!("the store says \"later\" for ever");
    }

    /// Takes pages of the arena away, so that so many are left besides those that a change of one leaf needs.
    fn crowd(&self, spare: usize) {
        let mut state = self.store.state();
        while state.space.free_pages() > state.pages_needed(1, SPACE_OF_CHANGE) + spare {
            state.space.take_page().unwrap();
        }
    }

    /// Writes to new clusters until there is no room. Returns how many were written.
    fn fill(&self) -> u64 {
        // So many leaves that nobody asks for pages for another one.
        let leaves = u64::from(TABLES) / FANOUT as u64 + 2;
        let clusters =
            (0..FANOUT as u64).flat_map(|at| (0..leaves).map(move |leaf| leaf * FANOUT as u64 + at));
        for (number, cluster) in (0..).zip(clusters) {
            if let Err(error) = self.write(cluster) {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                return number;
            }
        }
        panic!("the device is not full");
    }
}

#[test]
fn a_checkpoint_can_always_be_made() {
    let rig = Rig::new();
    let written = rig.fill();
    assert!(written > 1_000, "{written}");
    rig.store.checkpoint_now().unwrap();
    // Where no page is left, and a checkpoint gives none back, who asks is told at once.
    let taken: Vec<u64> = {
        let mut state = rig.store.state();
        let taken = std::iter::from_fn(|| state.space.take_page()).collect();
        let tables = state.space.dirty().clone();
        tables.into_iter().for_each(|table| state.space.is_clean(table));
        taken
    };
    let refused = rig.write(LAST).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC), "{refused}");
    for page in taken {
        let mut state = rig.store.state();
        state.space.free_page(page);
        state.space.release_page(page);
    }
    // Space comes back by a discard, is given out again, and a new opening finds it.
    let range = Capacity::LARGEST.range(0, 4 * CLUSTER_SECTORS).unwrap();
    assert!(matches!(rig.store.discard(range, &rig.wake), Ok(Planned::Now(_))));
    rig.store.work().unwrap();
    rig.store.work().unwrap();
    rig.write(1).unwrap();
    rig.store.sync().unwrap();
    let again = open(&rig.device);
    let found = again.live.load_full();
    again.load_leaf(&found, 0).unwrap();
    assert!(found.map.leaf(0) == rig.store.live.load().map.leaf(0));
}

/// A full device on which a checkpoint of little would leave `spare` pages free.
fn crowded(spare: usize) -> Rig {
    let rig = Rig::new();
    rig.fill();
    rig.store.checkpoint_now().unwrap();
    rig.crowd(spare);
    rig
}

/// Each of the clusters is described by another page of the table.
#[test]
fn a_discard_frees_no_more_than_the_next_checkpoint_can_write() {
    let rig = crowded(64);
    let range = Capacity::LARGEST.range(0, 100 * CLUSTER_SECTORS).unwrap();
    let done = rig.ask(|| rig.store.discard(range, &rig.wake)).unwrap();
    assert!((CLUSTER_SECTORS..range.count()).contains(&done), "{done}");
    rig.store.checkpoint_now().unwrap();
}

#[test]
fn a_deletion_frees_no_more_than_the_next_checkpoint_can_write() {
    let rig = Rig::new();
    rig.fill();
    let id = ObjectId([b's'; 16]);
    for operation in [
        Operation::Snapshot(id),
        Operation::Reinitialise,
        Operation::Delete(id),
    ] {
        rig.store.operate(ObjectId::NONE, operation).unwrap();
        rig.store.checkpoint_now().unwrap();
    }
    rig.crowd(64);
    rig.store.step().unwrap();
    assert!(!rig.store.state().full);
    rig.store.work().unwrap();
    rig.store.work().unwrap();
    assert_eq!(rig.store.report().unwrap().snapshots, []);
}

/// Earlier versions could bring a store so far that there is no room for a checkpoint.
#[test]
fn what_there_is_no_room_for_is_refused_and_tried_again_after_a_while() {
    let rig = Rig::new();
    rig.fill();
    rig.store.checkpoint_now().unwrap();
    {
        let mut state = rig.store.state();
        state.dirty.insert(0);
        // Something that asks for checkpoints all the time.
        while !state.journal.is_half_full() {
            let marks = vec![Record::Commit { upto: 0 }; 1_000];
            rig.store.append(&mut state, &marks).unwrap();
        }
        let needed = state.pages_due();
        while state.space.free_pages() >= needed {
            state.space.take_page().unwrap();
        }
    }
    let threads = Threads::start(&rig.store).unwrap();
    let range = Capacity::LARGEST.range(LAST * CLUSTER_SECTORS, 8).unwrap();
    let mut asked = 0;
    let refused = loop {
        match rig.store.plan_write(range, &rig.wake) {
            Ok(Planned::Later) if asked < PATIENCE => _ = rig.wake.read(),
            answer => break answer,
        }
        asked += 1;
    };
    let refused = refused.map(|_| ()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC), "{refused}");
    let before = rig.device.0.lock().unwrap().refused;
    std::thread::sleep(Duration::from_millis(500));
    // Some 15 times for each attempt: with less, and less.
    let attempts = (rig.device.0.lock().unwrap().refused - before) / 15;
    assert!(attempts < 20, "{attempts} in half a second");
    assert!(!rig.store.has_failed());
    drop(threads);
}

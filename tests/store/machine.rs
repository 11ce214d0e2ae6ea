//! Any sequence of requests and operations on a disk and its clones, against arrays in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sealblk::store::layered::{LayeredError, ObjectId, Operation, OperationError};

use crate::history::Content;
use crate::medium::{Image, Limits, Recording};
use crate::sectors::Value;
use crate::worker::{Disk, boot, create};

const CLUSTER: u64 = 128;
/// More than one page of the map.
const SECTORS: u64 = 255 * CLUSTER + 11;
/// Where something is written: the beginning, the border of two pages of the map, and the end.
const PLACES: [u64; 4] = [0, 250 * CLUSTER, 252 * CLUSTER - 20, 253 * CLUSTER];
const DISKS: usize = 4;

#[derive(Clone, Debug)]
enum Action {
    Write(usize, u64, u64),
    Discard(usize, u64, u64),
    WriteZeroes(usize, u64, u64),
    Flush,
    Snapshot,
    Delete(usize),
    Rollback(usize),
    Reinitialise,
    Grow(u64),
    Checkpoint,
    Background,
    Reopen,
    Clone(usize),
    /// The clusters that a medium has beyond those that it takes.
    Room(u64),
}

fn any_action() -> impl Strategy<Value = (usize, Action)> {
    let place = 0..PLACES.len();
    let extent = (place, 0..3 * CLUSTER, 1..2 * CLUSTER);
    let action = prop_oneof![
        10 => extent.clone().prop_map(|(place, at, count)| Action::Write(place, at, count)),
        3 => extent.clone().prop_map(|(place, at, count)| Action::Discard(place, at, count)),
        2 => extent.prop_map(|(place, at, count)| Action::WriteZeroes(place, at, count)),
        2 => Just(Action::Flush),
        3 => Just(Action::Snapshot),
        2 => (0..6usize).prop_map(Action::Delete),
        2 => (0..6usize).prop_map(Action::Rollback),
        1 => Just(Action::Reinitialise),
        1 => (1..3 * CLUSTER).prop_map(Action::Grow),
        1 => Just(Action::Checkpoint),
        4 => Just(Action::Background),
        2 => Just(Action::Reopen),
        2 => (0..6usize).prop_map(Action::Clone),
        1 => (0..30u64).prop_map(Action::Room),
    ];
    (0..DISKS, action)
}

/// A disk, and what it should hold.
struct Modelled {
    medium: Recording,
    bases: Vec<Recording>,
    disk: Option<Disk>,
    live: Content,
    snapshots: BTreeMap<ObjectId, Content>,
}

#[derive(Default)]
struct Machine {
    disks: Vec<Modelled>,
    numbers: Value,
}

impl Modelled {
    fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    /// Changes a range of the disk, and in the model if that succeeds; if the medium is full, part of it may be done.
    fn change(
        &mut self,
        at: u64,
        count: u64,
        value: Value,
        change: impl FnOnce(&Disk) -> std::io::Result<()>,
    ) {
        let sectors = at as usize..(at + count) as usize;
        match change(self.disk()) {
            Ok(()) => self.live[sectors].fill(value),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                let found = self.disk().read(at, count).unwrap();
                for (sector, found) in self.live[sectors].iter_mut().zip(found) {
                    assert!(found == value || found == *sector);
                    *sector = found;
                }
            }
        }
    }

    /// Makes a change that costs space for metadata. Returns whether there was some; if not, nothing has changed.
    fn operate(&self, operation: ObjectId, what: Operation) -> bool {
        let store = &self.disk().store;
        match store.operate(operation, what) {
            Ok(()) => true,
            Err(OperationError::Store(LayeredError::NoSpace)) => {
                assert!(!store.has_failed() && !store.was_made(operation));
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self) {
        let found = self.disk().read_all().unwrap();
        let differ = found
            .iter()
            .zip(&self.live)
            .position(|(found, live)| found != live);
        assert_eq!(differ, None, "the sector that differs");
        assert_eq!(found.len(), self.live.len());
    }

    fn reopen(&mut self) {
        self.disk = None;
        let disk = Disk::open(self.medium.clone(), self.bases.clone(), boot(0)).unwrap();
        self.disk = Some(disk);
        self.check();
    }
}

impl Machine {
    fn new() -> Self {
        let medium = Recording::new(Image::default(), Limits::NONE);
        create(&medium, SECTORS, 1, None).unwrap();
        let mut first = Modelled {
            disk: None,
            medium,
            bases: Vec::new(),
            live: vec![0; SECTORS as usize],
            snapshots: BTreeMap::new(),
        };
        first.reopen();
        Machine {
            disks: vec![first],
            numbers: 0,
        }
    }

    fn number(&mut self) -> Value {
        self.numbers += 1;
        self.numbers
    }

    fn id(&mut self) -> ObjectId {
        let text = format!("{:016}", self.number());
        ObjectId(text.as_bytes().try_into().unwrap())
    }

    fn act(&mut self, which: usize, action: &Action) {
        let (number, id, operation) = (self.number(), self.id(), self.id());
        let which = which % self.disks.len();
        if let Action::Clone(index) = action {
            return self.clone_snapshot(which, *index, id, number as u8);
        }
        let modelled = &mut self.disks[which];
        let nth = |index: &usize| modelled.snapshots.keys().nth(*index).copied();
        let len = modelled.live.len() as u64;
        let extent = |place: usize, at: u64, count: u64| {
            let start = (PLACES[place] + at).min(len - 1);
            (start, count.min(len - start))
        };
        match *action {
            Action::Write(place, at, count) => {
                let (at, count) = extent(place, at, count);
                modelled.change(at, count, number, |disk| disk.write(at, count, number));
            }
            Action::Discard(place, at, count) => {
                let (at, count) = extent(place, at, count);
                let (start, end) = (at.next_multiple_of(8), (at + count) / 8 * 8);
                if start < end {
                    modelled.change(start, end - start, 0, |disk| disk.discard(at, count));
                }
            }
            Action::WriteZeroes(place, at, count) => {
                let (at, count) = extent(place, at, count);
                modelled.change(at, count, 0, |disk| disk.write_zeroes(at, count));
            }
            Action::Flush => modelled.disk().flush().unwrap(),
            Action::Snapshot => {
                if modelled.operate(operation, Operation::Snapshot(id)) {
                    modelled.snapshots.insert(id, modelled.live.clone());
                }
            }
            Action::Delete(index) => {
                if let Some(id) = nth(&index) {
                    modelled
                        .disk()
                        .store
                        .operate(operation, Operation::Delete(id))
                        .unwrap();
                    modelled.snapshots.remove(&id);
                }
            }
            Action::Rollback(index) => {
                if let Some(id) = nth(&index)
                    && modelled.operate(operation, Operation::Rollback(id))
                {
                    modelled.live = modelled.snapshots[&id].clone();
                    modelled.live.resize(len as usize, 0);
                    modelled.check();
                }
            }
            Action::Reinitialise => {
                if modelled.operate(operation, Operation::Reinitialise) {
                    modelled.live.fill(0);
                }
            }
            Action::Grow(sectors) => {
                let what = Operation::Resize(len + sectors);
                modelled.disk().store.operate(operation, what).unwrap();
                modelled.live.resize((len + sectors) as usize, 0);
            }
            Action::Checkpoint => modelled.disk().store.checkpoint_now().unwrap(),
            Action::Background => modelled.disk().store.work().unwrap(),
            Action::Reopen => modelled.reopen(),
            Action::Room(clusters) => {
                let bytes = (modelled.disk().store.allocated() / (64 << 10) + clusters) << 16;
                let pages = usize::MAX;
                modelled.medium.set_limits(Limits { bytes, pages });
            }
            Action::Clone(_) => {}
        }
    }

    fn clone_snapshot(&mut self, which: usize, index: usize, disk: ObjectId, uuid: u8) {
        let parent = &self.disks[which];
        let Some((id, content)) = parent.snapshots.iter().nth(index) else {
            return;
        };
        if self.disks.len() == DISKS {
            return;
        }
        if !parent.operate(ObjectId::NONE, Operation::Pin { id: *id, disk }) {
            return;
        }
        let medium = Recording::new(Image::default(), Limits::NONE);
        let sectors = content.len() as u64;
        create(&medium, sectors, uuid, Some((&parent.medium, *id))).unwrap();
        let mut made = Modelled {
            medium,
            bases: [vec![parent.medium.clone()], parent.bases.clone()].concat(),
            disk: None,
            live: content.clone(),
            snapshots: BTreeMap::new(),
        };
        made.reopen();
        self.disks.push(made);
    }

    /// All that there is, at the end.
    fn check(&mut self) {
        for modelled in &mut self.disks {
            modelled.medium.set_limits(Limits::NONE);
            modelled.check();
            modelled.disk().store.work().unwrap();
            modelled.reopen();
            for (id, content) in std::mem::take(&mut modelled.snapshots) {
                let store = &modelled.disk().store;
                store.operate(ObjectId::NONE, Operation::Rollback(id)).unwrap();
                modelled.live.fill(0);
                modelled.live[..content.len()].copy_from_slice(&content);
                modelled.check();
                let store = &modelled.disk().store;
                store.operate(ObjectId::NONE, Operation::Delete(id)).unwrap();
            }
        }
        // Snapshots that clones need are there nonetheless.
        self.disks.iter_mut().for_each(Modelled::reopen);
        for modelled in &self.disks {
            modelled.disk().store.work().unwrap();
            modelled.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn disks_hold_what_arrays_hold(actions in proptest::collection::vec(any_action(), 1..80)) {
        let mut machine = Machine::new();
        for (which, action) in &actions {
            machine.act(*which, action);
        }
        machine.check();
    }
}

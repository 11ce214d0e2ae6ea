//! Opening a store: its pages, then the records that are not in them, and then a checkpoint, so that it begins anew.
//!
//! Nothing that recovery writes counts before its superblock does, so that a crash during recovery changes nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::checkpoint::Maintenance;
use super::entry::Entry;
use super::epoch::Epochs;
use super::error::LayeredError;
use super::expected::Expected;
use super::format::page::{PageDamage, blank};
use super::format::record::Record;
use super::format::superblock::{MARK_PAGE, Superblock, mark};
use super::format::tables::Pin;
use super::format::{FANOUT, FIRST_VERSION, PAGE_BYTES, VERSION};
use super::journal::{Journal, Replay};
use super::layout::{fixed_clusters, leaves_of};
use super::lists::{read_bases, read_pins, read_snapshots};
use super::live::{BaseFile, Live, leaf_of, read_inherited, read_leaf};
use super::medium::Medium;
use super::ring::Ring;
use super::space::Space;
use super::state::State;
use super::store::{LayeredStore, Suspended, Trees};
use super::superblocks::{Superblocks, read_superblock, read_superblocks};
use super::table::Births;
use super::tree::{MAP, SPACE, Tree, read_page};
use crate::limits::{MAX_QUEUES, MAX_SESSIONS};
use crate::rate_limit::RateLimit;
use crate::store::poison::Poison;
use crate::units::Capacity;

/// Leaves of the map that are read and checked before a store is used; others are when they are needed.
const LEAVES_AT_ONCE: usize = 16_384;

/// One for each queue of a session, so that these do not disturb each other, and room for all sessions' requests.
const EPOCH_SHARDS: usize = MAX_QUEUES as usize;
const _: () = assert!(EPOCH_SHARDS >= MAX_SESSIONS);

/// How to open a store.
#[derive(Clone, Copy, Debug)]
pub struct OpenLayered {
    /// The host's boot (`/proc/sys/kernel/random/boot_id`): under the same one, all that was written is still there.
    pub boot: [u8; 16],
    /// Load and check the map now, for a guest to be served.
    pub load: bool,
}

impl OpenLayered {
    /// Opens a store that nobody else has open, with its bases in the order of their slots.
    ///
    /// # Errors
    /// [`LayeredError`]; nothing has changed then.
    pub fn open<M: Medium>(&self, medium: M, bases: Vec<M>) -> Result<LayeredStore<M>, LayeredError> {
        self.open_with(medium, bases, &Expected::default(), false, &|| {})
    }

    /// Opens a store that must be what is expected: to be [served](OpenLayered::load), or else as
    /// [`OpenLayered::open_for_maintenance`]. A large one takes its time: `tell` is called whenever that gets on.
    ///
    /// # Errors
    /// As [`OpenLayered::open`].
    pub fn open_expected<M: Medium>(
        &self,
        medium: M,
        bases: Vec<M>,
        expected: &Expected,
        tell: &dyn Fn(),
    ) -> Result<LayeredStore<M>, LayeredError> {
        self.open_with(medium, bases, expected, !self.load, tell)
    }

    /// Opens a store for commands on it, and not for a guest. If its space table is damaged, it can be examined and
    /// repaired; everything else is refused until then, and nothing is written.
    ///
    /// # Errors
    /// [`LayeredError`]; nothing has changed then.
    pub fn open_for_maintenance<M: Medium>(
        &self,
        medium: M,
        bases: Vec<M>,
    ) -> Result<LayeredStore<M>, LayeredError> {
        self.open_with(medium, bases, &Expected::default(), true, &|| {})
    }

    fn open_with<M: Medium>(
        &self,
        medium: M,
        bases: Vec<M>,
        expected: &Expected,
        lenient: bool,
        tell: &dyn Fn(),
    ) -> Result<LayeredStore<M>, LayeredError> {
        let Superblocks {
            newest: superblock,
            reports,
            is_marked,
        } = read_superblocks(&medium)?;
        expected.check(&superblock)?;
        let bases = open_bases(&medium, &superblock, bases)?;
        let births = Arc::new(Births::new());
        let mut space = Space::new(births.clone(), superblock.clusters, fixed_clusters(&superblock));
        let mut damage = None;
        let damaged = |found| {
            damage.get_or_insert(found);
            if lenient { Ok(()) } else { Err(found) }
        };
        let space_tree = load_space(&medium, &superblock, &mut space, damaged, tell)?;
        let map = Tree::load(&medium, MAP, superblock.uuid, superblock.map)?;
        let live = Live::new(&map, superblock.inherits, &bases);
        let journal = Journal::new(
            superblock.uuid,
            superblock.incarnation,
            Ring::new(superblock.version, superblock.journal_clusters),
            superblock.journal_start,
        );
        let same_boot = superblock.boot == self.boot && self.boot != [0; 16];
        let replay = journal.replay(&medium, superblock.committed, same_boot)?;
        let mut state = State::new(superblock.clone(), journal, space);
        state.snapshots = read_snapshots(&medium, &superblock)?;
        state.pins = read_pins(&medium, &superblock)?;
        state.reports.extend(reports);
        state.is_marked = is_marked;
        // Pages that the replay needs must not be put where a record yet to come has data.
        for record in &replay.records {
            if let Record::Map {
                entry, fresh: true, ..
            } = record
            {
                state.space.promise(entry.front.cluster);
            }
        }
        let store = LayeredStore {
            uuid: superblock.uuid,
            bases,
            live: ArcSwap::from_pointee(live),
            births,
            floor: AtomicU32::new(state.floor(u64::MAX)),
            epochs: Epochs::new(EPOCH_SHARDS),
            examination: Mutex::default(),
            maintenance: Mutex::default(),
            trees: Mutex::new(Trees {
                map,
                space: space_tree,
            }),
            state: Mutex::new(state),
            work: Condvar::new(),
            poison: Poison::default(),
            syncing: Mutex::default(),
            // Nothing may be written then.
            is_suspended: AtomicBool::new(damage.is_some()),
            suspended: Mutex::new(damage.map(|damage| Suspended {
                damage,
                replay: replay.clone(),
                boot: self.boot,
            })),
            no_room: RateLimit::default(),
            medium,
        };
        if damage.is_none() {
            store.recover(&store.maintain(), &replay, *self, tell)?;
        }
        Ok(store)
    }
}

/// Loads the space table, except what `damaged` puts up with.
fn load_space(
    medium: &impl Medium,
    superblock: &Superblock,
    space: &mut Space,
    mut damaged: impl FnMut(PageDamage) -> Result<(), PageDamage>,
    tell: &dyn Fn(),
) -> Result<Tree, PageDamage> {
    let (uuid, root) = (superblock.uuid, superblock.space);
    let tree = Tree::load_as_far(medium, SPACE, uuid, root, |_, damage| damaged(damage))?;
    for (leaf, reference) in tree.leaves() {
        tell();
        match read_page(medium, uuid, tree.place((0, leaf)), reference) {
            Ok(page) => space.load(leaf, &page),
            Err(damage) => damaged(damage)?,
        }
    }
    Ok(tree)
}

impl<M: Medium> LayeredStore<M> {
    /// What a store that is open for examination only suffers from.
    pub fn suspended(&self) -> Option<PageDamage> {
        let suspended = self.suspended.lock().unwrap_or_else(PoisonError::into_inner);
        suspended.as_ref().map(|suspended| suspended.damage)
    }

    /// Goes on with opening the store, whose space table is right now.
    pub(super) fn resume(&self, held: &Maintenance<'_>) -> Result<(), LayeredError> {
        let suspended = {
            let mut suspended = self.suspended.lock().unwrap_or_else(PoisonError::into_inner);
            suspended.take().ok_or(LayeredError::Failed)?
        };
        let how = OpenLayered {
            boot: suspended.boot,
            load: false,
        };
        self.recover(held, &suspended.replay, how, &|| {})?;
        self.is_suspended.store(false, Ordering::Release);
        Ok(())
    }

    /// Brings the state that the pages have to what the records say, and makes it the beginning of a new incarnation.
    fn recover(
        &self,
        held: &Maintenance<'_>,
        replay: &Replay,
        how: OpenLayered,
        tell: &dyn Fn(),
    ) -> Result<(), LayeredError> {
        let start = self.state().superblock.journal_start;
        for (sequence, record) in (start..).zip(&replay.records) {
            tell();
            self.apply(held, sequence, record)?;
        }
        if how.load {
            self.load_map(tell)?;
        }
        self.renew_journal(&replay.unreadable);
        self.begin(held, start + replay.records.len() as u64, how.boot)
    }

    /// Does again what a record says.
    fn apply(&self, held: &Maintenance<'_>, sequence: u64, record: &Record) -> Result<(), LayeredError> {
        let sound = |good: bool| {
            if good {
                Ok(())
            } else {
                Err(self.nonsense(sequence))
            }
        };
        match *record {
            Record::Map {
                cluster,
                entry,
                fresh,
                freed,
            } => {
                let parts = entry.parts();
                sound(
                    parts
                        .iter()
                        .all(|part| usize::from(part.slot) <= self.bases.len()),
                )?;
                sound(u64::from(leaf_of(cluster)) < leaves_of(Capacity::LARGEST.sectors()))?;
                self.set_again(sequence, cluster, entry, fresh, &freed)
            }
            Record::Clear { first, count, freed } => {
                sound(
                    count <= FANOUT as u32
                        && u64::from(leaf_of(first)) < leaves_of(Capacity::LARGEST.sectors()),
                )?;
                for cluster in first..first + u64::from(count) {
                    self.set_again(sequence, cluster, Entry::EMPTY, false, &[])?;
                }
                self.state().free(sequence, &freed);
                Ok(())
            }
            Record::Free {
                generation,
                cursor,
                freed,
            } => {
                let mut state = self.state();
                let mut snapshots = state.snapshots.iter_mut();
                if let Some(snapshot) = snapshots.find(|snapshot| snapshot.generation == generation) {
                    snapshot.cursor = snapshot.cursor.max(cursor);
                }
                state.free(sequence, &freed);
                Ok(())
            }
            Record::Commit { .. } => Ok(()),
            Record::Snapshot { operation, id } => {
                self.apply_snapshot(operation, id);
                self.settle_replayed(held)
            }
            Record::Rollback { operation, id } => {
                sound(self.state().snapshot(id).is_some())?;
                self.apply_rollback(operation, id)?;
                self.settle_replayed(held)
            }
            Record::Reinitialise { operation } => {
                self.apply_reinitialise(operation)?;
                self.settle_replayed(held)
            }
            Record::Delete { operation, id } => {
                self.apply_delete(operation, id);
                Ok(())
            }
            Record::Resize { operation, sectors } => {
                self.apply_resize(operation, sectors);
                Ok(())
            }
            Record::Pin { id, disk } => {
                self.apply_pin(Pin { id, disk });
                Ok(())
            }
            Record::Unpin { id, disk } => {
                self.apply_unpin(Pin { id, disk });
                Ok(())
            }
        }
    }

    fn set_again(
        &self,
        sequence: u64,
        cluster: u64,
        entry: Entry,
        fresh: bool,
        freed: &[u32],
    ) -> Result<(), LayeredError> {
        let live = self.live.load_full();
        self.load_leaf(&live, leaf_of(cluster))?;
        let mut state = self.state();
        live.set_present(leaf_of(cluster));
        state
            .set_entry(&live, sequence, cluster, entry, fresh, freed)
            .map_err(|error| LayeredError::Io(std::io::Error::other(error)))
    }

    /// Writes what a replayed snapshot froze, so that the replay can go on. It does not count before the superblock does.
    fn settle_replayed(&self, held: &Maintenance<'_>) -> Result<(), LayeredError> {
        let at = self.state().journal.next();
        self.write_frozen(held)?;
        // The journal's place is that of the superblock until the replay ends.
        debug_assert_eq!(at, self.state().journal.next());
        Ok(())
    }

    /// Loads a leaf, if it is not loaded.
    ///
    /// # Errors
    /// [`LayeredError`].
    pub(super) fn load_leaf(&self, live: &Arc<Live>, leaf: u32) -> Result<(), LayeredError> {
        if live.map.is_loaded(leaf) {
            return Ok(());
        }
        let reference = self.trees().map.leaf(leaf);
        let inherits = self.state().inherits;
        let entries = if reference.is_some() {
            read_leaf(&self.medium, self.uuid, leaf, reference)?
        } else if inherits {
            read_inherited(&self.bases, leaf)?
        } else {
            Box::new([Entry::EMPTY; FANOUT])
        };
        let _state = self.state();
        // Rolled back, or loaded by another, meanwhile?
        if Arc::ptr_eq(live, &self.live.load()) && !live.map.is_loaded(leaf) {
            live.map
                .install(leaf, &entries)
                .map_err(|error| LayeredError::Io(std::io::Error::other(error)))?;
        }
        Ok(())
    }

    fn load_map(&self, tell: &dyn Fn()) -> Result<(), LayeredError> {
        let leaves: Vec<u32> = self
            .trees()
            .map
            .leaves()
            .map(|(leaf, _)| leaf)
            .take(LEAVES_AT_ONCE)
            .collect();
        let live = self.live.load_full();
        for leaf in leaves {
            tell();
            self.load_leaf(&live, leaf)?;
        }
        Ok(())
    }

    /// Ends recovery: a checkpoint, under a new incarnation, and both copies of its superblock are waited for, so that
    /// neither alone can lead back to records of the former one.
    fn begin(&self, held: &Maintenance<'_>, next: u64, boot: [u8; 16]) -> Result<(), LayeredError> {
        self.begin_upgrade()?;
        {
            let mut guard = self.state();
            let state = &mut *guard;
            let before = &state.superblock;
            let incarnation = before.incarnation.wrapping_add(1);
            let ring = Ring::new(VERSION, before.journal_clusters);
            state.journal = Journal::new(self.uuid, incarnation, ring, next);
            state.superblock.boot = boot;
            state.generation += 1;
        }
        self.write_frozen(held)?;
        self.write_tables(held, next)?;
        self.sync_medium()?;
        self.write_mark()?;
        self.prepare_arena();
        let mut state = self.state();
        // Not before: the former superblock may still have referred to them.
        for (_, cluster) in std::mem::take(&mut state.freed) {
            // A later record may have taken it again.
            if state.space.is_free(cluster) {
                state.space.release(cluster);
            }
        }
        Ok(())
    }

    /// Writes pages of the journal anew that cannot be read and have no record: a record that came to lie in one of them
    /// could not be written, since the rest of the page is not known.
    fn renew_journal(&self, pages: &[u64]) {
        for page in pages {
            let report = format!("page {page} (of the journal, not in use) could not be read");
            log::warn!("{report}");
            self.state().reports.push(report);
            if let Err(error) = self.medium.write(page * PAGE_BYTES as u64, &blank()[..]) {
                log::warn!("page {page} cannot be written anew: {error}");
            }
        }
    }

    /// Has the second copy of a superblock of the first version be the one that counts, so that the first copy can be
    /// written in the present version.
    fn begin_upgrade(&self) -> Result<(), LayeredError> {
        let mut copy = self.state().superblock.clone();
        if copy.version == FIRST_VERSION && copy.page() != MARK_PAGE {
            copy.sequence += 1;
            self.write_superblock(&copy)?;
            self.sync_medium()?;
            self.state().superblock = copy;
        }
        Ok(())
    }

    /// Makes programs of the first version see that the store is not theirs, if there is nothing yet that says so. It lies
    /// beside the first copy of the superblock, and must not be written while the second one is.
    pub(super) fn write_mark(&self) -> Result<(), LayeredError> {
        if !self.state().is_marked {
            self.medium.write(MARK_PAGE * PAGE_BYTES as u64, &mark()[..])?;
            self.sync_medium()?;
            self.state().is_marked = true;
        }
        Ok(())
    }

    fn nonsense(&self, sequence: u64) -> LayeredError {
        LayeredError::Io(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("record {sequence} of the journal makes no sense"),
        ))
    }
}

fn open_bases<M: Medium>(
    medium: &M,
    superblock: &Superblock,
    given: Vec<M>,
) -> Result<Vec<BaseFile<M>>, LayeredError> {
    let needed = read_bases(medium, superblock)?;
    if needed.len() != given.len() {
        return Err(LayeredError::Bases {
            given: given.len(),
            needed: needed.len(),
        });
    }
    let mut files = Vec::new();
    for (index, (base, medium)) in needed.into_iter().zip(given).enumerate() {
        if read_superblock(&medium)?.uuid != base.uuid {
            return Err(LayeredError::WrongBase(index as u8 + 1));
        }
        files.push(BaseFile {
            map: Tree::load(&medium, MAP, base.uuid, base.map)?,
            uuid: base.uuid,
            inherits: base.inherits,
            medium,
        });
    }
    Ok(files)
}

//! What a store holds, for the operator.

use super::delete::alone;
use super::entry::Entry;
use super::error::LayeredError;
use super::format::entry::Leaf;
use super::format::tables::Snapshot;
use super::format::{CLUSTER_BYTES, ObjectId, PageRef};
use super::layout::fixed_clusters;
use super::live::{read_inherited, read_leaf};
use super::medium::Medium;
use super::store::LayeredStore;
use super::tree::{MAP, Tree};

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Size of the disk, in sectors.
    pub sectors: u64,
    /// Bytes in use in the file: data and metadata.
    pub allocated: u64,
    /// Of the disk's data, bytes that a snapshot or a base has too.
    pub shared: u64,
    /// Bytes that are still to be freed in the background.
    pub deleting: u64,
    /// Snapshots, by id, without what rollbacks have left.
    pub snapshots: Vec<SnapshotReport>,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Its id.
    pub id: ObjectId,
    /// The snapshot it goes on from.
    pub parent: ObjectId,
    /// Size of the disk then, in sectors.
    pub sectors: u64,
    /// Bytes of data that nobody else has.
    pub unique_bytes: u64,
    /// The clones that pin it.
    pub pins: Vec<ObjectId>,
    /// The snapshot was deleted, and goes when nothing needs it.
    pub hidden: bool,
}

/// How often something that changes at each look is looked at.
const MAX_TRIES: usize = 16;

/// A snapshot and those that go on from it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Family {
    snapshot: Snapshot,
    children: Vec<Snapshot>,
    /// The disk does.
    live: bool,
}

/// Whose map a leaf is looked up in.
enum Map {
    Live,
    Kept(Tree, bool),
}

impl<M: Medium> LayeredStore<M> {
    /// What the store holds. What goes on meanwhile, checkpoints and changes by the operator too, is counted or not: only
    /// single leaves are looked at under a lock.
    ///
    /// # Errors
    /// [`LayeredError`].
    pub fn report(&self) -> Result<Report, LayeredError> {
        let (ids, mut report) = {
            let state = self.state();
            let report = Report {
                sectors: state.sectors,
                allocated: state.space.allocated(fixed_clusters(&state.superblock)),
                ..Report::default()
            };
            let ids: Vec<ObjectId> = state.snapshots.iter().map(|snapshot| snapshot.id).collect();
            (ids, report)
        };
        for id in ids {
            let Some((snapshot, unique)) = self.unique_of(id)? else {
                continue;
            };
            let unique = unique * CLUSTER_BYTES;
            if snapshot.hidden {
                report.deleting += unique;
            }
            // What a rollback has left has an id of the store's own.
            if snapshot.id.0.contains(&b'.') {
                continue;
            }
            let state = self.state();
            let pins = state.pins.iter().filter(|pin| pin.id == snapshot.id);
            report.snapshots.push(SnapshotReport {
                id: snapshot.id,
                parent: snapshot.parent,
                sectors: snapshot.sectors,
                unique_bytes: unique,
                pins: pins.map(|pin| pin.disk).collect(),
                hidden: snapshot.hidden,
            });
        }
        report.snapshots.sort_by_key(|snapshot| snapshot.id);
        report.shared = self.shared_clusters()? * CLUSTER_BYTES;
        Ok(report)
    }

    /// A snapshot, and its clusters that nobody else has; none if it has gone. Pages of snapshots are used again only when
    /// these have gone: a page that is not what it should be is then no damage.
    fn unique_of(&self, id: ObjectId) -> Result<Option<(Snapshot, u64)>, LayeredError> {
        let mut tries = 0;
        loop {
            let Some(family) = self.family(id) else {
                return Ok(None);
            };
            tries += 1;
            match self.unique_clusters(&family) {
                Err(_) if tries < MAX_TRIES && self.family(id).as_ref() != Some(&family) => {}
                counted => return Ok(Some((family.snapshot, counted?))),
            }
        }
    }

    fn family(&self, id: ObjectId) -> Option<Family> {
        let state = self.state();
        let children = state.snapshots.iter().filter(|child| child.parent == id);
        Some(Family {
            snapshot: *state.snapshot(id)?,
            children: children.copied().collect(),
            live: state.parent == id,
        })
    }

    fn unique_clusters(&self, family: &Family) -> Result<u64, LayeredError> {
        let snapshot = &family.snapshot;
        let map = self.kept(snapshot)?;
        let mut children = Vec::new();
        for child in &family.children {
            children.push(self.kept(child)?);
        }
        if family.live {
            children.push(Map::Live);
        }
        let mut count = 0;
        let Map::Kept(tree, _) = &map else { return Ok(0) };
        for (leaf, reference) in tree.leaves() {
            let same = |child: &Map| matches!(child, Map::Kept(tree, _) if tree.leaf(leaf) == reference);
            if children.iter().any(same) {
                continue;
            }
            let ours = read_leaf(&self.medium, self.uuid, leaf, reference)?;
            let theirs = children
                .iter()
                .map(|child| self.leaf_of_map(child, leaf))
                .collect::<Result<Vec<_>, _>>()?;
            let state = self.state();
            for (index, entry) in ours.iter().enumerate() {
                let others: Vec<Entry> = theirs.iter().map(|theirs| theirs[index]).collect();
                count += alone(&state, snapshot, *entry, &others).iter().flatten().count() as u64;
            }
        }
        Ok(count)
    }

    fn shared_clusters(&self) -> Result<u64, LayeredError> {
        let leaves = super::layout::leaves_of(self.sectors());
        let live = self.live.load_full();
        let mut count = 0;
        for leaf in (0..leaves as u32).filter(|leaf| live.is_present(*leaf)) {
            let entries = self.leaf_of_map(&Map::Live, leaf)?;
            let state = self.state();
            for (cluster, entry) in (u64::from(leaf) * super::format::FANOUT as u64..).zip(entries.iter()) {
                let shared = |part: &super::entry::Part| part.is_some() && !state.is_own(cluster, *part);
                count += entry.parts().iter().filter(|part| shared(part)).count() as u64;
            }
        }
        Ok(count)
    }

    fn kept(&self, snapshot: &Snapshot) -> Result<Map, LayeredError> {
        // One that is on its way to the medium counts as empty until it is there.
        let tree = Tree::load(&self.medium, MAP, self.uuid, snapshot.map)?;
        Ok(Map::Kept(tree, snapshot.inherits))
    }

    fn leaf_of_map(&self, map: &Map, leaf: u32) -> Result<Box<Leaf>, LayeredError> {
        let (reference, inherits): (PageRef, bool) = match map {
            Map::Kept(tree, inherits) => (tree.leaf(leaf), *inherits),
            Map::Live => return self.leaf_of_live(leaf),
        };
        self.read_leaf_of(reference, inherits, leaf)
    }

    /// A leaf that is not loaded lies on a page that stays, unless it is loaded and changed, or the disk rolled back,
    /// meanwhile.
    fn leaf_of_live(&self, leaf: u32) -> Result<Box<Leaf>, LayeredError> {
        let mut tries = 0;
        loop {
            if let Some(entries) = self.live.load().map.leaf(leaf) {
                return Ok(Box::new(entries));
            }
            let place = || (self.trees().map.leaf(leaf), self.state().inherits);
            let (reference, inherits) = place();
            tries += 1;
            match self.read_leaf_of(reference, inherits, leaf) {
                Err(_) if tries < MAX_TRIES && place() != (reference, inherits) => {}
                read => return read,
            }
        }
    }

    fn read_leaf_of(&self, reference: PageRef, inherits: bool, leaf: u32) -> Result<Box<Leaf>, LayeredError> {
        Ok(if reference.is_some() {
            read_leaf(&self.medium, self.uuid, leaf, reference)?
        } else if inherits {
            read_inherited(&self.bases, leaf)?
        } else {
            Box::new([Entry::EMPTY; super::format::FANOUT])
        })
    }
}

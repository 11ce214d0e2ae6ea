//! Making a new store: empty, or beginning as a snapshot in another one.

use super::error::LayeredError;
use super::format::page::{self, Kind, Place};
use super::format::superblock::{MARK_PAGE, Superblock, TWIN_PAGE, mark};
use super::format::tables;
use super::format::{CLUSTER_BYTES, ObjectId, PAGE_BYTES, PageRef, Uuid, VERSION};
use super::layout::journal_end;
use super::lists::{read_bases, read_snapshots};
use super::medium::Medium;
use super::superblocks::read_superblock;
use crate::limits::MAX_BASES;
use crate::units::Capacity;

/// Clusters of the journal of the smallest and the largest disks: 1 MiB and 32 MiB.
const JOURNAL_CLUSTERS: std::ops::RangeInclusive<u64> = 16..=512;

/// What a new store is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewStore {
    /// Its identity, random.
    pub uuid: Uuid,
    /// Size of the disk.
    pub capacity: Capacity,
    /// Id of the disk, or of the backup: opened for no other.
    pub disk: ObjectId,
    /// Id of the lineage; [`ObjectId::NONE`] of a plain disk.
    pub lineage: ObjectId,
}

/// The snapshot that a clone begins as.
#[derive(Debug)]
pub struct Base<'a, M> {
    /// The file with the snapshot. It may be in use by another process.
    pub medium: &'a M,
    /// The snapshot, which that file pins.
    pub snapshot: ObjectId,
}

impl NewStore {
    /// Writes an empty store, or a clone, and makes it durable. The medium must be empty, or at least its first two pages
    /// must be zeros.
    ///
    /// # Errors
    /// [`LayeredError`].
    pub fn create<M: Medium>(&self, medium: &M, base: Option<&Base<'_, M>>) -> Result<(), LayeredError> {
        let journal_clusters = (self.capacity.bytes().0 / 1024 / CLUSTER_BYTES)
            .clamp(*JOURNAL_CLUSTERS.start(), *JOURNAL_CLUSTERS.end()) as u32;
        self.create_with_journal(medium, base, journal_clusters)
    }

    /// Like [`NewStore::create`], with a journal of so many clusters, 1024 records each.
    ///
    /// # Errors
    /// [`LayeredError`].
    pub fn create_with_journal<M: Medium>(
        &self,
        medium: &M,
        base: Option<&Base<'_, M>>,
        journal_clusters: u32,
    ) -> Result<(), LayeredError> {
        let sectors = self.capacity.sectors();
        let fixed = journal_end(journal_clusters);
        // The bases' page never changes, so that it has a cluster of its own among the fixed ones.
        let clusters = fixed + u32::from(base.is_some());
        let size = medium.size()?;
        if size < u64::from(clusters) * CLUSTER_BYTES {
            medium.grow(u64::from(clusters) * CLUSTER_BYTES)?;
        }
        ensure_blank(medium)?;
        medium.reserve(0, u64::from(clusters) * CLUSTER_BYTES)?;
        let (bases, inherits) = match base {
            Some(base) => (self.write_bases(medium, base, fixed)?, true),
            None => (PageRef::NONE, false),
        };
        let superblock = Superblock {
            version: VERSION,
            uuid: self.uuid,
            sequence: 2,
            sectors,
            generation: 1,
            journal_clusters,
            clusters,
            inherits,
            bases,
            disk: self.disk,
            lineage: self.lineage,
            ..Superblock::default()
        };
        // A device may have a superblock there of a store that it had before.
        medium.write(TWIN_PAGE * PAGE_BYTES as u64, &page::blank()[..])?;
        // What the new store refers to comes before it.
        medium.sync()?;
        medium.write(MARK_PAGE * PAGE_BYTES as u64, &mark()[..])?;
        for sequence in [2, 3] {
            let copy = Superblock {
                sequence,
                ..superblock.clone()
            };
            medium.write(copy.page() * PAGE_BYTES as u64, &copy.encode()[..])?;
        }
        medium.sync()?;
        Ok(())
    }

    fn write_bases<M: Medium>(
        &self,
        medium: &M,
        base: &Base<'_, M>,
        cluster: u32,
    ) -> Result<PageRef, LayeredError> {
        let superblock = read_superblock(base.medium)?;
        let snapshots = read_snapshots(base.medium, &superblock)?;
        let pinned = snapshots.iter().find(|snapshot| snapshot.id == base.snapshot);
        let Some(snapshot) = pinned.filter(|snapshot| snapshot.sectors <= self.capacity.sectors()) else {
            return Err(LayeredError::NotPinned(base.snapshot));
        };
        let mut bases = vec![tables::Base {
            uuid: superblock.uuid,
            map: snapshot.map,
            inherits: snapshot.inherits,
        }];
        bases.extend(read_bases(base.medium, &superblock)?);
        if bases.len() > MAX_BASES {
            return Err(LayeredError::Bases {
                given: bases.len(),
                needed: MAX_BASES,
            });
        }
        let mut page = page::blank();
        tables::put_bases(&mut page, &bases);
        let number = u64::from(cluster) * CLUSTER_BYTES / PAGE_BYTES as u64;
        let place = Place {
            kind: Kind::Bases,
            position: 0,
        };
        let reference = page::seal(&mut page, self.uuid, place, number, 1);
        medium.write(number * PAGE_BYTES as u64, &page[..])?;
        Ok(reference)
    }
}

fn ensure_blank(medium: &impl Medium) -> Result<(), LayeredError> {
    let mut start = [0; 2 * PAGE_BYTES];
    medium.read(0, &mut start)?;
    if start.iter().any(|byte| *byte != 0) {
        return Err(LayeredError::Exists);
    }
    Ok(())
}

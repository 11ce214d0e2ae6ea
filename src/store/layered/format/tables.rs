//! Pages of snapshots, pins and bases.

use super::page::{BODY_BYTES, Page, body, body_mut};
use super::{ObjectId, PageRef, Uuid, array, get_u32, get_u64, put_u32, put_u64};

const SNAPSHOT_BYTES: usize = 80;
const PIN_BYTES: usize = 32;
const BASE_BYTES: usize = 48;
/// Snapshots of a page.
pub(crate) const SNAPSHOTS: usize = (BODY_BYTES - 8) / SNAPSHOT_BYTES;
/// Pins of a page.
pub(crate) const PINS: usize = (BODY_BYTES - 8) / PIN_BYTES;
/// Bases of a page.
pub(crate) const BASES: usize = (BODY_BYTES - 8) / BASE_BYTES;

/// A state of the disk that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Its id. What a rollback or re-initialisation has left has one of the store's own.
    pub(crate) id: ObjectId,
    /// The snapshot that it goes on from.
    pub(crate) parent: ObjectId,
    /// Generation that ended with it: no cluster of it is younger. No other snapshot has the same.
    pub(crate) generation: u32,
    /// The snapshot was deleted, and goes when nothing needs it.
    pub(crate) hidden: bool,
    /// Leaves that it lacks are those of the base.
    pub(crate) inherits: bool,
    /// Entries of the map before this one have been freed.
    pub(crate) cursor: u32,
    /// Size of the disk, in sectors.
    pub(crate) sectors: u64,
    /// Its map.
    pub(crate) map: PageRef,
}

/// A clone needs a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// The snapshot.
    pub(crate) id: ObjectId,
    /// The clone.
    pub(crate) disk: ObjectId,
}

/// A file that this one reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// Its identity.
    pub(crate) uuid: Uuid,
    /// In it, the map of the snapshot that is read.
    pub(crate) map: PageRef,
    /// Leaves that the map lacks are those of the next base.
    pub(crate) inherits: bool,
}

/// A page of at most [`SNAPSHOTS`].
pub(crate) fn put_snapshots(page: &mut Page, snapshots: &[Snapshot]) {
    put_items(page, SNAPSHOT_BYTES, snapshots, |snapshot, bytes| {
        bytes[..16].copy_from_slice(&snapshot.id.0);
        bytes[16..32].copy_from_slice(&snapshot.parent.0);
        put_u32(bytes, 32, snapshot.generation);
        put_u32(
            bytes,
            36,
            u32::from(snapshot.hidden) | u32::from(snapshot.inherits) << 1,
        );
        put_u32(bytes, 40, snapshot.cursor);
        put_u64(bytes, 48, snapshot.sectors);
        snapshot.map.put(&mut bytes[56..72]);
    });
}

/// None: the page makes no sense.
pub(crate) fn get_snapshots(page: &Page) -> Option<Vec<Snapshot>> {
    get_items(page, SNAPSHOT_BYTES, SNAPSHOTS, |bytes| Snapshot {
        id: ObjectId(array(bytes, 0)),
        parent: ObjectId(array(bytes, 16)),
        generation: get_u32(bytes, 32),
        hidden: get_u32(bytes, 36) & 1 != 0,
        inherits: get_u32(bytes, 36) & 2 != 0,
        cursor: get_u32(bytes, 40),
        sectors: get_u64(bytes, 48),
        map: PageRef::get(&bytes[56..72]),
    })
}

/// A page of at most [`PINS`].
pub(crate) fn put_pins(page: &mut Page, pins: &[Pin]) {
    put_items(page, PIN_BYTES, pins, |pin, bytes| {
        bytes[..16].copy_from_slice(&pin.id.0);
        bytes[16..32].copy_from_slice(&pin.disk.0);
    });
}

/// None: the page makes no sense.
pub(crate) fn get_pins(page: &Page) -> Option<Vec<Pin>> {
    get_items(page, PIN_BYTES, PINS, |bytes| Pin {
        id: ObjectId(array(bytes, 0)),
        disk: ObjectId(array(bytes, 16)),
    })
}

/// A page of at most [`BASES`].
pub(crate) fn put_bases(page: &mut Page, bases: &[Base]) {
    put_items(page, BASE_BYTES, bases, |base, bytes| {
        bytes[..16].copy_from_slice(&base.uuid.0);
        base.map.put(&mut bytes[16..32]);
        put_u32(bytes, 32, u32::from(base.inherits));
    });
}

/// None: the page makes no sense.
pub(crate) fn get_bases(page: &Page) -> Option<Vec<Base>> {
    get_items(page, BASE_BYTES, BASES, |bytes| Base {
        uuid: Uuid(array(bytes, 0)),
        map: PageRef::get(&bytes[16..32]),
        inherits: get_u32(bytes, 32) != 0,
    })
}

fn put_items<T>(page: &mut Page, size: usize, items: &[T], put: impl Fn(&T, &mut [u8])) {
    let body = body_mut(page);
    put_u32(body, 0, items.len() as u32);
    for (item, bytes) in items.iter().zip(body[8..].chunks_exact_mut(size)) {
        put(item, bytes);
    }
}

fn get_items<T>(page: &Page, size: usize, most: usize, get: impl Fn(&[u8]) -> T) -> Option<Vec<T>> {
    let body = body(page);
    let count = get_u32(body, 0) as usize;
    (count <= most).then(|| body[8..].chunks_exact(size).take(count).map(get).collect())
}

//! Records of the journal: 64 bytes each, so that none lies across two sectors of 512 bytes.

use super::super::entry::Entry;
use super::{ObjectId, Uuid, array, get_u32, get_u64, put_u32, put_u64};

/// Bytes of a record.
pub(crate) const RECORD_BYTES: usize = 64;
/// Clusters that one [`Record::Free`] gives back.
pub(crate) const FREED: usize = 8;
/// Clusters that one [`Record::Clear`] gives back.
pub(crate) const CLEARED: usize = 7;

const AT_PAYLOAD: usize = 24;

/// A change of the store's metadata. Every one says what is, not what to do, so that it may be applied again to a state
/// that has it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A cluster's entry; the front's cluster is in use from now on if `fresh`; others are not any more (0: none).
    Map {
        cluster: u64,
        entry: Entry,
        fresh: bool,
        freed: [u32; 2],
    },
    /// The entries of `count` clusters from `first` are empty, and clusters are in use no more.
    Clear {
        first: u64,
        count: u32,
        freed: [u32; CLEARED],
    },
    /// Of the snapshot of a generation that is being deleted, all before `cursor` has been freed, these with it.
    Free {
        generation: u32,
        cursor: u32,
        freed: [u32; FREED],
    },
    /// All records before `upto`, and their data, are on the medium.
    Commit { upto: u64 },
    /// A snapshot was taken.
    Snapshot { operation: ObjectId, id: ObjectId },
    /// A snapshot was deleted.
    Delete { operation: ObjectId, id: ObjectId },
    /// The disk is what the snapshot holds.
    Rollback { operation: ObjectId, id: ObjectId },
    /// The disk is empty.
    Reinitialise { operation: ObjectId },
    /// The disk has this size.
    Resize { operation: ObjectId, sectors: u64 },
    /// A clone needs a snapshot.
    Pin { id: ObjectId, disk: ObjectId },
    /// A clone needs it no more.
    Unpin { id: ObjectId, disk: ObjectId },
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::Map { .. } => 1,
            Record::Clear { .. } => 2,
            Record::Free { .. } => 3,
            Record::Commit { .. } => 4,
            Record::Snapshot { .. } => 5,
            Record::Delete { .. } => 6,
            Record::Rollback { .. } => 7,
            Record::Reinitialise { .. } => 8,
            Record::Resize { .. } => 9,
            Record::Pin { .. } => 10,
            Record::Unpin { .. } => 11,
        }
    }

    /// The record's bytes, as number `sequence` of the journal.
    pub(crate) fn encode(&self, uuid: Uuid, incarnation: u32, sequence: u64) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[4] = self.kind();
        put_u32(&mut bytes, 8, incarnation);
        put_u64(&mut bytes, 16, sequence);
        let payload = &mut bytes[AT_PAYLOAD..];
        match *self {
            Record::Map {
                cluster,
                entry,
                fresh,
                freed,
            } => {
                put_u64(payload, 0, cluster);
                entry.put(&mut payload[8..24]);
                put_all(&mut payload[24..], &freed);
                put_u32(payload, 32, u32::from(fresh));
            }
            Record::Clear { first, count, freed } => {
                put_u64(payload, 0, first);
                put_u32(payload, 8, count);
                put_all(&mut payload[12..], &freed);
            }
            Record::Free {
                generation,
                cursor,
                freed,
            } => {
                put_u32(payload, 0, generation);
                put_u32(payload, 4, cursor);
                put_all(&mut payload[8..], &freed);
            }
            Record::Commit { upto } => put_u64(payload, 0, upto),
            Record::Snapshot { operation, id }
            | Record::Delete { operation, id }
            | Record::Rollback { operation, id } => put_ids(payload, operation, id),
            Record::Reinitialise { operation } => put_ids(payload, operation, ObjectId::NONE),
            Record::Resize { operation, sectors } => {
                put_ids(payload, operation, ObjectId::NONE);
                put_u64(payload, 32, sectors);
            }
            Record::Pin { id, disk } | Record::Unpin { id, disk } => put_ids(payload, id, disk),
        }
        let crc = checksum(uuid, &bytes);
        put_u32(&mut bytes, 0, crc);
        bytes
    }

    /// The record in `bytes`, if they are record number `sequence` of this store and incarnation.
    pub(crate) fn decode(bytes: &[u8], uuid: Uuid, incarnation: u32, sequence: u64) -> Option<Record> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        // Most of those that are looked at are of other rounds, which is seen at less cost than the checksum.
        let ours = get_u32(bytes, 8) == incarnation
            && get_u64(bytes, 16) == sequence
            && get_u32(bytes, 0) == checksum(uuid, bytes);
        if !ours {
            return None;
        }
        let payload = &bytes[AT_PAYLOAD..];
        let (one, other) = (ObjectId(array(payload, 0)), ObjectId(array(payload, 16)));
        Some(match bytes[4] {
            1 => Record::Map {
                cluster: get_u64(payload, 0),
                entry: Entry::get(&payload[8..24])?,
                fresh: get_u32(payload, 32) != 0,
                freed: get_all(&payload[24..]),
            },
            2 => Record::Clear {
                first: get_u64(payload, 0),
                count: get_u32(payload, 8),
                freed: get_all(&payload[12..]),
            },
            3 => Record::Free {
                generation: get_u32(payload, 0),
                cursor: get_u32(payload, 4),
                freed: get_all(&payload[8..]),
            },
            4 => Record::Commit {
                upto: get_u64(payload, 0),
            },
            5 => Record::Snapshot {
                operation: one,
                id: other,
            },
            6 => Record::Delete {
                operation: one,
                id: other,
            },
            7 => Record::Rollback {
                operation: one,
                id: other,
            },
            8 => Record::Reinitialise { operation: one },
            9 => Record::Resize {
                operation: one,
                sectors: get_u64(payload, 32),
            },
            10 => Record::Pin { id: one, disk: other },
            11 => Record::Unpin { id: one, disk: other },
            _ => return None,
        })
    }
}

fn checksum(uuid: Uuid, bytes: &[u8; RECORD_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&uuid.0), &bytes[4..])
}

fn put_ids(payload: &mut [u8], one: ObjectId, other: ObjectId) {
    payload[..16].copy_from_slice(&one.0);
    payload[16..32].copy_from_slice(&other.0);
}

fn put_all(bytes: &mut [u8], clusters: &[u32]) {
    for (index, cluster) in clusters.iter().enumerate() {
        put_u32(bytes, 4 * index, *cluster);
    }
}

fn get_all<const N: usize>(bytes: &[u8]) -> [u32; N] {
    std::array::from_fn(|index| get_u32(bytes, 4 * index))
}

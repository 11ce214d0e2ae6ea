//! Pages of metadata: a header that says what, where and whose the page is, and a body.

use std::io;

use super::{PAGE_BYTES, PageRef, Uuid, get_u32, get_u64, put_u32, put_u64};

/// A page in memory.
pub(crate) type Page = [u8; PAGE_BYTES];

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of the body.
pub(crate) const BODY_BYTES: usize = PAGE_BYTES - HEADER_BYTES;

const MAGIC: u32 = u32::from_le_bytes(*b"SBpg");
const AT_CRC: usize = 4;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// 252 entries of the map.
    Map = 1,
    /// References to 252 pages of the map, or of its index.
    MapIndex = 2,
    /// 1008 entries of the space table.
    Space = 3,
    /// References to 252 pages of the space table, or of its index.
    SpaceIndex = 4,
    /// Snapshots.
    Snapshots = 5,
    /// Pins.
    Pins = 6,
    /// Bases.
    Bases = 7,
}

/// Why a page is not what a reference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("page {page} ({kind:?} at position {position}) is damaged: {what}")]
pub struct PageDamage {
    page: u64,
    kind: Kind,
    position: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum What {
    #[error("it cannot be read: {}", io::Error::from_raw_os_error(*.0))]
    Unreadable(i32),
    #[error("it lies beyond the end of the file")]
    Beyond,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is an older or newer version of itself")]
    Stale,
    #[error("it belongs to another store")]
    Uuid,
    #[error("it is a page of another kind or place")]
    Misplaced,
    #[error("its contents make no sense")]
    Contents,
}

/// Which page: what it holds, and its place among those of its kind (for index pages: level << 32 | number).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) position: u64,
}

/// An empty page.
pub(crate) fn blank() -> Box<Page> {
    Box::new([0; PAGE_BYTES])
}

/// Writes the header of a page that is complete otherwise, and says how to refer to it.
pub(crate) fn seal(page: &mut Page, uuid: Uuid, place: Place, number: u64, generation: u32) -> PageRef {
    put_u32(page, 0, MAGIC);
    put_u32(page, AT_CRC, 0);
    put_u32(page, 8, place.kind as u32);
    put_u32(page, 12, generation);
    page[16..32].copy_from_slice(&uuid.0);
    put_u64(page, 32, number);
    put_u64(page, 40, place.position);
    let crc = crc32c::crc32c(page);
    put_u32(page, AT_CRC, crc);
    PageRef {
        page: number,
        crc,
        generation,
    }
}

/// Checks that the page is the one that `reference` means.
///
/// # Errors
/// [`PageDamage`].
pub(crate) fn verify(page: &Page, uuid: Uuid, place: Place, reference: PageRef) -> Result<(), PageDamage> {
    let what = if get_u32(page, AT_CRC) != checksum(page) {
        What::Checksum
    } else if page[16..32] != uuid.0 {
        What::Uuid
    } else if get_u32(page, AT_CRC) != reference.crc || get_u32(page, 12) != reference.generation {
        What::Stale
    } else if get_u32(page, 0) != MAGIC
        || get_u32(page, 8) != place.kind as u32
        || get_u64(page, 32) != reference.page
        || get_u64(page, 40) != place.position
    {
        What::Misplaced
    } else {
        return Ok(());
    };
    Err(damage(place, reference.page, what))
}

/// The medium does not give it. Who depends on the page suffers what it would suffer from a wrong checksum, and nobody
/// else does.
pub(crate) fn unreadable(place: Place, reference: PageRef, error: &io::Error) -> PageDamage {
    let what = error.raw_os_error().map_or(What::Beyond, What::Unreadable);
    damage(place, reference.page, what)
}

/// The checksum is right, and the contents are not.
pub(crate) fn senseless(place: Place, reference: PageRef) -> PageDamage {
    damage(place, reference.page, What::Contents)
}

fn damage(place: Place, page: u64, what: What) -> PageDamage {
    PageDamage {
        page,
        kind: place.kind,
        position: place.position,
        what,
    }
}

/// CRC32C of a page whose own checksum counts as zero.
pub(crate) fn checksum(page: &Page) -> u32 {
    let crc = crc32c::crc32c(&page[..AT_CRC]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &page[AT_CRC + 4..])
}

/// The part that the header leaves.
pub(crate) fn body(page: &Page) -> &[u8] {
    &page[HEADER_BYTES..]
}

/// The part that the header leaves.
pub(crate) fn body_mut(page: &mut Page) -> &mut [u8] {
    &mut page[HEADER_BYTES..]
}

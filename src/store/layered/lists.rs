//! The lists that a superblock names: snapshots, pins, bases.

use super::error::LayeredError;
use super::format::page::{Kind, Page, PageDamage, Place, senseless};
use super::format::superblock::Superblock;
use super::format::tables::{self, Pin, Snapshot};
use super::format::{PageRef, Uuid};
use super::medium::Medium;
use super::tree::read_page;

/// # Errors
/// [`PageDamage`].
pub(super) fn read_snapshots(
    medium: &impl Medium,
    superblock: &Superblock,
) -> Result<Vec<Snapshot>, LayeredError> {
    read_list(
        medium,
        superblock.uuid,
        Kind::Snapshots,
        &superblock.snapshots,
        tables::get_snapshots,
    )
}

/// # Errors
/// As [`read_snapshots`].
pub(super) fn read_pins(medium: &impl Medium, superblock: &Superblock) -> Result<Vec<Pin>, LayeredError> {
    read_list(
        medium,
        superblock.uuid,
        Kind::Pins,
        &superblock.pins,
        tables::get_pins,
    )
}

/// # Errors
/// As [`read_snapshots`].
pub(super) fn read_bases(
    medium: &impl Medium,
    superblock: &Superblock,
) -> Result<Vec<tables::Base>, LayeredError> {
    let pages: Vec<PageRef> = Some(superblock.bases)
        .into_iter()
        .filter(|page| page.is_some())
        .collect();
    read_list(medium, superblock.uuid, Kind::Bases, &pages, tables::get_bases)
}

fn read_list<T>(
    medium: &impl Medium,
    uuid: Uuid,
    kind: Kind,
    pages: &[PageRef],
    get: impl Fn(&Page) -> Option<Vec<T>>,
) -> Result<Vec<T>, LayeredError> {
    let mut items = Vec::new();
    for (position, reference) in pages.iter().enumerate() {
        let place = Place {
            kind,
            position: position as u64,
        };
        let page = read_page(medium, uuid, place, *reference)?;
        items.extend(get(&page).ok_or_else(|| -> PageDamage { senseless(place, *reference) })?);
    }
    Ok(items)
}

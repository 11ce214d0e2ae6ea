//! Which copy of the superblock counts: one that is damaged or cannot be read leaves the store to the other one.

use super::error::LayeredError;
use super::format::page::{Page, blank};
use super::format::superblock::{FIRST_PAGE, MARK_PAGE, Superblock, SuperblockError, TWIN_PAGE, mark};
use super::format::{FIRST_VERSION, PAGE_BYTES, Uuid, VERSION};
use super::medium::Medium;

/// What the places of superblocks say.
#[derive(Debug)]
pub(super) struct Superblocks {
    /// The copy that counts.
    pub(super) newest: Superblock,
    /// What is wrong with the other places.
    pub(super) reports: Vec<String>,
    /// Programs of the first version see that the store is not theirs.
    pub(super) is_marked: bool,
}

/// A place of a superblock.
#[derive(Debug)]
struct Place {
    page: u64,
    content: Result<Superblock, SuperblockError>,
}

/// The copy of the superblock that counts.
///
/// # Errors
/// [`SuperblockError`]: neither can be used, or one is of a later version.
pub(super) fn read_superblock(medium: &impl Medium) -> Result<Superblock, LayeredError> {
    read_superblocks(medium).map(|superblocks| superblocks.newest)
}

/// As [`read_superblock`], with what is wrong with the other places.
///
/// # Errors
/// [`SuperblockError`].
pub(super) fn read_superblocks(medium: &impl Medium) -> Result<Superblocks, LayeredError> {
    let [first, second, twin] = [FIRST_PAGE, MARK_PAGE, TWIN_PAGE].map(|page| Place::read(medium, page));
    let is_marked = is_marked(medium);
    // The first step of an upgrade is to write the first copy, and the last one is the mark.
    let is_old = if first.is_of(FIRST_VERSION) {
        !is_marked
    } else {
        let is_upgraded = first.is_of(VERSION) || twin.is_of(VERSION) && twin.uuid() == second.uuid();
        second.is_of(FIRST_VERSION) && !is_upgraded
    };
    let places: &[&Place] = if is_old {
        // What lies where the twin would be is the journal.
        &[&first, &second]
    } else {
        &[&first, &second, &twin]
    };
    let errors = || places.iter().filter_map(|place| place.content.as_ref().err());
    if let Some(later) = errors().find(|error| matches!(error, SuperblockError::Version(_))) {
        return Err((*later).into());
    }
    let mut reports = Vec::new();
    let is_between = second.is_of(FIRST_VERSION);
    if !is_old && !is_marked && !is_between {
        reports.push(format!("page {MARK_PAGE} (the mark of the version) was damaged"));
    }
    let none = errors()
        .find(|error| **error != SuperblockError::Missing)
        .copied()
        .unwrap_or(SuperblockError::Missing);
    let (one, other) = if is_old {
        (first.only(FIRST_VERSION), second.only(FIRST_VERSION))
    } else {
        (first.only(VERSION), twin.only(VERSION))
    };
    let (newest, damaged) = match (one.content, other.content) {
        (Ok(one), Ok(twin)) if one.uuid == twin.uuid => {
            let newer = if one.sequence > twin.sequence { one } else { twin };
            (newer, None)
        }
        (Ok(good), Ok(_)) => (good, Some((other.page, "it belongs to another store".to_owned()))),
        (Ok(good), Err(bad)) => (good, Some((other.page, bad.to_string()))),
        (Err(bad), Ok(good)) => (good, Some((one.page, bad.to_string()))),
        (Err(_), Err(_)) => return Err(none.into()),
    };
    reports.extend(damaged.map(|(page, error)| {
        format!("page {page} (a copy of the superblock) was damaged, as a power cut during its writing leaves it: {error}")
    }));
    reports.iter().for_each(|report| log::warn!("{report}"));
    Ok(Superblocks {
        newest,
        reports,
        is_marked,
    })
}

/// Whether programs of the first version see that the store is not theirs.
pub(super) fn is_marked(medium: &impl Medium) -> bool {
    read(medium, MARK_PAGE) == Ok(mark())
}

fn read(medium: &impl Medium, page: u64) -> Result<Box<Page>, SuperblockError> {
    let mut bytes = blank();
    match medium.read(page * PAGE_BYTES as u64, &mut bytes[..]) {
        Ok(()) => Ok(bytes),
        // Beyond the end of the file there is nothing.
        Err(error) => Err(error
            .raw_os_error()
            .map_or(SuperblockError::Missing, SuperblockError::Unreadable)),
    }
}

impl Place {
    fn read(medium: &impl Medium, page: u64) -> Self {
        let content = read(medium, page).and_then(|page| Superblock::decode(&page));
        Place { page, content }
    }

    fn is_of(&self, version: u32) -> bool {
        let found = self.content.as_ref();
        found.is_ok_and(|superblock| superblock.version == version)
    }

    fn uuid(&self) -> Option<Uuid> {
        let found = self.content.as_ref();
        found.ok().map(|superblock| superblock.uuid)
    }

    /// What has no place in a store of this version is damage.
    fn only(self, version: u32) -> Self {
        let is_other = self.content.is_ok() && !self.is_of(version);
        let content = if is_other {
            Err(SuperblockError::Damaged)
        } else {
            self.content
        };
        Place { content, ..self }
    }
}

//! Reads every page that a superblock leads to.

use std::collections::HashMap;

use super::super::entry::Entry;
use super::super::error::LayeredError;
use super::super::format::entry::get_leaf;
use super::super::format::page::{Kind, Page, Place, body};
use super::super::format::{FANOUT, PageRef, SPACE_ENTRIES, get_u32};
use super::super::layout::fixed_clusters;
use super::super::medium::Medium;
use super::super::store::LayeredStore;
use super::super::tree::{Key, MAP, SPACE, TOP, TreeKind, child_key, children, place, read_page};
use super::findings::Findings;
use super::subject::Subject;
use super::usage::{Misuse, Usage, Verdict};

/// A map of the disk, as it is or was.
struct Map {
    root: PageRef,
    /// No cluster of it is younger.
    generation: u32,
    /// Entries before this one may name clusters that are free.
    cursor: u32,
    name: String,
}

/// A page that was read.
struct Seen {
    place: Place,
    reference: PageRef,
    /// Everything below it counts already.
    done: bool,
}

/// One examination.
pub(super) struct Examination<'a, M: Medium> {
    store: &'a LayeredStore<M>,
    is_wanted: &'a dyn Fn() -> bool,
    findings: &'a mut Findings,
    usage: Usage,
    seen: HashMap<u64, Seen>,
}

impl<'a, M: Medium> Examination<'a, M> {
    /// Reads everything, as long as it is wanted.
    ///
    /// # Errors
    /// [`LayeredError::Unwanted`].
    pub(super) fn of(
        store: &'a LayeredStore<M>,
        subject: &Subject,
        is_wanted: &'a dyn Fn() -> bool,
        findings: &'a mut Findings,
    ) -> Result<Self, LayeredError> {
        let fixed = fixed_clusters(&subject.superblock);
        let suspended = store.suspended().is_some();
        let mut examination = Examination {
            store,
            is_wanted,
            findings,
            usage: Usage::new(fixed, subject.clusters, suspended),
            seen: HashMap::new(),
        };
        examination.read_lists(subject);
        examination.read_tree(SPACE, subject.superblock.space, None)?;
        for map in maps(subject) {
            examination.read_tree(MAP, map.root, Some(&map))?;
        }
        Ok(examination)
    }

    /// What is wrong with the use of clusters and pages.
    pub(super) fn verdict(self) -> Verdict {
        let verdict = self.usage.verdict(&self.store.births);
        if verdict.is_map_unreadable() {
            self.findings.note(
                "leaks are not looked for: what the unreadable pages reference is not known".to_owned(),
            );
        }
        verdict
    }

    fn read_lists(&mut self, subject: &Subject) {
        let superblock = &subject.superblock;
        let bases = [superblock.bases];
        let lists: [(Kind, &[PageRef]); 3] = [
            (Kind::Snapshots, &superblock.snapshots),
            (Kind::Pins, &superblock.pins),
            (Kind::Bases, &bases),
        ];
        for (kind, references) in lists {
            for (position, reference) in (0..).zip(references).filter(|(_, page)| page.is_some()) {
                // What snapshots and pins say is in memory, as they were read at the start.
                self.read(Place { kind, position }, *reference);
            }
        }
    }

    fn read_tree(&mut self, kind: TreeKind, root: PageRef, map: Option<&Map>) -> Result<(), LayeredError> {
        let is_whole = map.is_none_or(|map| map.cursor == 0);
        let mut wanted = vec![((TOP, 0), root)];
        while let Some((key, reference)) = wanted.pop() {
            if !(self.is_wanted)() {
                return Err(LayeredError::Unwanted);
            }
            if !reference.is_some() || self.is_done(place(kind, key), reference) {
                continue;
            }
            let Some(page) = self.read(place(kind, key), reference) else {
                match map {
                    Some(_) => self.usage.is_unreadable(),
                    None => self.usage.lose(leaves_below(key)),
                }
                continue;
            };
            if key.0 > 0 {
                let nodes = children(&page);
                // In the order of their places: the last that is put there is the next.
                let below = nodes.iter().enumerate().rev();
                wanted.extend(below.map(|(index, child)| (child_key(key, index), *child)));
            } else if let Some(map) = map {
                self.count_entries(map, key, reference, &page);
            } else {
                self.count_words(key.1, &page);
            }
            if is_whole && let Some(seen) = self.seen.get_mut(&reference.page) {
                seen.done = true;
            }
        }
        Ok(())
    }

    /// Whether a page and all below it was counted for another map.
    fn is_done(&self, place: Place, reference: PageRef) -> bool {
        self.seen
            .get(&reference.page)
            .is_some_and(|seen| seen.done && seen.place == place && seen.reference == reference)
    }

    /// Reads a page, unless it is damaged.
    fn read(&mut self, place: Place, reference: PageRef) -> Option<Box<Page>> {
        let number = reference.page;
        match self.seen.get(&number) {
            Some(seen) if seen.place != place || seen.reference != reference => {
                let (one, other) = (seen.place, place);
                self.findings.tangled(format!(
                    "page {number} is referenced as {:?} at position {} and as {:?} at position {}",
                    one.kind, one.position, other.kind, other.position
                ));
                return None;
            }
            Some(_) => {}
            None => {
                self.findings.pages += 1;
                self.usage.reference_page(number);
                let seen = Seen {
                    place,
                    reference,
                    done: false,
                };
                self.seen.insert(number, seen);
            }
        }
        match read_page(&self.store.medium, self.store.uuid, place, reference) {
            Ok(page) => Some(page),
            Err(damage) => {
                self.findings.bad_page(damage.to_string());
                None
            }
        }
    }

    fn count_entries(&mut self, map: &Map, key: Key, reference: PageRef, page: &Page) {
        let Some(entries) = get_leaf(page) else {
            self.usage.is_unreadable();
            let damage = super::super::format::page::senseless(place(MAP, key), reference);
            self.findings.bad_page(damage.to_string());
            return;
        };
        let first = key.1 * FANOUT as u32;
        let slots = self.store.bases.len();
        for (number, entry) in (first..).zip(entries.iter()).filter(|(n, _)| *n >= map.cursor) {
            if entry.parts().iter().any(|part| usize::from(part.slot) > slots) {
                self.findings.bad_page(format!(
                    "entry {number} of the map of {} names a base that the store does not have",
                    map.name
                ));
            }
            self.count_entry(map, number, *entry);
        }
    }

    fn count_entry(&mut self, map: &Map, number: u32, entry: Entry) {
        let births = &self.store.births;
        for cluster in entry
            .parts()
            .into_iter()
            .filter_map(super::super::entry::Part::local)
        {
            let counted = self.usage.reference(births, cluster, number, map.generation);
            let Err(misuse) = counted else { continue };
            let name = &map.name;
            self.findings.tangled(match misuse {
                Misuse::NoData => format!(
                    "entry {number} of the map of {name} names cluster {cluster}, where no data can be"
                ),
                Misuse::Twice(other) => format!(
                    "entry {number} of the map of {name} names cluster {cluster}, and so does entry {other} of a map"
                ),
            });
        }
    }

    fn count_words(&mut self, leaf: u32, page: &Page) {
        let first = u64::from(leaf) * SPACE_ENTRIES as u64;
        for (cluster, bytes) in (first..).zip(body(page).chunks_exact(4)) {
            // A damaged index may have leaves beyond the last cluster that any file can have.
            let Ok(cluster) = u32::try_from(cluster) else {
                break;
            };
            self.usage.table_says(cluster, get_u32(bytes, 0));
        }
    }
}

/// Numbers of the leaves that can be below a page.
fn leaves_below((level, number): Key) -> std::ops::Range<u32> {
    let width = (FANOUT as u32).saturating_pow(u32::from(level));
    let first = number.saturating_mul(width);
    first..first.saturating_add(width)
}

/// All maps, the oldest first: what it references was born then or before.
fn maps(subject: &Subject) -> Vec<Map> {
    let mut maps: Vec<Map> = subject
        .snapshots
        .iter()
        .map(|snapshot| Map {
            root: snapshot.map,
            generation: snapshot.generation,
            cursor: snapshot.cursor,
            name: format!("snapshot {:?}", snapshot.id),
        })
        .collect();
    maps.push(Map {
        root: subject.superblock.map,
        generation: subject.superblock.generation,
        cursor: 0,
        name: "the disk".to_owned(),
    });
    maps.sort_by_key(|map| map.generation);
    maps
}

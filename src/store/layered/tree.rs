//! Trees of pages on the medium: three levels of index pages over leaves, for maps and for the space table.
//!
//! Pages are never written in place. A checkpoint writes a changed leaf elsewhere and gives the tree its new reference;
//! [`Tree::write`] then writes the index pages above, up to a new root.

use std::collections::{BTreeMap, BTreeSet};

use super::format::page::{self, Kind, Page, PageDamage, Place, body, body_mut};
use super::format::{FANOUT, PAGE_BYTES, PageRef, Uuid};
use super::medium::Medium;

/// Level of the root; leaves have level 0.
pub(super) const TOP: u8 = 3;

/// Which tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TreeKind {
    pub(super) leaf: Kind,
    index: Kind,
}

/// A map of the virtual disk.
pub(super) const MAP: TreeKind = TreeKind {
    leaf: Kind::Map,
    index: Kind::MapIndex,
};
/// The space table.
pub(super) const SPACE: TreeKind = TreeKind {
    leaf: Kind::Space,
    index: Kind::SpaceIndex,
};

pub(super) type Node = [PageRef; FANOUT];
/// Level, and number among the pages of the level.
pub(super) type Key = (u8, u32);

/// A tree, whose index pages are in memory.
#[derive(Debug)]
pub(super) struct Tree {
    kind: TreeKind,
    root: PageRef,
    nodes: BTreeMap<Key, Box<Node>>,
    /// Index pages that differ from those on the medium.
    dirty: BTreeSet<Key>,
}

/// Reads a page and checks that it is the one that is meant.
///
/// # Errors
/// [`PageDamage`]: one that the medium does not give is damaged, too.
pub(super) fn read_page(
    medium: &impl Medium,
    uuid: Uuid,
    place: Place,
    reference: PageRef,
) -> Result<Box<Page>, PageDamage> {
    let mut page = page::blank();
    medium
        .read(reference.page.saturating_mul(PAGE_BYTES as u64), &mut page[..])
        .map_err(|error| page::unreadable(place, reference, &error))?;
    page::verify(&page, uuid, place, reference)?;
    Ok(page)
}

impl Tree {
    /// The tree below `root`, with all its index pages.
    ///
    /// # Errors
    /// [`PageDamage`].
    pub(super) fn load(
        medium: &impl Medium,
        kind: TreeKind,
        uuid: Uuid,
        root: PageRef,
    ) -> Result<Self, PageDamage> {
        Self::load_as_far(medium, kind, uuid, root, |_, damage| Err(damage))
    }

    /// The tree below `root`, without what lies below damaged index pages that `damaged` puts up with.
    ///
    /// # Errors
    /// [`PageDamage`].
    pub(super) fn load_as_far(
        medium: &impl Medium,
        kind: TreeKind,
        uuid: Uuid,
        root: PageRef,
        mut damaged: impl FnMut(Key, PageDamage) -> Result<(), PageDamage>,
    ) -> Result<Self, PageDamage> {
        let mut tree = Tree {
            kind,
            root,
            nodes: BTreeMap::new(),
            dirty: BTreeSet::new(),
        };
        let mut wanted = vec![((TOP, 0), root)];
        while let Some((key, reference)) = wanted.pop() {
            if !reference.is_some() {
                continue;
            }
            let page = match read_page(medium, uuid, tree.place(key), reference) {
                Ok(page) => page,
                Err(damage) => {
                    damaged(key, damage)?;
                    continue;
                }
            };
            let node = children(&page);
            if key.0 > 1 {
                let children = node.iter().enumerate();
                wanted.extend(children.map(|(index, child)| (child_key(key, index), *child)));
            }
            tree.nodes.insert(key, node);
        }
        Ok(tree)
    }

    /// As on the medium after the last [`Tree::write`].
    pub(super) fn root(&self) -> PageRef {
        self.root
    }

    /// Reference to a leaf; [`PageRef::NONE`] if there is none.
    pub(super) fn leaf(&self, leaf: u32) -> PageRef {
        let (key, index) = parent_of((0, leaf));
        self.nodes.get(&key).map_or(PageRef::NONE, |node| node[index])
    }

    /// All leaves, in order.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (u32, PageRef)> + '_ {
        self.nodes
            .range((1, 0)..(2, 0))
            .flat_map(|((_, number), node)| {
                let first = number * FANOUT as u32;
                node.iter()
                    .enumerate()
                    .map(move |(index, reference)| (first + index as u32, *reference))
            })
            .filter(|(_, reference)| reference.is_some())
    }

    /// All pages, index pages and leaves, each with its place.
    pub(super) fn pages(&self) -> impl Iterator<Item = (Key, PageRef)> + '_ {
        let below = self.nodes.iter().flat_map(|(key, node)| {
            let children = node.iter().enumerate();
            children.map(|(index, child)| (child_key(*key, index), *child))
        });
        std::iter::once(((TOP, 0), self.root))
            .chain(below)
            .filter(|(_, reference)| reference.is_some())
    }

    /// The reference to the page at a place.
    pub(super) fn page(&self, key: Key) -> PageRef {
        if key == (TOP, 0) {
            return self.root;
        }
        let (parent, index) = parent_of(key);
        self.nodes.get(&parent).map_or(PageRef::NONE, |node| node[index])
    }

    /// Replaces the reference to a leaf; returns the former one.
    pub(super) fn set_leaf(&mut self, leaf: u32, reference: PageRef) -> PageRef {
        let old = self.set((0, leaf), reference);
        let mut key = (0, leaf);
        while key.0 < TOP {
            key = parent_of(key).0;
            self.nodes
                .entry(key)
                .or_insert_with(|| Box::new([PageRef::NONE; FANOUT]));
            self.dirty.insert(key);
        }
        old
    }

    /// Places of the index pages that [`Tree::write`] will write if these leaves are set besides.
    pub(super) fn index_with(&self, leaves: impl Iterator<Item = u32>) -> BTreeSet<Key> {
        let mut keys = self.dirty.clone();
        for leaf in leaves {
            let mut key = (0, leaf);
            while key.0 < TOP {
                key = parent_of(key).0;
                keys.insert(key);
            }
        }
        keys
    }

    /// Lets `write` write every index page that has changed, lower levels first: it is given the page without header, and
    /// returns the reference. Returns the references that were replaced.
    ///
    /// # Errors
    /// The errors of `write`.
    pub(super) fn write<E>(
        &mut self,
        mut write: impl FnMut(&mut Page, Place) -> Result<PageRef, E>,
    ) -> Result<Vec<PageRef>, E> {
        let mut replaced = Vec::new();
        while let Some(key) = self.dirty.first().copied() {
            let mut page = page::blank();
            if let Some(node) = self.nodes.get(&key) {
                for (bytes, child) in body_mut(&mut page)
                    .chunks_exact_mut(PageRef::BYTES)
                    .zip(node.iter())
                {
                    child.put(bytes);
                }
            }
            let reference = write(&mut page, self.place(key))?;
            self.dirty.remove(&key);
            replaced.push(if key.0 == TOP {
                std::mem::replace(&mut self.root, reference)
            } else {
                self.set(key, reference)
            });
        }
        replaced.retain(|reference| reference.is_some());
        Ok(replaced)
    }

    /// What and where a page is.
    pub(super) fn place(&self, key: Key) -> Place {
        place(self.kind, key)
    }

    fn set(&mut self, key: Key, reference: PageRef) -> PageRef {
        let (parent, index) = parent_of(key);
        let node = self
            .nodes
            .entry(parent)
            .or_insert_with(|| Box::new([PageRef::NONE; FANOUT]));
        std::mem::replace(&mut node[index], reference)
    }
}

/// What and where a leaf is.
pub(super) fn leaf_place(kind: TreeKind, leaf: u32) -> Place {
    place(kind, (0, leaf))
}

/// The references in an index page.
pub(super) fn children(page: &Page) -> Box<Node> {
    let mut node = Box::new([PageRef::NONE; FANOUT]);
    for (bytes, child) in body(page).chunks_exact(PageRef::BYTES).zip(node.iter_mut()) {
        *child = PageRef::get(bytes);
    }
    node
}

/// What and where a page of a tree is.
pub(super) fn place(kind: TreeKind, (level, number): Key) -> Place {
    if level == 0 {
        Place {
            kind: kind.leaf,
            position: u64::from(number),
        }
    } else {
        Place {
            kind: kind.index,
            position: u64::from(level) << 32 | u64::from(number),
        }
    }
}

fn parent_of((level, number): Key) -> (Key, usize) {
    let fanout = FANOUT as u32;
    ((level + 1, number / fanout), (number % fanout) as usize)
}

/// Where a child of an index page is.
pub(super) fn child_key((level, number): Key, index: usize) -> Key {
    (level - 1, number * FANOUT as u32 + index as u32)
}

//! Changes single bytes and whole pages of a store's file behind its back, where wanted with the checksums above.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::document::{bytes, field, get, number, put, put_bytes, size};

/// A store's file, by page.
pub(crate) struct Editor(File);

/// A page in memory.
pub(crate) type Page = Vec<u8>;

impl Editor {
    pub(crate) fn of(path: impl AsRef<Path>) -> Self {
        Editor(File::options().read(true).write(true).open(path).unwrap())
    }

    pub(crate) fn page(&self, page: u64) -> Page {
        let mut bytes = vec![0; number("PAGE_BYTES") as usize];
        self.0
            .read_exact_at(&mut bytes, page * number("PAGE_BYTES"))
            .unwrap();
        bytes
    }

    pub(crate) fn write(&self, page: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, page * number("PAGE_BYTES")).unwrap();
    }

    pub(crate) fn flip(&self, page: u64, at: usize, bit: u8) {
        let mut bytes = self.page(page);
        bytes[at] ^= 1 << bit;
        self.write(page, &bytes);
    }

    /// Pages of the superblock's copies.
    pub(crate) fn copies(&self) -> [u64; 2] {
        let is_old = |page| get(&self.page(page), "Superblock", "version") == number("FIRST_VERSION");
        let first = number("FIRST_COPY_PAGE");
        if is_old(first) || is_old(number("MARK_PAGE")) {
            [first, number("MARK_PAGE")]
        } else {
            [first, number("SECOND_COPY_PAGE")]
        }
    }

    /// Of the copies of the superblock the other one.
    pub(crate) fn other_copy(&self, copy: u64) -> u64 {
        let [one, other] = self.copies();
        if copy == one { other } else { one }
    }

    /// Number and contents of the copy of the superblock that counts.
    pub(crate) fn superblock(&self) -> (u64, Page) {
        let copies = self.copies().map(|copy| (copy, self.page(copy)));
        copies
            .into_iter()
            .max_by_key(|(_, page)| get(page, "Superblock", "sequence"))
            .unwrap()
    }

    /// Pages from the root of a tree (`map` or `space`) of the superblock down to its leaf 0.
    pub(crate) fn path(&self, tree: &str) -> Vec<u64> {
        self.path_from(&self.superblock().1[field("Superblock", tree)])
    }

    /// Pages from a root down to leaf 0.
    pub(crate) fn path_from(&self, root: &[u8]) -> Vec<u64> {
        let mut path = vec![get(root, "Reference", "page")];
        for _ in 0..number("LEVELS") {
            let page = self.page(path[path.len() - 1]);
            path.push(get(&page[field("Page", "body")], "Reference", "page"));
        }
        assert!(!path.contains(&0), "the tree has a leaf 0");
        path
    }

    /// The page of a list (`snapshots` or `pins`) of the superblock.
    pub(crate) fn list(&self, list: &str) -> u64 {
        let (_, superblock) = self.superblock();
        get(&superblock[field("Superblock", list)], "Reference", "page")
    }

    /// Changes a page and all above it, so that only who understands it can tell.
    pub(crate) fn change_leaf(&self, tree: &str, change: impl FnOnce(&mut [u8])) {
        let path = self.path(tree);
        let leaf = path[path.len() - 1];
        let mut page = self.page(leaf);
        change(&mut page[field("Page", "body")]);
        let mut crc = seal(&mut page);
        self.write(leaf, &page);
        for number in path.iter().rev().skip(1) {
            let mut page = self.page(*number);
            put(&mut page[field("Page", "body")], "Reference", "crc", crc);
            crc = seal(&mut page);
            self.write(*number, &page);
        }
        self.change_superblock(|superblock| {
            put(
                &mut superblock[field("Superblock", tree)],
                "Reference",
                "crc",
                crc,
            );
        });
    }

    pub(crate) fn change_superblock(&self, change: impl FnOnce(&mut [u8])) {
        let (copy, mut superblock) = self.superblock();
        change(&mut superblock);
        seal_superblock(&mut superblock);
        self.write(copy, &superblock);
    }

    /// Changes the word of a cluster in the space table.
    pub(crate) fn change_word(&self, cluster: u64, word: u32) {
        assert!(cluster < number("SPACE_ENTRIES"));
        self.change_leaf("space", |body| {
            let at = cluster as usize * 4;
            body[at..at + 4].copy_from_slice(&word.to_le_bytes());
        });
    }

    /// The word of a cluster in the space table.
    pub(crate) fn word(&self, cluster: u64) -> u32 {
        let path = self.path("space");
        let page = self.page(path[path.len() - 1]);
        let at = field("Page", "body").start + cluster as usize * 4;
        u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
    }

    /// The physical cluster of the front of an entry of the disk's map.
    pub(crate) fn front(&self, entry: usize) -> u64 {
        let path = self.path("map");
        let page = self.page(path[path.len() - 1]);
        let at = field("Page", "body").start + entry * size("Entry");
        get(&page[at..], "Entry", "front cluster")
    }

    /// First page of a physical cluster.
    pub(crate) fn first_page(cluster: u64) -> u64 {
        cluster * number("CLUSTER_BYTES") / number("PAGE_BYTES")
    }
}

/// Completes a page.
pub(crate) fn seal(page: &mut [u8]) -> u64 {
    put_bytes(page, "Page", "magic", &bytes("PAGE_MAGIC"));
    checksum(page, "Page")
}

/// Completes a superblock.
pub(crate) fn seal_superblock(page: &mut [u8]) {
    put_bytes(page, "Superblock", "magic", &bytes("SUPERBLOCK_MAGIC"));
    checksum(page, "Superblock");
}

fn checksum(page: &mut [u8], kind: &str) -> u64 {
    put(page, kind, "crc", 0);
    let crc = u64::from(crc32c::crc32c(page));
    put(page, kind, "crc", crc);
    crc
}

//! Builds a store from the document's tables: a disk with one snapshot, and records on top. It is of the present version
//! or of the first one.

use crate::document::{bytes, field, get, number, put, put_bytes, size};
use crate::editor::{Editor, seal, seal_superblock};
use crate::rig::{BLOCK, BOOT, Rig};

/// Identity of the store.
const UUID: [u8; 16] = [0x5e; 16];
/// The snapshot, and what else has an id.
pub(crate) const SNAPSHOT: &[u8; 16] = b"0000000000000one";
/// Clusters of the journal. In the present version one of them is no part of the ring, and one comes behind it.
const JOURNAL: u64 = 17;
/// Records of a cluster.
const CLUSTER_RECORDS: u64 = 1024;
/// Number of the first record: behind it and the next one the ring begins anew, in either version.
const FIRST_RECORD: u64 = JOURNAL * (JOURNAL - 1) * CLUSTER_RECORDS - 2;
/// Generation of the disk; the snapshot ended the one before.
const GENERATION: u64 = 9;
/// Incarnation of the records.
const INCARNATION: u64 = 4;
/// Size of the disk in sectors.
pub(crate) const SECTORS: u64 = 1 << 17;

/// First cluster with data.
pub(crate) fn first_data() -> u64 {
    arena() + 1
}

fn arena() -> u64 {
    number("JOURNAL_CLUSTER") + JOURNAL
}

/// A record's kind and payload.
pub(crate) struct Record(pub(crate) &'static str, pub(crate) Vec<u8>);

impl Record {
    /// With numbers in fields.
    pub(crate) fn with(kind: &'static str, table: &str, fields: &[(&str, u64)]) -> Self {
        let mut payload = vec![0; field("Record", "payload").len()];
        for (name, value) in fields {
            put(&mut payload, table, name, *value);
        }
        Record(kind, payload)
    }

    pub(crate) fn and(mut self, table: &str, name: &str, value: &[u8]) -> Self {
        put_bytes(&mut self.1, table, name, value);
        self
    }
}

/// An entry whose blocks lie in one cluster, or in two.
pub(crate) fn entry(front: (u64, u64), back: (u64, u64)) -> Vec<u8> {
    let mut entry = vec![0; size("Entry")];
    put(&mut entry, "Entry", "front cluster", front.0);
    put(&mut entry, "Entry", "front mask", front.1);
    put(&mut entry, "Entry", "back cluster", back.0);
    put(&mut entry, "Entry", "back mask", back.1);
    entry
}

/// Writes pages one after another into the arena.
struct Arena<'a> {
    editor: &'a Editor,
    next: u64,
}

impl Arena<'_> {
    fn page(&mut self, kind: &str, position: u64, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut page = vec![0; number("PAGE_BYTES") as usize];
        let generation = GENERATION - 1;
        put(&mut page, "Page", "kind", number(kind));
        put(&mut page, "Page", "generation", generation);
        put_bytes(&mut page, "Page", "uuid", &UUID);
        put(&mut page, "Page", "page", self.next);
        put(&mut page, "Page", "position", position);
        fill(&mut page);
        let crc = seal(&mut page);
        self.editor.write(self.next, &page);
        let mut reference = vec![0; size("Reference")];
        put(&mut reference, "Reference", "page", self.next);
        put(&mut reference, "Reference", "crc", crc);
        put(&mut reference, "Reference", "generation", generation);
        self.next += 1;
        reference
    }

    /// A tree with one leaf, number 0. Returns the reference to its root.
    fn tree(&mut self, leaf: &str, index: &str, body: &[u8]) -> Vec<u8> {
        let into = |page: &mut [u8], bytes: &[u8]| put_bytes(page, "Page", "body", bytes);
        let mut reference = self.page(leaf, 0, |page| into(page, body));
        for level in 1..=number("LEVELS") {
            reference = self.page(index, level << 32, |page| into(page, &reference));
        }
        reference
    }

    fn list(&mut self, kind: &str, item: &[u8]) -> Vec<u8> {
        self.page(kind, 0, |page| {
            put(page, "List", "count", 1);
            put_bytes(page, "List", "items", item);
        })
    }
}

/// What stores may differ in.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Of the format.
    version: u64,
    /// Of the superblock.
    sequence: u64,
    first_record: u64,
}

impl Layout {
    /// Of the present version.
    pub(crate) fn present() -> Self {
        Layout {
            version: number("VERSION"),
            sequence: 11,
            first_record: FIRST_RECORD,
        }
    }

    /// With two records before the gap in the journal; the others come behind it.
    pub(crate) fn across_the_gap() -> Self {
        Layout {
            first_record: before_the_gap(),
            ..Layout::present()
        }
    }

    /// Of the first version; the only copy of the superblock has this sequence.
    pub(crate) fn first_version(sequence: u64) -> Self {
        Layout {
            version: number("FIRST_VERSION"),
            sequence,
            ..Layout::present()
        }
    }

    /// Of the first version, with records in the cluster that is the gap later.
    pub(crate) fn first_version_in_the_gap() -> Self {
        Layout {
            first_record: before_the_gap(),
            ..Layout::first_version(11)
        }
    }

    /// Number of a record that comes so many after the first.
    pub(crate) fn record_number(self, index: u64) -> u64 {
        self.first_record + index
    }

    fn is_first(self) -> bool {
        self.version == number("FIRST_VERSION")
    }

    fn superblock_page(self) -> u64 {
        match (self.sequence % 2, self.is_first()) {
            (0, _) => number("FIRST_COPY_PAGE"),
            (_, true) => number("MARK_PAGE"),
            (_, false) => number("SECOND_COPY_PAGE"),
        }
    }

    /// The cluster that a record lies in, and its number there.
    fn record_place(self, sequence: u64) -> (u64, u64) {
        let clusters = if self.is_first() { JOURNAL } else { JOURNAL - 1 };
        let index = sequence % (clusters * CLUSTER_RECORDS);
        let cluster = number("JOURNAL_CLUSTER") + index / CLUSTER_RECORDS;
        let behind = !self.is_first() && cluster >= number("GAP_CLUSTER");
        (cluster + u64::from(behind), index % CLUSTER_RECORDS)
    }
}

/// Number of a record that has one between itself and the gap.
fn before_the_gap() -> u64 {
    let clusters = number("GAP_CLUSTER") - number("JOURNAL_CLUSTER");
    FIRST_RECORD + clusters * CLUSTER_RECORDS
}

/// A store whose disk and snapshot have `entries`, and whose journal has `records`. `data` lies in the clusters from
/// [`first_data`] on, block by block; those that the map has are the snapshot's.
pub(crate) fn build(
    layout: Layout,
    entries: &[(usize, Vec<u8>)],
    data: &[(u64, u64, u8)],
    records: &[Record],
) -> Rig {
    let rig = Rig::new();
    let clusters = first_data() + 40;
    let file = std::fs::File::create(rig.path()).unwrap();
    file.set_len(clusters * number("CLUSTER_BYTES")).unwrap();
    let editor = Editor::of(rig.path());
    for (cluster, block, byte) in data {
        editor.write(
            Editor::first_page(first_data() + cluster) + block,
            &[*byte; BLOCK],
        );
    }
    let mut arena = Arena {
        editor: &editor,
        next: Editor::first_page(arena()),
    };
    let first = arena.next;
    let mut leaf = vec![0; number("FANOUT") as usize * size("Entry")];
    let mut words = vec![0u32; number("SPACE_ENTRIES") as usize];
    for (at, entry) in entries {
        leaf[at * entry.len()..][..entry.len()].copy_from_slice(entry);
        for part in ["front", "back"] {
            let cluster = get(entry, "Entry", &format!("{part} cluster"));
            words[cluster as usize] = u32::from(cluster != 0) * (GENERATION - 1) as u32;
        }
    }
    let map = arena.tree("KIND_MAP", "KIND_MAP_INDEX", &leaf);
    let mut snapshot = vec![0; size("Snapshot")];
    put_bytes(&mut snapshot, "Snapshot", "id", SNAPSHOT);
    put(&mut snapshot, "Snapshot", "generation", GENERATION - 1);
    put(&mut snapshot, "Snapshot", "sectors", SECTORS / 2);
    put_bytes(&mut snapshot, "Snapshot", "map", &map);
    let snapshots = arena.list("KIND_SNAPSHOTS", &snapshot);
    let mut pin = vec![0; size("Pin")];
    put_bytes(&mut pin, "Pin", "snapshot", SNAPSHOT);
    put_bytes(&mut pin, "Pin", "disk", b"000000000pinning");
    let pins = arena.list("KIND_PINS", &pin);
    // The pages of the table itself come last, one for each level and the leaf.
    let used = arena.next - first + number("LEVELS") + 1;
    words[self::arena() as usize] = number("ARENA_FLAG") as u32 | ((1u64 << used) - 1) as u32;
    let words: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    let space = arena.tree("KIND_SPACE", "KIND_SPACE_INDEX", &words);

    let mut superblock = vec![0; number("PAGE_BYTES") as usize];
    for (name, value) in [
        ("version", layout.version),
        ("sequence", layout.sequence),
        ("sectors", SECTORS),
        ("incarnation", INCARNATION),
        ("generation", GENERATION),
        ("journal clusters", JOURNAL),
        ("clusters", clusters),
        ("journal start", layout.first_record),
        ("committed", layout.first_record),
        ("snapshot pages", 1),
        ("pin pages", 1),
        ("operations", 1),
    ] {
        put(&mut superblock, "Superblock", name, value);
    }
    for (name, value) in [
        ("uuid", &UUID[..]),
        ("boot", &BOOT),
        ("parent", SNAPSHOT),
        ("map", &map),
        ("space", &space),
        ("disk", b"00000000000adisk"),
        ("lineage", b"00000000alineage"),
        ("snapshots", &snapshots),
        ("pins", &pins),
        ("operation ids", b"0000000000before"),
    ] {
        put_bytes(&mut superblock, "Superblock", name, value);
    }
    seal_superblock(&mut superblock);
    // The other copy was never written.
    editor.write(layout.superblock_page(), &superblock);
    if !layout.is_first() {
        editor.write(number("MARK_PAGE"), &mark());
    }
    for (sequence, record) in (layout.first_record..).zip(records) {
        write_record(&editor, layout, sequence, record);
    }
    rig
}

/// What programs of the first version find in place of a copy of the superblock.
pub(crate) fn mark() -> Vec<u8> {
    let mut mark = vec![0; number("PAGE_BYTES") as usize];
    put_bytes(&mut mark, "Mark", "magic", &bytes("SUPERBLOCK_MAGIC"));
    put(&mut mark, "Mark", "version", number("VERSION"));
    mark
}

fn write_record(editor: &Editor, layout: Layout, sequence: u64, Record(kind, payload): &Record) {
    let mut record = vec![0; size("Record")];
    put(&mut record, "Record", "kind", number(kind));
    put(&mut record, "Record", "incarnation", INCARNATION);
    put(&mut record, "Record", "sequence", sequence);
    put_bytes(&mut record, "Record", "payload", payload);
    let covered = &record[field("Record", "crc").end..];
    let crc = crc32c::crc32c_append(crc32c::crc32c(&UUID), covered);
    put(&mut record, "Record", "crc", u64::from(crc));
    assert_eq!(CLUSTER_RECORDS, number("CLUSTER_BYTES") / record.len() as u64);
    let (cluster, within) = layout.record_place(sequence);
    let at = within * record.len() as u64;
    let page = Editor::first_page(cluster) + at / number("PAGE_BYTES");
    let mut bytes = editor.page(page);
    let within = (at % number("PAGE_BYTES")) as usize;
    bytes[within..within + record.len()].copy_from_slice(&record);
    editor.write(page, &bytes);
}

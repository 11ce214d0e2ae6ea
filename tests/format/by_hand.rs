//! A store that the program has never touched is read as the document says.

use sealblk::store::layered::{Base, NewStore, OpenLayered, Operation, Uuid};

use sealblk::units::{ByteLen, Capacity, SECTOR_BYTES};

use crate::build::{Layout, Record, SECTORS, SNAPSHOT, build, entry, first_data, mark};
use crate::document::{field, get, number};
use crate::editor::Editor;
use crate::rig::{BOOT, CLUSTER, Rig, Store, id, operate, read, write};

const OTHER_BOOT: [u8; 16] = [8; 16];

/// Entries 1 and 3, of which the latter lies in two clusters; and what the records below put into entries 5 and 6.
fn with(records: &[Record]) -> Rig {
    with_layout(Layout::present(), records)
}

fn with_layout(layout: Layout, records: &[Record]) -> Rig {
    let first = first_data();
    build(
        layout,
        &[
            (1, entry((first, 0b11), (0, 0))),
            (3, entry((first + 1, 0b001), (first + 2, 0b110))),
        ],
        &[
            (0, 0, 10),
            (0, 1, 11),
            (1, 0, 30),
            (2, 1, 31),
            (2, 2, 32),
            (3, 4, 54),
            (4, 15, 65),
        ],
        records,
    )
}

/// A record of a first write to a cluster of the disk.
fn written(cluster: u64, to: u64, mask: u64) -> Record {
    let fields = [("cluster", cluster), ("fresh", 1)];
    let entry = entry((first_data() + to, mask), (0, 0));
    Record::with("RECORD_MAP", "Record map", &fields).and("Record map", "entry", &entry)
}

fn committed(upto: u64) -> Record {
    committed_in(Layout::present(), upto)
}

fn committed_in(layout: Layout, upto: u64) -> Record {
    let fields = [("upto", layout.record_number(upto))];
    Record::with("RECORD_COMMIT", "Record commit", &fields)
}

fn operation(kind: &'static str, name: &str, snapshot: &[u8]) -> Record {
    let table = "Record of an operation";
    let name = format!("{name:0>16}");
    Record::with(kind, table, &[])
        .and(table, "operation", name.as_bytes())
        .and(table, "snapshot", snapshot)
}

#[test]
fn pages_are_as_the_document_says() {
    let rig = with(&[]);
    let store = rig.open().unwrap();
    let blocks = [
        (CLUSTER, 10),
        (CLUSTER + 1, 11),
        (CLUSTER + 2, 0),
        (3 * CLUSTER, 30),
        (3 * CLUSTER + 1, 31),
        (3 * CLUSTER + 2, 32),
        (5 * CLUSTER + 4, 0),
        (0, 0),
    ];
    for (block, byte) in blocks {
        assert_eq!(read(&store, block).unwrap(), byte, "block {block}");
    }
    assert_eq!(store.sectors(), SECTORS);
    assert!(store.was_made(id("before")));
    let report = store.report().unwrap();
    assert_eq!(report.snapshots.len(), 1);
    let snapshot = &report.snapshots[0];
    assert_eq!((&snapshot.id.0, snapshot.sectors), (SNAPSHOT, SECTORS / 2));
    assert_eq!(snapshot.pins, [id("pinning")]);
    assert!(!snapshot.hidden);
    let findings = store.check_all(false).unwrap();
    // That there was one copy of the superblock only.
    assert_eq!(
        (findings.bad_pages, findings.findings.len()),
        (1, 1),
        "{findings:?}"
    );
    // The snapshot's blocks are shared, and stay as they are.
    write(&store, CLUSTER, 77).unwrap();
    assert_eq!(
        (read(&store, CLUSTER).unwrap(), read(&store, CLUSTER + 1).unwrap()),
        (77, 11)
    );
    assert!(store.check_all(false).unwrap().is_clean());
}

#[test]
fn after_a_power_cut_records_count_up_to_the_mark() {
    let records = [written(5, 3, 1 << 4), committed(1), written(6, 4, 1 << 15)];
    let rig = with(&records);
    let store = rig.open_after(OTHER_BOOT).unwrap();
    assert_eq!(read(&store, 5 * CLUSTER + 4).unwrap(), 54);
    assert_eq!(read(&store, 6 * CLUSTER + 15).unwrap(), 0);
    assert_eq!(store.check_all(false).unwrap().leaked, 0);
}

#[test]
fn under_the_same_boot_all_records_count() {
    let records = [written(5, 3, 1 << 4), committed(1), written(6, 4, 1 << 15)];
    let rig = with(&records);
    let store = rig.open_after(BOOT).unwrap();
    assert_eq!(read(&store, 5 * CLUSTER + 4).unwrap(), 54);
    assert_eq!(read(&store, 6 * CLUSTER + 15).unwrap(), 65);
    assert_eq!(store.check_all(false).unwrap().leaked, 0);
}

#[test]
fn records_of_every_kind_are_as_the_document_says() {
    let table = "Record of an operation";
    let sectors = (SECTORS * 2).to_le_bytes();
    let disk = *b"0000000anotherid";
    let pin = |kind, disk: &[u8]| {
        Record::with(kind, "Record of a pin", &[])
            .and("Record of a pin", "snapshot", SNAPSHOT)
            .and("Record of a pin", "disk", disk)
    };
    let clear = [("first", 1), ("count", 1)];
    let records = [
        written(5, 3, 1 << 4),
        operation("RECORD_SNAPSHOT", "taken", b"0000000000000two"),
        Record::with("RECORD_CLEAR", "Record clear", &clear),
        operation("RECORD_RESIZE", "grown", &[]).and(table, "sectors", &sectors),
        pin("RECORD_PIN", &disk),
        pin("RECORD_UNPIN", b"000000000pinning"),
        operation("RECORD_DELETE", "deleted", b"0000000000000two"),
    ];
    let rig = with(&records);
    let store = rig.open().unwrap();
    assert_eq!(read(&store, CLUSTER).unwrap(), 0, "it was cleared");
    assert_eq!(read(&store, 5 * CLUSTER + 4).unwrap(), 54);
    assert_eq!(store.sectors(), SECTORS * 2);
    for made in ["before", "taken", "grown", "deleted"] {
        assert!(store.was_made(id(made)), "{made}");
    }
    let report = store.report().unwrap();
    let snapshot = |name| {
        report
            .snapshots
            .iter()
            .find(|snapshot| snapshot.id == id(name))
            .unwrap()
    };
    assert_eq!(snapshot("one").pins, [id("anotherid")]);
    assert!(snapshot("two").hidden && !snapshot("one").hidden);
    assert_eq!(snapshot("two").parent, id("one"));
    store.work().unwrap();
    let findings = store.check_all(false).unwrap();
    assert_eq!((findings.leaked, findings.double_used), (0, 0), "{findings:?}");
    // Only the deleted one had what was cleared, and it is not gone from the first.
    operate(&store, "back", Operation::Rollback(id("one")));
    assert_eq!(read(&store, CLUSTER).unwrap(), 10);
}

#[test]
fn a_rollback_in_the_journal_goes_back() {
    let rig = with(&[
        written(5, 3, 1 << 4),
        operation("RECORD_ROLLBACK", "rolled", SNAPSHOT),
        written(6, 4, 1 << 15),
    ]);
    let store = rig.open().unwrap();
    assert_eq!(read(&store, 5 * CLUSTER + 4).unwrap(), 0);
    assert_eq!(read(&store, 6 * CLUSTER + 15).unwrap(), 65);
    assert_eq!(read(&store, CLUSTER).unwrap(), 10);
    store.work().unwrap();
    assert_eq!(store.check_all(false).unwrap().leaked, 0);
}

#[test]
fn a_reinitialisation_in_the_journal_empties_the_disk() {
    let rig = with(&[
        operation("RECORD_REINITIALISE", "emptied", &[]),
        written(6, 4, 1 << 15),
    ]);
    let store = rig.open().unwrap();
    assert_eq!(read(&store, CLUSTER).unwrap(), 0);
    assert_eq!(read(&store, 6 * CLUSTER + 15).unwrap(), 65);
}

#[test]
fn a_deletion_in_the_journal_goes_on_where_it_was() {
    let freed = (first_data() as u32).to_le_bytes();
    let fields = [("generation", 8), ("cursor", 2)];
    // The disk has given up entry 1 before, so that the snapshot is the last to have it.
    let rig = with(&[
        Record::with("RECORD_CLEAR", "Record clear", &[("first", 1), ("count", 1)]),
        Record::with("RECORD_UNPIN", "Record of a pin", &[])
            .and("Record of a pin", "snapshot", SNAPSHOT)
            .and("Record of a pin", "disk", b"000000000pinning"),
        operation("RECORD_DELETE", "deleted", SNAPSHOT),
        Record::with("RECORD_FREE", "Record free", &fields).and("Record free", "freed", &freed),
    ]);
    let store = rig.open().unwrap();
    let before = store.check_all(false).unwrap();
    assert_eq!((before.leaked, before.double_used), (0, 0), "{before:?}");
    store.work().unwrap();
    assert!(store.report().unwrap().snapshots.is_empty());
    assert!(store.check_all(false).unwrap().is_clean());
    assert_eq!(read(&store, 3 * CLUSTER + 1).unwrap(), 31);
}

#[test]
fn records_go_round_the_second_copy_of_the_superblock() {
    let records = [
        written(5, 3, 1 << 4),
        committed_in(Layout::across_the_gap(), 1),
        written(6, 4, 1 << 15),
        committed_in(Layout::across_the_gap(), 3),
    ];
    let rig = with_layout(Layout::across_the_gap(), &records);
    let store = rig.open_after(OTHER_BOOT).unwrap();
    assert_eq!(read(&store, 5 * CLUSTER + 4).unwrap(), 54);
    assert_eq!(read(&store, 6 * CLUSTER + 15).unwrap(), 65);
}

/// Of the first version: what its journal has, with records where the second copy of the superblock lies later, and with
/// the only copy of the superblock in either place.
fn of_the_first_version() -> [Rig; 3] {
    let layouts = [
        Layout::first_version(11),
        Layout::first_version(12),
        Layout::first_version_in_the_gap(),
    ];
    layouts.map(|layout| {
        let records = [
            written(5, 3, 1 << 4),
            committed_in(layout, 1),
            written(6, 4, 1 << 15),
            committed_in(layout, 3),
        ];
        with_layout(layout, &records)
    })
}

fn must_have_all(store: &Store) {
    let blocks = [
        (CLUSTER, 10),
        (CLUSTER + 1, 11),
        (3 * CLUSTER + 2, 32),
        (5 * CLUSTER + 4, 54),
        (6 * CLUSTER + 15, 65),
        (0, 0),
    ];
    for (block, byte) in blocks {
        assert_eq!(read(store, block).unwrap(), byte, "block {block}");
    }
}

#[test]
fn a_store_of_the_first_version_becomes_one_of_the_present() {
    for rig in of_the_first_version() {
        let store = rig.open_after(OTHER_BOOT).unwrap();
        must_have_all(&store);
        let findings = store.check_all(false).unwrap();
        // The other copy of the superblock was never written.
        assert_eq!(
            (findings.bad_pages, findings.findings.len()),
            (1, 1),
            "{findings:?}"
        );
        drop(store);
        let editor = Editor::of(rig.path());
        for copy in ["FIRST_COPY_PAGE", "SECOND_COPY_PAGE"] {
            let page = editor.page(number(copy));
            assert_eq!(get(&page, "Superblock", "version"), number("VERSION"), "{copy}");
        }
        // Where a program of the first version looks.
        assert_eq!(editor.page(number("MARK_PAGE")), mark());
        let store = rig.open().unwrap();
        must_have_all(&store);
        write(&store, CLUSTER, 77).unwrap();
        assert!(store.check_all(false).unwrap().is_clean());
        operate(&store, "back", Operation::Rollback(id("one")));
        assert_eq!(read(&store, CLUSTER).unwrap(), 10);
    }
}

/// A device that was another store of the present version once, and then one of the first: what the other one has left
/// counts for nothing, even if one copy of the superblock is lost.
#[test]
fn a_store_of_the_first_version_has_nothing_of_another_one() {
    let records = [written(5, 3, 1 << 4), written(6, 4, 1 << 15)];
    let rig = with_layout(Layout::first_version(11), &records);
    let second = number("SECOND_COPY_PAGE");
    let theirs = Editor::of(Rig::with_store(9).path()).page(second);
    Editor::of(rig.path()).write(second, &theirs);
    must_have_all(&rig.open().unwrap());
}

#[test]
fn a_new_store_shows_its_version_where_programs_of_the_first_look() {
    let rig = Rig::with_store(1);
    assert_eq!(Editor::of(rig.path()).page(number("MARK_PAGE")), mark());
}

/// A base may be older than its clones, and is never written by who reads it.
#[test]
fn a_store_of_the_first_version_is_a_base_as_it_is() {
    for base in of_the_first_version() {
        let before = std::fs::read(base.path()).unwrap();
        let clone = Rig::new();
        std::fs::File::create(clone.path()).unwrap();
        let new = NewStore {
            uuid: Uuid([9; 16]),
            capacity: Capacity::new(ByteLen(SECTORS * SECTOR_BYTES as u64)).unwrap(),
            disk: id("clone"),
            lineage: id("lineage"),
        };
        let medium = base.medium();
        let snapshot = Base {
            medium: &medium,
            snapshot: id("one"),
        };
        new.create(&clone.medium(), Some(&snapshot)).unwrap();
        let open = || {
            let options = OpenLayered {
                boot: BOOT,
                load: true,
            };
            options.open(clone.medium(), vec![base.medium()]).unwrap()
        };
        let store = open();
        assert_eq!(read(&store, 3 * CLUSTER + 1).unwrap(), 31);
        write(&store, 3 * CLUSTER + 1, 99).unwrap();
        drop(store);
        assert!(std::fs::read(base.path()).unwrap() == before);
        // Nor does it matter that the base becomes one of the present version.
        drop(base.open_after(OTHER_BOOT).unwrap());
        let store = open();
        assert_eq!(read(&store, 3 * CLUSTER + 1).unwrap(), 99);
        assert_eq!(read(&store, CLUSTER + 1).unwrap(), 11);
    }
}

#[test]
fn structures_are_as_long_as_the_document_says() {
    let ends = |table: &str, last: &str| field(table, last).end as u64;
    let number = crate::document::number;
    assert_eq!(ends("Page", "body"), number("PAGE_BYTES"));
    let body = field("Page", "body").len() as u64;
    assert_eq!(body, number("FANOUT") * ends("Reference", "generation"));
    assert_eq!(body, number("FANOUT") * ends("Entry", "back reserved"));
    assert_eq!(body, number("SPACE_ENTRIES") * 4);
    assert_eq!(number("PAGE_BYTES"), number("BLOCK_BYTES"));
    assert_eq!(number("SECTOR_BYTES") % ends("Record", "payload"), 0);
}

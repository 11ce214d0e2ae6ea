//! Damage to every kind of page: it is found at open or by an examination, and named.

use sealblk::store::layered::{LayeredError, NewStore, Operation, Uuid};
use sealblk::units::{ByteLen, Capacity};

use crate::document::{field, get, number, put};
use crate::editor::{Editor, seal, seal_superblock};
use crate::rig::{BOOT, CLUSTER, Rig, SIZE, id, operate, read, write};

/// That of a host that has lost power since.
const OTHER_BOOT: [u8; 16] = [9; 16];

/// A store with data, a pinned snapshot, and writes after it.
fn store(uuid: u8) -> Rig {
    let rig = Rig::with_store(uuid);
    let store = rig.open().unwrap();
    for number in 0..3 {
        write(&store, number * CLUSTER, 1 + number as u8).unwrap();
    }
    operate(&store, "snapshot", Operation::Snapshot(id("one")));
    let pin = Operation::Pin {
        id: id("one"),
        disk: id("clone"),
    };
    operate(&store, "pin", pin);
    write(&store, 0, 11).unwrap();
    write(&store, 3 * CLUSTER, 14).unwrap();
    store.checkpoint_now().unwrap();
    rig
}

/// Every page that the superblock leads to, with a name.
fn pages(editor: &Editor) -> Vec<(String, u64)> {
    let mut pages = vec![
        ("snapshots".to_owned(), editor.list("snapshots")),
        ("pins".to_owned(), editor.list("pins")),
    ];
    let snapshot = editor.page(editor.list("snapshots"));
    let items = field("List", "items").start;
    let map = field("Snapshot", "map");
    let root = &snapshot[items + map.start..items + map.end];
    let trees = [
        ("map", editor.path("map")),
        ("space", editor.path("space")),
        ("snapshot", editor.path_from(root)),
    ];
    for (tree, path) in trees {
        for (level, page) in path.into_iter().rev().enumerate() {
            pages.push((format!("{tree} {level}"), page));
        }
    }
    pages
}

/// Opens a store of which `page` is damaged. The damage must be named; what can be read is what was written.
fn must_be_found(rig: &Rig, what: &str, page: u64) {
    let is_named = |text: &str| text.contains(&format!("page {page} "));
    match rig.open() {
        Err(error) => assert!(is_named(&error.to_string()), "{what}: {error}"),
        Ok(store) => {
            for (block, byte) in [(0, 11), (CLUSTER, 2), (2 * CLUSTER, 3), (3 * CLUSTER, 14), (1, 0)] {
                if let Ok(found) = read(&store, block) {
                    assert_eq!(found, byte, "{what}");
                }
            }
            let found = store.check_all(false).unwrap();
            assert!(found.bad_pages > 0, "{what}: {found:?}");
            assert!(
                found.findings.iter().any(|finding| is_named(finding)),
                "{what}: {found:?}"
            );
            assert_eq!(found.leaked + found.double_used, 0, "{what}: {found:?}");
        }
    }
    match rig.maintain() {
        Err(error) => assert!(is_named(&error.to_string()), "{what}: {error}"),
        Ok(store) => {
            let found = store.check_all(false).unwrap();
            assert!(
                what.starts_with("superblock") || found.bad_pages > 0,
                "{what}: {found:?}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_in_any_page_is_found() {
    let rig = store(1);
    let count = pages(&Editor::of(rig.path())).len();
    assert_eq!(count, 2 + 3 * 4);
    for index in 0..count {
        for at in [0, 4, 9, 20, 33, 47, 64, 4095] {
            let rig = store(1);
            let editor = Editor::of(rig.path());
            let (what, page) = pages(&editor).swap_remove(index);
            editor.flip(page, at, (at % 8) as u8);
            must_be_found(&rig, &what, page);
        }
    }
}

#[test]
fn a_torn_page_is_found() {
    for index in 0..2 + 3 * 4 {
        let rig = store(1);
        let editor = Editor::of(rig.path());
        let (what, page) = pages(&editor).swap_remove(index);
        let mut bytes = editor.page(page);
        bytes[..512].copy_from_slice(&[0; 512]);
        editor.write(page, &bytes);
        must_be_found(&rig, &what, page);
    }
}

#[test]
fn pages_that_changed_places_and_pages_of_another_store_are_found() {
    for index in 0..2 + 3 * 4 {
        let rig = store(1);
        let editor = Editor::of(rig.path());
        let all = pages(&editor);
        let ((what, page), (_, next)) = (&all[index], &all[(index + 1) % all.len()]);
        let (one, other) = (editor.page(*page), editor.page(*next));
        editor.write(*page, &other);
        editor.write(*next, &one);
        let error = rig.open().err().map(|error| error.to_string());
        if let Some(error) = error {
            let named = [page, next]
                .iter()
                .any(|page| error.contains(&format!("page {page} ")));
            assert!(named, "{what}: {error}");
        } else {
            assert!(
                rig.open().unwrap().check_all(false).unwrap().bad_pages > 0,
                "{what}"
            );
        }

        let (rig, foreign) = (store(1), store(2));
        let (editor, theirs) = (Editor::of(rig.path()), Editor::of(foreign.path()));
        let (what, page) = pages(&editor).swap_remove(index);
        editor.write(page, &theirs.page(page));
        must_be_found(&rig, &what, page);
    }
}

/// An older version of a page that is right in itself, as a medium leaves it that has lost a write.
#[test]
fn a_stale_page_is_found() {
    for index in 0..2 + 3 * 4 {
        let rig = store(1);
        let editor = Editor::of(rig.path());
        let (what, page) = pages(&editor).swap_remove(index);
        let mut stale = editor.page(page);
        let at = field("Page", "body").start + 100;
        stale[at] ^= 1;
        seal(&mut stale);
        editor.write(page, &stale);
        must_be_found(&rig, &what, page);
    }
}

#[test]
fn a_damaged_copy_of_the_superblock_is_told_and_written_anew() {
    for newest in [true, false] {
        let rig = store(1);
        let editor = Editor::of(rig.path());
        let (copy, _) = editor.superblock();
        let page = if newest { copy } else { editor.other_copy(copy) };
        editor.flip(page, 200, 3);
        must_be_found(&rig, "superblock", page);
        let store = rig.open().unwrap();
        assert!(store.check_all(false).unwrap().is_clean());
        // While it is open.
        editor.flip(page, 200, 3);
        let found = store.check_all(false).unwrap();
        assert_eq!((found.bad_pages, found.repaired), (1, 1), "{found:?}");
        assert!(store.check_all(false).unwrap().is_clean());
    }
    let rig = store(1);
    let editor = Editor::of(rig.path());
    for copy in editor.copies() {
        editor.flip(copy, 200, 3);
    }
    assert!(matches!(rig.open(), Err(LayeredError::Superblock(_))));
    assert!(matches!(rig.maintain(), Err(LayeredError::Superblock(_))));
}

/// After a checkpoint both copies lead to it, so that the other one needs nothing of the journal.
#[test]
fn a_damaged_copy_takes_nothing_away_even_with_a_damaged_journal() {
    for copy in ["FIRST_COPY_PAGE", "SECOND_COPY_PAGE"].map(number) {
        for boot in [BOOT, OTHER_BOOT] {
            let (rig, _) = with_a_checkpoint();
            let editor = Editor::of(rig.path());
            editor.flip(copy, 200, 3);
            let journal = Editor::first_page(number("JOURNAL_CLUSTER"));
            editor.write(journal, &vec![3; number("PAGE_BYTES") as usize]);
            let opened = rig.open_after(boot).unwrap();
            assert_eq!(read(&opened, 5 * CLUSTER).unwrap(), 55);
        }
    }
}

/// A power cut may leave the second copy of the superblock as it was before the checkpoint. After it nothing says that
/// the records of that one reach further, unless there is a mark behind each checkpoint.
#[test]
fn a_damaged_newest_copy_never_takes_what_was_durable_away() {
    let (rig, former) = with_a_checkpoint();
    let editor = Editor::of(rig.path());
    let (second, _) = editor.superblock();
    editor.write(second, &former);
    editor.flip(editor.other_copy(second), 200, 3);
    let opened = rig.open_after(OTHER_BOOT).unwrap();
    assert_eq!(read(&opened, 5 * CLUSTER).unwrap(), 55);
}

/// A store with a write that a checkpoint made durable, without a flush, and the superblock that counted before.
fn with_a_checkpoint() -> (Rig, Vec<u8>) {
    let rig = store(1);
    let opened = rig.open().unwrap();
    let (_, former) = Editor::of(rig.path()).superblock();
    write(&opened, 5 * CLUSTER, 55).unwrap();
    opened.checkpoint_now().unwrap();
    (rig, former)
}

#[test]
fn a_damaged_record_before_the_last_mark_is_found() {
    let rig = store(1);
    let opened = rig.open().unwrap();
    let (_, superblock) = Editor::of(rig.path()).superblock();
    let first = get(&superblock, "Superblock", "journal start");
    for number in 0..10 {
        write(&opened, (10 + number) * CLUSTER, 77).unwrap();
    }
    opened.sync().unwrap();
    drop(opened);
    let editor = Editor::of(rig.path());
    let page = Editor::first_page(number("JOURNAL_CLUSTER"));
    let damaged = first + 5;
    let at = damaged as usize * crate::document::size("Record");
    assert!(
        at < number("PAGE_BYTES") as usize,
        "the journal has not gone further"
    );
    editor.flip(page, at + 30, 2);
    for error in [rig.open().unwrap_err(), rig.maintain().unwrap_err()] {
        assert!(matches!(error, LayeredError::Journal(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("record {damaged} (page {page})")),
            "{text}"
        );
    }
}

#[test]
fn a_later_version_of_the_format_is_refused_with_its_number() {
    for page in ["FIRST_COPY_PAGE", "SECOND_COPY_PAGE", "MARK_PAGE"].map(number) {
        let rig = store(1);
        let editor = Editor::of(rig.path());
        let mut superblock = editor.page(page);
        put(&mut superblock, "Superblock", "version", number("VERSION") + 1);
        seal_superblock(&mut superblock);
        editor.write(page, &superblock);
        for error in [rig.open().unwrap_err(), rig.maintain().unwrap_err()] {
            let refused = format!("format version {},", number("VERSION") + 1);
            assert!(error.to_string().contains(&refused), "{error}");
        }
    }
}

#[test]
fn a_damaged_mark_of_the_version_is_told_and_written_anew() {
    let rig = store(1);
    let editor = Editor::of(rig.path());
    let page = number("MARK_PAGE");
    let mark = editor.page(page);
    editor.flip(page, 200, 3);
    must_be_found(&rig, "superblock", page);
    assert_eq!(editor.page(page), mark);
    let store = rig.open().unwrap();
    // While it is open.
    editor.flip(page, 200, 3);
    let found = store.check_all(false).unwrap();
    assert_eq!((found.bad_pages, found.repaired), (1, 1), "{found:?}");
    assert_eq!(editor.page(page), mark);
    assert!(store.check_all(false).unwrap().is_clean());
}

/// A bad sector, an erase block or a slip takes what lies beside it, too.
#[test]
fn the_first_mebibyte_does_not_have_both_copies_of_the_superblock() {
    let rig = store(1);
    let editor = Editor::of(rig.path());
    editor.write(0, &vec![0xff; 16 * number("PAGE_BYTES") as usize]);
    let opened = rig.open_after(OTHER_BOOT).unwrap();
    assert_eq!(read(&opened, 3 * CLUSTER).unwrap(), 14);
    drop(opened);
    let second = Editor::first_page(number("GAP_CLUSTER"));
    editor.write(second, &vec![0xff; 16 * number("PAGE_BYTES") as usize]);
    let opened = rig.open_after(OTHER_BOOT).unwrap();
    assert_eq!(read(&opened, 3 * CLUSTER).unwrap(), 14);
    assert!(second - number("MARK_PAGE") >= 255);
}

/// A device that has been a store before: neither copy of the old one is taken for one of the new.
#[test]
fn a_store_in_the_place_of_another_one_has_nothing_of_it() {
    let (rig, other) = (store(1), store(2));
    let (editor, theirs) = (Editor::of(rig.path()), Editor::of(other.path()));
    let (first, second) = (number("FIRST_COPY_PAGE"), number("SECOND_COPY_PAGE"));
    editor.write(second, &theirs.page(second));
    let opened = rig.open().unwrap();
    assert_eq!(read(&opened, 3 * CLUSTER).unwrap(), 14);
    let found = opened.check_all(false).unwrap();
    assert!(
        found.findings[0].contains("belongs to another store"),
        "{found:?}"
    );
    drop(opened);
    // What is made in its place.
    for page in [first, number("MARK_PAGE")] {
        editor.write(page, &vec![0; number("PAGE_BYTES") as usize]);
    }
    let new = NewStore {
        uuid: Uuid([3; 16]),
        capacity: Capacity::new(ByteLen(SIZE)).unwrap(),
        disk: id("disk"),
        lineage: id("lineage"),
    };
    new.create(&rig.medium(), None).unwrap();
    editor.flip(first, 200, 3);
    let opened = rig.open().unwrap();
    assert_eq!(read(&opened, 3 * CLUSTER).unwrap(), 0);
}

#[test]
fn a_damaged_space_table_is_rebuilt_and_nothing_else_is_done_before() {
    for level in 0..=3 {
        let rig = store(1);
        {
            // In the journal only.
            let opened = rig.open().unwrap();
            write(&opened, 4 * CLUSTER, 15).unwrap();
        }
        let editor = Editor::of(rig.path());
        let path = editor.path("space");
        let page = path[path.len() - 1 - level];
        editor.flip(page, 1000, 5);
        let error = rig.open().unwrap_err();
        assert!(matches!(error, LayeredError::Damage(_)), "{error}");
        let before = std::fs::read(rig.path()).unwrap();
        let store = rig.maintain().unwrap();
        let damage = store.suspended().unwrap().to_string();
        assert!(damage.contains(&format!("page {page} ")), "{damage}");
        let refused = store
            .operate(id("new"), Operation::Snapshot(id("new")))
            .unwrap_err();
        assert_eq!(refused.to_string(), damage);
        assert_eq!(read(&store, 0).unwrap_err().to_string(), damage);
        assert_eq!(store.checkpoint_now().unwrap_err().to_string(), damage);
        store.work().unwrap();
        let found = store.check_all(false).unwrap();
        assert_eq!(
            (found.leaked, found.double_used, found.bad_pages),
            (0, 0, 1),
            "{found:?}"
        );
        assert_eq!((found.repaired, found.findings), (0, vec![damage]));
        assert!(
            std::fs::read(rig.path()).unwrap() == before,
            "nothing was written"
        );

        let repaired = store.check_all(true).unwrap();
        assert_eq!((repaired.bad_pages, repaired.repaired), (1, 1), "{repaired:?}");
        assert_eq!(store.suspended(), None);
        store.work().unwrap();
        let after = store.check_all(false).unwrap();
        assert!(after.is_clean(), "level {level}: {after:?}");
        write(&store, CLUSTER, 99).unwrap();
        store.checkpoint_now().unwrap();
        drop(store);
        let store = rig.open().unwrap();
        for (block, byte) in [
            (0, 11),
            (CLUSTER, 99),
            (2 * CLUSTER, 3),
            (3 * CLUSTER, 14),
            (4 * CLUSTER, 15),
        ] {
            assert_eq!(read(&store, block).unwrap(), byte);
        }
        operate(&store, "back", Operation::Rollback(id("one")));
        for (block, byte) in [(0, 1), (CLUSTER, 2), (2 * CLUSTER, 3), (3 * CLUSTER, 0)] {
            assert_eq!(read(&store, block).unwrap(), byte, "the snapshot's");
        }
    }
}

#[test]
fn without_all_maps_the_space_table_is_not_rebuilt_and_nothing_is_freed() {
    let rig = store(1);
    let editor = Editor::of(rig.path());
    let (_, leaf) = pages(&editor)
        .into_iter()
        .find(|(what, _)| what == "snapshot 0")
        .unwrap();
    editor.flip(leaf, 100, 1);
    let free = editor.front(3) + 1;
    editor.change_word(free, 1);
    let store = rig.maintain().unwrap();
    let found = store.check_all(true).unwrap();
    assert_eq!(
        (found.leaked, found.bad_pages, found.repaired),
        (0, 1, 0),
        "{found:?}"
    );
    assert!(
        found.findings[1].contains("leaks are not looked for"),
        "{found:?}"
    );
    assert_eq!(read(&store, CLUSTER).unwrap(), 2);
    drop(store);
    assert_eq!(editor.word(free), 1);

    editor.flip(editor.path("space")[3], 100, 1);
    let store = rig.maintain().unwrap();
    let found = store.check_all(true).unwrap();
    assert!(
        found
            .findings
            .iter()
            .any(|finding| finding.contains("is not rebuilt")),
        "{found:?}"
    );
    assert!(store.suspended().is_some());
}

#[test]
fn damage_to_the_space_table_of_an_open_store_is_repaired_from_memory() {
    for level in 0..=3 {
        let rig = store(1);
        let store = rig.maintain().unwrap();
        let editor = Editor::of(rig.path());
        // What a checkpoint without changes does not write anew is the part that it leaves as it is.
        store.checkpoint_now().unwrap();
        let path = editor.path("space");
        editor.flip(path[path.len() - 1 - level], 1000, 5);
        let repaired = store.check_all(true).unwrap();
        assert_eq!(repaired.bad_pages, repaired.repaired, "{repaired:?}");
        assert!(store.check_all(false).unwrap().is_clean());
        drop(store);
        assert!(rig.open().unwrap().check_all(false).unwrap().is_clean());
    }
}

#[test]
fn a_damaged_snapshot_that_is_deleted_does_not_take_the_disk_with_it() {
    for level in 0..=3 {
        let rig = store(1);
        let opened = rig.open().unwrap();
        let editor = Editor::of(rig.path());
        let (_, page) = pages(&editor)
            .into_iter()
            .find(|(what, _)| *what == format!("snapshot {level}"))
            .unwrap();
        editor.flip(page, 100, 1);
        let unpin = Operation::Unpin {
            id: id("one"),
            disk: id("clone"),
        };
        operate(&opened, "unpin", unpin);
        operate(&opened, "delete", Operation::Delete(id("one")));
        assert!(!opened.has_failed());
        write(&opened, 6 * CLUSTER, 66).unwrap();
        opened.checkpoint_now().unwrap();
        assert_eq!(read(&opened, 6 * CLUSTER).unwrap(), 66);
        assert!(opened.check_all(false).unwrap().bad_pages > 0);
    }
}

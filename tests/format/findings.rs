//! What an examination tells of stores in which clusters and pages are not used as the space table says, and what a
//! repair makes of them.

use sealblk::store::layered::{Findings, Operation};

use crate::document::{number, put, size};
use crate::editor::Editor;
use crate::rig::{CLUSTER, Rig, Store, id, operate, read, write};

/// A store with blocks 0, 16 and 32 in a snapshot, of which the first was written again since, and block 48 besides.
/// Entries 0 and 3 of the disk's map are its own.
fn store() -> Rig {
    let rig = Rig::with_store(1);
    let store = rig.open().unwrap();
    for number in 0..3 {
        write(&store, number * CLUSTER, 1 + number as u8).unwrap();
    }
    operate(&store, "snapshot", Operation::Snapshot(id("one")));
    write(&store, 0, 11).unwrap();
    write(&store, 3 * CLUSTER, 14).unwrap();
    store.checkpoint_now().unwrap();
    drop(store);
    rig
}

fn blocks(store: &Store) -> [u8; 4] {
    [0, 1, 2, 3].map(|number| read(store, number * CLUSTER).unwrap())
}

/// Examines, repairs, and examines again. What was wrong must be all right then, also for a guest.
fn repaired(rig: &Rig) -> Findings {
    let store = rig.maintain().unwrap();
    let found = store.check_all(false).unwrap();
    let repaired = store.check_all(true).unwrap();
    assert_eq!(
        (found.leaked, found.double_used, found.bad_pages),
        (repaired.leaked, repaired.double_used, repaired.bad_pages)
    );
    assert_eq!(
        repaired.repaired,
        repaired.leaked + repaired.double_used + repaired.bad_pages,
        "{repaired:?}"
    );
    store.work().unwrap();
    let after = store.check_all(false).unwrap();
    assert!(after.is_clean(), "{after:?}");
    drop(store);
    let store = rig.open().unwrap();
    assert_eq!(blocks(&store), [11, 2, 3, 14]);
    assert!(store.check_all(false).unwrap().is_clean());
    found
}

#[test]
fn a_sound_store_is_clean() {
    let rig = store();
    assert!(repaired(&rig).is_clean());
}

#[test]
fn a_cluster_that_nobody_references_is_found_and_given_back() {
    let rig = store();
    let editor = Editor::of(rig.path());
    let free = editor.front(3) + 1;
    assert_eq!(editor.word(free), 0);
    editor.change_word(free, 1);
    let found = repaired(&rig);
    assert_eq!((found.leaked, found.double_used, found.bad_pages), (1, 0, 0));
    assert_eq!(
        found.findings,
        [format!("cluster {free} is in use, and no map references it")]
    );
    assert_eq!(editor.word(free), 0);
}

#[test]
fn a_page_that_nobody_references_is_found_and_given_back() {
    let rig = store();
    let editor = Editor::of(rig.path());
    let page = editor.path("map")[0];
    let cluster = page * number("PAGE_BYTES") / number("CLUSTER_BYTES");
    let free = (0..16).find(|bit| editor.word(cluster) >> bit & 1 == 0).unwrap();
    editor.change_word(cluster, editor.word(cluster) | 1 << free);
    let found = repaired(&rig);
    assert_eq!((found.leaked, found.double_used, found.bad_pages), (1, 0, 0));
}

#[test]
fn a_cluster_in_use_that_counts_as_free_gets_the_birth_of_the_oldest_map() {
    for entry in [3, 1] {
        let rig = store();
        let editor = Editor::of(rig.path());
        let cluster = editor.front(entry);
        editor.change_word(cluster, 0);
        let found = repaired(&rig);
        assert_eq!((found.leaked, found.double_used, found.bad_pages), (0, 1, 0));
        assert!(found.findings[0].starts_with(&format!("cluster {cluster} counts as free")));
        let store = rig.open().unwrap();
        write(&store, entry as u64 * CLUSTER, 99).unwrap();
        operate(&store, "back", Operation::Rollback(id("one")));
        let expected = if entry == 1 { 2 } else { 0 };
        assert_eq!(
            read(&store, entry as u64 * CLUSTER).unwrap(),
            expected,
            "the snapshot's"
        );
    }
}

#[test]
fn a_cluster_that_is_older_than_it_counts_is_not_written_in_place() {
    let rig = store();
    let editor = Editor::of(rig.path());
    let cluster = editor.front(1);
    editor.change_word(cluster, 1000);
    let found = repaired(&rig);
    assert_eq!((found.leaked, found.double_used, found.bad_pages), (0, 1, 0));
    let store = rig.open().unwrap();
    write(&store, CLUSTER, 99).unwrap();
    operate(&store, "back", Operation::Rollback(id("one")));
    assert_eq!(read(&store, CLUSTER).unwrap(), 2);
}

#[test]
fn a_page_in_use_that_counts_as_free_is_found_and_marked() {
    let rig = store();
    let editor = Editor::of(rig.path());
    // The snapshot's leaf: opening the store replaces the disk's own pages.
    let page = editor.path_from(&snapshot_map(&editor))[0];
    let cluster = page * number("PAGE_BYTES") / number("CLUSTER_BYTES");
    editor.change_word(cluster, editor.word(cluster) & !(1 << (page % 16)));
    // Opening takes free pages, and might take this one: it is the first.
    let store = rig.maintain();
    let Ok(store) = store else { return };
    let found = store.check_all(true).unwrap();
    assert_ne!(found.double_used + found.bad_pages, 0, "{found:?}");
}

fn snapshot_map(editor: &Editor) -> Vec<u8> {
    let page = editor.page(editor.list("snapshots"));
    let items = crate::document::field("List", "items").start;
    let map = crate::document::field("Snapshot", "map");
    page[items + map.start..items + map.end].to_vec()
}

#[test]
fn two_entries_in_one_cluster_are_told_and_left_alone() {
    let rig = store();
    let editor = Editor::of(rig.path());
    let (one, other) = (editor.front(0), editor.front(3));
    editor.change_leaf("map", |body| {
        let entry = &mut body[3 * size("Entry")..];
        put(entry, "Entry", "front cluster", one);
    });
    let store = rig.maintain().unwrap();
    let found = store.check_all(true).unwrap();
    assert_eq!(
        (found.leaked, found.double_used, found.bad_pages),
        (1, 1, 0),
        "{found:?}"
    );
    assert!(found.findings[0].contains(&format!("cluster {one}, and so does entry 0")));
    assert!(found.findings[1].contains(&format!("cluster {other} is in use")));
    assert_eq!(found.repaired, 1);
    assert_eq!(store.check_all(false).unwrap().double_used, 1);
}

#[test]
fn data_in_the_journal_or_in_the_arena_or_beyond_the_file_is_told() {
    for (what, sentence) in [
        ("journal", "where no data can be"),
        ("arena", "where metadata lies"),
        ("beyond", "where no data can be"),
    ] {
        let rig = store();
        let editor = Editor::of(rig.path());
        let cluster = match what {
            "journal" => 2,
            "arena" => editor.path("space")[0] * number("PAGE_BYTES") / number("CLUSTER_BYTES"),
            _ => 1 << 30,
        };
        editor.change_leaf("map", |body| {
            put(&mut body[3 * size("Entry")..], "Entry", "front cluster", cluster);
        });
        let found = rig.maintain().unwrap().check_all(true).unwrap();
        assert_eq!(found.double_used, 1, "{what}: {found:?}");
        assert!(
            found.findings.iter().any(|finding| finding.contains(sentence)),
            "{found:?}"
        );
    }
}

#[test]
fn a_store_in_use_is_examined_and_clean() {
    let rig = store();
    let store = std::sync::Arc::new(rig.open().unwrap());
    let threads = sealblk::store::layered::Threads::start(&store).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut step = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                step += 1;
                let block = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50;
                if step.is_multiple_of(3) {
                    crate::rig::discard_in_use(&store, block);
                } else {
                    crate::rig::write_in_use(&store, block, step as u8);
                }
            }
        });
        let rounds = (0..12).map(|round| {
            let name = format!("round{round}");
            match round % 4 {
                1 => store.operate(id(&name), Operation::Snapshot(id(&name))).unwrap(),
                3 => {
                    let before = id(&format!("round{}", round - 2));
                    store.operate(id(&name), Operation::Delete(before)).unwrap();
                }
                _ => store.checkpoint_now().unwrap(),
            }
            store.check_all(false).unwrap()
        });
        let unclean: Vec<Findings> = rounds.filter(|found| !found.is_clean()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(unclean.is_empty(), "{:?}", unclean[0]);
    });
    drop(threads);
    store.work().unwrap();
    assert!(store.check_all(false).unwrap().is_clean());
}

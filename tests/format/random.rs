//! Any damage to the metadata: no panic, and never data that was not written.
//!
//! One thing cannot be told: that the end of the journal was lost together with every record behind it. Then the disk is
//! as it was before.

use proptest::prelude::*;
use sealblk::store::layered::Operation;

use crate::document::number;
use crate::editor::Editor;
use crate::rig::{CLUSTER, Rig, id, operate, read, write};

/// Places of the journal's pages among those that are damaged.
const JOURNAL: std::ops::Range<usize> = 3..5;
/// Blocks that are written, one in each cluster.
const BLOCKS: u64 = 12;

/// A store whose last changes are in the journal only, and the bytes of its file.
fn file() -> Vec<u8> {
    let rig = Rig::with_store(3);
    let store = rig.open().unwrap();
    for number in 0..BLOCKS / 2 {
        write(&store, number * CLUSTER, 1).unwrap();
    }
    operate(&store, "snapshot", Operation::Snapshot(id("one")));
    for number in 0..BLOCKS {
        write(&store, number * CLUSTER, 2).unwrap();
    }
    store.checkpoint_now().unwrap();
    for number in 0..BLOCKS {
        write(&store, number * CLUSTER + 1, 3).unwrap();
    }
    store.sync().unwrap();
    std::fs::read(rig.path()).unwrap()
}

/// Pages of metadata: superblocks, the beginning of the journal, and the arena.
fn metadata(file: &[u8]) -> Vec<u64> {
    let rig = with(file);
    let editor = Editor::of(rig.path());
    let arena = editor.path("map")[0] * number("PAGE_BYTES") / number("CLUSTER_BYTES");
    let first = Editor::first_page(arena);
    let journal = Editor::first_page(number("JOURNAL_CLUSTER"));
    let arena = first..first + number("CLUSTER_BYTES") / number("PAGE_BYTES");
    let superblocks = ["FIRST_COPY_PAGE", "MARK_PAGE", "SECOND_COPY_PAGE"].map(number);
    superblocks
        .into_iter()
        .chain(journal..journal + 2)
        .chain(arena)
        .collect()
}

fn with(file: &[u8]) -> Rig {
    let rig = Rig::new();
    std::fs::write(rig.path(), file).unwrap();
    rig
}

#[derive(Clone, Debug)]
enum Damage {
    Flip {
        page: usize,
        at: usize,
        bit: u8,
    },
    Fill {
        page: usize,
        at: usize,
        len: usize,
        byte: u8,
    },
    Copy {
        from: usize,
        to: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let page = || 0..20usize;
    prop_oneof![
        (page(), 0..4096usize, 0..8u8).prop_map(|(page, at, bit)| Damage::Flip { page, at, bit }),
        (page(), 0..4096usize, 1..4096usize, any::<u8>()).prop_map(|(page, at, len, byte)| Damage::Fill {
            page,
            at,
            len,
            byte
        }),
        (page(), page()).prop_map(|(from, to)| Damage::Copy { from, to }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_damaged_store_never_panics_and_never_lies(damages in prop::collection::vec(damage(), 1..4)) {
        static FILE: std::sync::OnceLock<(Vec<u8>, Vec<u64>)> = std::sync::OnceLock::new();
        let (file, pages) = FILE.get_or_init(|| {
            let file = file();
            let pages = metadata(&file);
            (file, pages)
        });
        let rig = with(file);
        let editor = Editor::of(rig.path());
        let mut journal = false;
        for damage in damages {
            let (Damage::Flip { page, .. } | Damage::Fill { page, .. } | Damage::Copy { to: page, .. }) = damage;
            journal |= JOURNAL.contains(&page);
            match damage {
                Damage::Flip { page, at, bit } => editor.flip(pages[page], at, bit),
                Damage::Fill { page, at, len, byte } => {
                    let mut bytes = editor.page(pages[page]);
                    let end = (at + len).min(bytes.len());
                    bytes[at..end].fill(byte);
                    editor.write(pages[page], &bytes);
                }
                Damage::Copy { from, to } => editor.write(pages[to], &editor.page(pages[from])),
            }
        }
        if let Ok(store) = rig.maintain() {
            let _ = store.check_all(false);
            let _ = store.check_all(true);
        }
        if let Ok(store) = rig.open() {
            for number in 0..BLOCKS {
                for (block, byte) in [(0, 2), (1, 3), (2, 0)] {
                    if let Ok(found) = read(&store, number * CLUSTER + block) {
                        let before = journal && byte == 3 && found == 0;
                        prop_assert!(found == byte || before, "block {} of {number}: {found}", block);
                    }
                }
            }
            let _ = store.check_all(false);
        }
    }
}

//! Damaged stores of real disks: what the operator is told, what is repaired, and that no guest is served before.

use std::path::PathBuf;

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms};
use serde_json::Value;

use editor::Editor;

// The tests of the format use more of them.
#[allow(dead_code)]
#[path = "../../../format/document.rs"]
mod document;
#[allow(dead_code)]
#[path = "../../../format/editor.rs"]
mod editor;

const BLOCK: usize = 4096;

/// A detached disk `data` with a block of ones, and a snapshot of it.
fn with_disk() -> (Kms, PathBuf) {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let attachment = kms.ok(&["attach", "data", "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(8, &[1; BLOCK]);
    guest.flush();
    drop(guest);
    kms.ok(&["detach", "data", "--force"]);
    kms.ok(&["snapshot", "create", "data", "one"]);
    let path = kms::path(&kms.disk("data"), "path").to_owned();
    (kms, path)
}

fn counts(check: &Value) -> [u64; 4] {
    ["leaked", "double_used", "bad_pages", "repaired"].map(|field| check[field].as_u64().unwrap())
}

fn must_be_served(kms: &Kms) {
    let attachment = kms.ok(&["attach", "data", "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    assert_eq!(guest.read(8, BLOCK), [1; BLOCK]);
    assert_eq!(kms.ok(&["disk", "check", "data"])["clean"], true);
    drop(guest);
    kms.ok(&["detach", "data", "--force"]);
}

#[test]
fn a_leaked_cluster_is_told_and_given_back() {
    let (kms, path) = with_disk();
    let editor = Editor::of(&path);
    let free = (editor.front(0)..)
        .find(|cluster| editor.word(*cluster) == 0)
        .unwrap();
    editor.change_word(free, 1);
    // That nobody has written to the store since it was closed would be known.
    kms.refused(&["disk", "check", "data"], "StoreRolledBack", None);
    Catalogue::open(&kms.state()).execute("UPDATE volumes SET closed = 0");
    let check = kms.ok(&["disk", "check", "data"]);
    assert_eq!(
        (counts(&check), &check["clean"]),
        ([1, 0, 0, 0], &Value::Bool(false))
    );
    let text = kms.sealctl(&["disk", "check", "data"]).text();
    assert!(text.contains("1 clusters or pages leaked"), "{text}");
    assert!(
        text.contains(&format!("cluster {free} is in use, and no map references it")),
        "{text}"
    );
    assert!(text.contains("--repair"), "{text}");
    kms.ok(&["attach", "data", "vm"]);
    kms.refused(&["disk", "check", "data", "--repair"], "DiskAttached", None);
    assert_eq!(counts(&kms.ok(&["disk", "check", "data"])), [1, 0, 0, 0]);
    kms.ok(&["detach", "data"]);
    assert_eq!(
        counts(&kms.ok(&["disk", "check", "data", "--repair"])),
        [1, 0, 0, 1]
    );
    assert_eq!(kms.ok(&["disk", "check", "data"])["clean"], true);
    assert_eq!(editor.word(free), 0);
    must_be_served(&kms);
}

#[test]
fn a_damaged_space_table_keeps_everything_but_a_check_away_until_it_is_repaired() {
    for level in [0, 3] {
        let (kms, path) = with_disk();
        let editor = Editor::of(&path);
        let pages = editor.path("space");
        let page = pages[pages.len() - 1 - level];
        editor.flip(page, 99, 4);
        for refused in [
            &["attach", "data", "vm"][..],
            &["snapshot", "create", "data", "two"],
            &["rollback", "data", "one"],
            &["disk", "create", "clone", "--snapshot", "one"],
        ] {
            let sentence = kms.refused(refused, "StoreDamaged", None);
            assert!(sentence.contains(&format!("page {page} ")), "{sentence}");
        }
        let check = kms.ok(&["disk", "check", "data"]);
        assert_eq!(counts(&check), [0, 0, 1, 0], "{check}");
        let finding = check["findings"][0].as_str().unwrap();
        assert!(finding.contains(&format!("page {page} ")), "{check}");
        let text = kms.sealctl(&["disk", "check", "data", "--repair"]).text();
        assert!(text.contains("1 pages damaged; 1 of them repaired"), "{text}");
        assert_eq!(kms.ok(&["disk", "check", "data"])["clean"], true);
        must_be_served(&kms);
        kms.ok(&["rollback", "data", "one"]);
        must_be_served(&kms);
    }
}

#[test]
fn a_damaged_copy_of_the_superblock_is_told_once() {
    let (kms, path) = with_disk();
    let editor = Editor::of(&path);
    editor.flip(editor.superblock().0, 300, 0);
    let check = kms.ok(&["disk", "check", "data"]);
    assert_eq!(counts(&check), [0, 0, 1, 1], "{check}");
    assert_eq!(kms.ok(&["disk", "check", "data"])["clean"], true);
    must_be_served(&kms);
}

#[test]
fn damage_that_nothing_can_mend_is_told_and_left() {
    let (kms, path) = with_disk();
    let editor = Editor::of(&path);
    let pages = editor.path("map");
    let leaf = pages[pages.len() - 1];
    editor.flip(leaf, 99, 4);
    let sentence = kms.refused(&["attach", "data", "vm"], "StoreDamaged", None);
    assert!(sentence.contains(&format!("page {leaf} ")), "{sentence}");
    let check = kms.ok(&["disk", "check", "data", "--repair"]);
    assert_eq!(counts(&check), [0, 0, 1, 0], "{check}");
    let text = kms.sealctl(&["disk", "check", "data", "--repair"]).text();
    assert!(text.contains("cannot be derived"), "{text}");
}

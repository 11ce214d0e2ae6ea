//! Rules K06, K07, K10 and K14 with every kind of key made, used, rotated and destroyed: no key is in the state directory,
//! in a log, an answer, an argument, the environment, or what a dump of either process would hold.

use std::fs;
use std::path::Path;

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::import::wrapped;
use sealblk_e2e::keys::DiskKeys;
use sealblk_e2e::kms::{self, Kms, is_root};
use sealblk_e2e::search::{Needle, found_below};
use sealblk_e2e::{eventually, memory};

/// What was imported, and the key under which it came. Made from a rule, so that this file does not hold them.
fn material(seed: u8) -> [u8; 32] {
    std::array::from_fn(|index| (index as u8).wrapping_mul(73).wrapping_add(seed) ^ 0x5c)
}

/// Every key of a disk and above it, named after where it comes from.
fn needles(from: &str, keys: &DiskKeys) -> Vec<Needle> {
    let named = |name: &str, key: &[u8]| Needle::key(&format!("{from}: {name}"), key);
    vec![
        named("root key", &keys.root),
        named("master key", &keys.master),
        named("data key", &keys.data),
        named("salt", &keys.salt),
        named("lineage key", &keys.lineage),
        named("XTS data key", &keys.xts[..32]),
        named("XTS tweak key", &keys.xts[32..]),
    ]
}

/// Wraps the material for the key's import, and imports it by the commands.
fn import(kms: &Kms, key: &str) {
    let (pem, token, blob) = (
        kms.path_text("pem"),
        kms.path_text("token"),
        kms.path_text("blob"),
    );
    kms.ok(&["key", "create", key, "--import"]);
    kms.ok(&[
        "key",
        "import-params",
        key,
        "--public-key",
        &pem,
        "--token",
        &token,
    ]);
    let public = fs::read_to_string(&pem).unwrap();
    fs::write(&blob, wrapped(&public, &material(2), &material(1))).unwrap();
    kms.ok(&["key", "import", key, &blob, "--token", &token]);
}

/// Writes through the disk, so that its keys are used.
fn use_disk(kms: &Kms, disk: &str) -> (i32, Guest) {
    let attachment = kms.ok(&["attach", disk, "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(0, &[0x77; 64 << 10]);
    guest.flush();
    assert_eq!(guest.read(0, 512), [0x77; 512]);
    (kms::pid(&attachment), guest)
}

fn assert_nowhere(kms: &Kms, pids: &[i32], needles: &[Needle]) {
    let (found, files) = found_below(&kms.path("."), needles);
    // The present root key has a file of its own.
    let found: Vec<_> = found
        .into_iter()
        .filter(|found| !found.ends_with("/root.key"))
        .collect();
    assert!(found.is_empty() && files >= 5, "{found:?} in {files} files");
    for pid in pids {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let found: Vec<_> = needles.iter().filter(|needle| needle.is_in(&bytes)).collect();
            assert!(found.is_empty(), "{pid} {file}: {found:?}");
        }
        if is_root() {
            let search = memory::search(*pid, needles).unwrap();
            assert!(search.found.is_empty(), "{pid}: {:?}", search.found);
        }
    }
    let calls: &[&[&str]] = &[
        &["kms", "status"],
        &["key", "list"],
        &["key", "show", "own"],
        &["key", "show", "imported"],
        &["key", "rewrap", "own", "--status"],
        &["key", "resources", "own"],
        &["disk", "list"],
        &["disk", "show", "own"],
        &["usage"],
        &["audit"],
    ];
    for call in calls {
        let answer = kms.ok(call).to_string();
        let found: Vec<_> = needles
            .iter()
            .filter(|needle| needle.is_in(answer.as_bytes()))
            .collect();
        assert!(found.is_empty(), "{call:?}: {found:?}");
    }
}

#[test]
fn rule_k06_k07_no_kind_of_key_is_anywhere_but_in_locked_memory() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["key", "create", "own"]);
    import(&kms, "imported");
    kms.create("service", &[]);
    kms.create("own", &["--key", "own"]);
    kms.create("imported", &["--key", "imported"]);
    let disks = ["service", "own", "imported"];
    let mut needles: Vec<_> = disks
        .iter()
        .flat_map(|disk| self::needles(disk, &DiskKeys::of(&kms.state(), disk)))
        .collect();
    needles.push(Needle::key("wrapping key of the import", &material(2)));
    let imported = DiskKeys::of(&kms.state(), "imported");
    assert_eq!(
        imported.master,
        material(1),
        "the search is for the key that was imported"
    );
    let mut served: Vec<_> = disks.iter().map(|disk| use_disk(&kms, disk)).collect();
    let before = DiskKeys::of(&kms.state(), "own");
    kms.ok(&["key", "rotate", "own"]);
    kms.ok(&["key", "rewrap", "own"]);
    kms.ok(&["kms", "rotate-root"]);
    let after = DiskKeys::of(&kms.state(), "own");
    assert_eq!(
        (&after.xts, &after.data),
        (&before.xts, &before.data),
        "the data is not encrypted anew"
    );
    assert!(after.master != before.master && after.root != before.root);
    needles.extend(self::needles("own, rotated", &after));
    let pids: Vec<i32> = served.iter().map(|(pid, _)| *pid).chain([kms.pid()]).collect();
    assert_nowhere(&kms, &pids, &needles);
    // They still serve, with the keys that they were given.
    for (_, guest) in &mut served {
        assert_eq!(guest.read(0, 512), [0x77; 512]);
    }
}

/// A copy of everything that is there: the state directory with the disks' files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn rule_k14_a_copy_of_disk_and_state_from_after_the_deletion_is_unreadable() {
    let mut kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["key", "create", "own"]);
    kms.create("own", &["--key", "own"]);
    kms.create("service", &[]);
    drop(use_disk(&kms, "own"));
    kms.ok(&["detach", "own", "--force"]);
    let keys = DiskKeys::of(&kms.state(), "own");
    let lineage = kms.disk("own")["lineage"].as_str().unwrap().to_owned();
    kms.ok(&["key", "schedule-deletion", "own", "--days", "7", "--acknowledge"]);
    kms.stop();
    Catalogue::open(&kms.state()).execute(
        "UPDATE keys SET deletion = '2020-01-01T00:00:00.000Z', deletion_seen = 0 WHERE name = 'own'",
    );
    kms.serve();
    eventually("the key is destroyed", || {
        (kms.ok(&["key", "show", "own"])["state"] == "Destroyed").then_some(())
    });
    kms.stop();
    let copied = kms.path("copied");
    copy(&kms.state(), &copied);
    // What is left: the root key, the wrapped data key and salt, the ciphertext. What wrapped them is not.
    let mut catalogue = Catalogue::open(&copied);
    let left = |catalogue: &mut Catalogue, query: &str| {
        use sqlx::Row;
        catalogue.row(query).get::<i64, _>(0)
    };
    let wrapped = format!("SELECT count(*) FROM lineages WHERE id = '{lineage}'");
    assert_eq!(left(&mut catalogue, &wrapped), 1);
    let material = "SELECT count(*) FROM key_material m JOIN keys k ON k.id = m.key WHERE k.name = 'own'";
    assert_eq!(left(&mut catalogue, material), 0);
    let needles = &needles("own", &keys)[1..];
    let (found, files) = found_below(&copied, needles);
    assert!(found.is_empty() && files >= 5, "{found:?}");
    // Nor does any master key that is left open them, of whatever version.
    assert!(DiskKeys::open_with_any(&copied, &lineage).is_none());
    let served = DiskKeys::of(&copied, "service");
    assert!(
        DiskKeys::open_with_any(&copied, &served.lineage_id).is_some(),
        "the attempt is a real one"
    );
}

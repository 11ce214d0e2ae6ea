//! Rule K06, after every kind of operation with keys: what a core dump of either daemon holds has none of the keys that
//! there are or were, nor what they are computed from and what ciphers make of them; and locked memory, which no dump has, is
//! all that has any.

use std::collections::BTreeSet;
use std::fs;

use hkdf::Hkdf;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::import::wrapped;
use sealblk_e2e::keys::{self, DiskKeys};
use sealblk_e2e::kms::{self, Kms, REGION, is_root};
use sealblk_e2e::memory;
use sealblk_e2e::search::Needle;
use sha2::Sha256;

const PASSPHRASE: &str = "seven times sealed, and not to be found";

/// A key that whoever runs the daemon has made. By a rule, so that this file does not hold it.
fn made(seed: u8) -> [u8; 32] {
    std::array::from_fn(|index| (index as u8).wrapping_mul(151).wrapping_add(seed) ^ 0x3d)
}

/// A daemon, the processes that serve its disks, and everything that must not be found in them.
struct Watch {
    kms: Kms,
    root: RootKey,
    needles: Vec<Needle>,
    known: BTreeSet<Vec<u8>>,
}

/// Where the root key comes from.
enum RootKey {
    File,
    Passphrase,
    Credential(Vec<u8>),
}

impl Watch {
    fn new(kms: Kms, root: RootKey) -> Self {
        Watch {
            kms,
            root,
            needles: Vec::new(),
            known: BTreeSet::new(),
        }
    }

    fn learn(&mut self, name: &str, secret: &[u8], needle: fn(&str, &[u8]) -> Needle) {
        if self.known.insert(secret.to_vec()) {
            self.needles.push(needle(name, secret));
        }
    }

    /// All keys that the state directory has, opened as an auditor would.
    fn learn_all(&mut self) {
        let state = self.kms.state();
        let root = match &self.root {
            RootKey::File => keys::root_key(&state),
            RootKey::Passphrase => {
                let [key, root] = keys::sealed_root_key(&state, PASSPHRASE);
                self.learn("the passphrase's key", &key, Needle::cipher_key);
                root
            }
            RootKey::Credential(key) => key.clone(),
        };
        self.learn("a root key", &root, Needle::cipher_key);
        for master in keys::masters(&state, &root) {
            self.learn("a master key", &master, Needle::cipher_key);
        }
        for keys in DiskKeys::all(&state, &root) {
            let (extracted, _) = Hkdf::<Sha256>::extract(Some(&keys.salt), &keys.data);
            self.learn("a data key", &keys.data, Needle::key);
            self.learn("a salt", &keys.salt, Needle::key);
            self.learn("what a lineage key is expanded from", &extracted, Needle::key);
            self.learn("a lineage key", &keys.lineage, Needle::key);
            self.learn("an XTS data key", &keys.xts[..32], Needle::cipher_key);
            self.learn("an XTS tweak key", &keys.xts[32..], Needle::cipher_key);
        }
    }

    /// Runs `sealctl`, and searches all processes.
    fn run(&mut self, arguments: &[&str]) {
        self.kms.ok(arguments);
        self.check(&arguments.join(" "));
    }

    fn check(&mut self, after: &str) {
        eprintln!("search after {after}");
        self.learn_all();
        let disks = self.kms.ok(&["disk", "list"]);
        let serving = disks["disks"].as_array().into_iter().flatten();
        let serving = serving.filter_map(|disk| disk["pid"].as_i64());
        for pid in serving.map(|pid| pid as i32).chain([self.kms.pid()]) {
            let search = memory::search(pid, &self.needles).unwrap();
            let elsewhere = [search.found, search.unlocked].concat();
            assert!(elsewhere.is_empty(), "after {after}: {pid}: {elsewhere:?}");
            assert!(
                search.secret > 0 || !search.kept.is_empty(),
                "after {after}: {pid}: the search is for keys that it has"
            );
        }
        self.check_core(self.kms.pid(), after);
    }

    /// A core file has what was searched, and registers.
    fn check_core(&self, pid: i32, after: &str) {
        match memory::found_in_core(pid, &self.needles) {
            Some(found) => assert!(found.is_empty(), "after {after}: {pid}: {found:?} in a core file"),
            None => eprintln!("skipped: core files, for there is no gdb"),
        }
    }

    /// Core files of the processes that serve these disks.
    fn check_serving_cores(&self, disks: &[&str], after: &str) {
        for disk in disks {
            self.check_core(self.kms.backend(disk).expect("it is served"), after);
        }
    }

    /// Lets a guest use the disk.
    fn attach(&mut self, disk: &str) -> Guest {
        let attachment = self.kms.ok(&["attach", disk, "vm"]);
        let mut guest = Guest::connect(kms::path(&attachment, "socket"));
        guest.write(0, &[0x77; 64 << 10]);
        guest.flush();
        assert_eq!(guest.read(0, 512), [0x77; 512]);
        self.check("attach");
        self.check_serving_cores(&[disk], "attach");
        guest
    }

    fn detach(&mut self, disk: &str, guest: Guest) {
        drop(guest);
        self.run(&["detach", disk, "--force"]);
    }

    /// Imports material, and damaged material before, and searches for each part of the pairs.
    fn import(&mut self, key: &str, material: &[u8; 32]) {
        let [pem, token, blob] = ["pem", "token", "blob"].map(|name| self.kms.path_text(name));
        self.kms.ok(&["key", "create", key, "--import"]);
        self.learn("imported material", material, Needle::cipher_key);
        for damaged in [true, false] {
            let params = [
                "key",
                "import-params",
                key,
                "--public-key",
                &pem,
                "--token",
                &token,
            ];
            self.kms.ok(&params);
            let public = fs::read_to_string(&pem).unwrap();
            let daemon = self.kms.pid();
            for (name, part) in private_parts(daemon, &public) {
                self.learn(&format!("{name} of an import's RSA key"), &part, Needle::number);
            }
            self.check("key import-params");
            let wrapping = made(u8::from(damaged) + 7);
            self.learn("an import's wrapping key", &wrapping, Needle::cipher_key);
            let mut bytes = wrapped(&public, &wrapping, material);
            let last = bytes.len() - 1;
            bytes[last] ^= u8::from(damaged);
            fs::write(&blob, bytes).unwrap();
            let import = ["key", "import", key, &blob, "--token", &token];
            if damaged {
                self.kms.refused(&import, "ImportInvalid", Some("K10"));
                self.check("a refused import");
            } else {
                self.run(&import);
            }
            assert!(
                private_parts(daemon, &public).is_empty(),
                "a pair is for one import"
            );
        }
    }
}

/// The private parts of an import's pair, from the locked memory of the daemon. None where that is secret memory, or the pair is
/// gone.
fn private_parts(daemon: i32, public_pem: &str) -> Vec<(&'static str, Vec<u8>)> {
    let (_, public) = pem_rfc7468::decode_vec(public_pem.as_bytes()).unwrap();
    // It ends with the modulus and the exponent, an integer of 3 bytes (RFC 8017, appendix A.1).
    let (head, exponent) = public.split_at(public.len() - 5);
    assert_eq!(exponent, [2, 3, 1, 0, 1]);
    let modulus = &head[head.len() - 384..];
    let room = 384 + exponent.len() + 2048 - 512;
    let Some(document) = memory::read_locked(daemon, modulus, room).unwrap() else {
        return Vec::new();
    };
    let mut rest = &document[384 + exponent.len()..];
    let names = [
        "d",
        "p",
        "q",
        "d mod (p - 1)",
        "d mod (q - 1)",
        "the inverse of q mod p",
    ];
    let parts = names.map(|name| {
        let length = match rest {
            [2, 0x82, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = &rest[4..];
                length
            }
            [2, 0x81, length, ..] => {
                let length = usize::from(*length);
                rest = &rest[3..];
                length
            }
            other => panic!("{:?} is no integer", &other[..4]),
        };
        let (part, after) = rest.split_at(length);
        rest = after;
        (name, part.to_vec())
    });
    parts.into()
}

/// The allocator reserves 64 MiB for each thread, all of which a debugger writes to a core file. One for all will do.
fn few_arenas() -> (&'static str, String) {
    ("MALLOC_ARENA_MAX", "1".to_owned())
}

/// Whether there is anything to do: the memory of these processes is closed to all but root.
fn can_look() -> bool {
    if !is_root() {
        eprintln!("skipped: only root sees the memory of these processes");
    }
    is_root()
}

#[test]
fn rule_k06_the_search_finds_what_a_daemon_holds_unlocked() {
    if !can_look() {
        return;
    }
    let planted = made(1);
    let mut kms = Kms::initialised();
    kms.environment.push(("PLANTED", hex::encode(planted)));
    kms.serve();
    let needles = [Needle::cipher_key("what was planted", &planted)];
    let search = memory::search(kms.pid(), &needles).unwrap();
    assert!(search.found[0].starts_with("what was planted in "), "{search:?}");
    match memory::found_in_core(kms.pid(), &needles) {
        Some(found) => assert_eq!(found, ["what was planted"]),
        None => eprintln!("skipped: core files, for there is no gdb"),
    }
}

#[test]
fn rule_k06_no_operation_leaves_a_key_where_a_dump_would_have_it() {
    if !can_look() {
        return;
    }
    let mut kms = Kms::initialised();
    kms.environment.push(few_arenas());
    kms.serve();
    let mut watch = Watch::new(kms, RootKey::File);
    watch.run(&["kms", "activate"]);
    watch.kms.ok(&["instance", "register", "vm"]);
    watch.run(&["key", "create", "own"]);
    watch.run(&["disk", "create", "own", "--size", "1MiB", "--key", "own"]);
    watch.run(&["disk", "create", "service", "--size", "1MiB"]);
    watch.import("imported", &made(2));
    watch.run(&[
        "disk", "create", "imported", "--size", "1MiB", "--key", "imported", "--store", "raw",
    ]);
    let guests = ["own", "service", "imported"].map(|disk| watch.attach(disk));

    for verb in ["rotate", "rewrap", "disable", "enable"] {
        watch.run(&["key", verb, "own"]);
    }
    watch.run(&["key", "schedule-deletion", "own", "--days", "7", "--acknowledge"]);
    watch.run(&["key", "cancel-deletion", "own"]);
    watch.run(&["key", "enable", "own"]);
    watch.run(&["kms", "rotate-root"]);

    watch.run(&["backend", "restart", "own"]);
    watch.check_serving_cores(&["own"], "backend restart");
    watch.run(&["snapshot", "create", "own", "first"]);
    watch.check_serving_cores(&["own"], "snapshot create");
    watch.run(&["disk", "create", "clone", "--snapshot", "own/first"]);
    let clone = watch.attach("clone");
    watch.kms.stop();
    watch.kms.serve();
    watch.check("a restart of the daemon");
    watch.check_serving_cores(
        &["own", "service", "imported", "clone"],
        "a restart of the daemon",
    );
    watch.detach("clone", clone);
    for (disk, guest) in ["own", "service", "imported"].into_iter().zip(guests) {
        watch.detach(disk, guest);
    }
    watch.run(&["rollback", "own", "first"]);
    watch.run(&["disk", "reinit", "own"]);

    let image = watch.kms.path_text("image");
    watch.run(&["disk", "export", "service", &image, "--decrypt"]);
    watch.run(&["disk", "import", "back", &image]);
    watch.kms.create("copied", &[]);
    watch.run(&["disk", "copy", "service", "copied"]);
    watch.run(&["backup", "create", "service", "monday"]);
    watch.run(&["backup", "restore", "monday", "restored"]);
    watch.run(&[
        "image",
        "import",
        "base",
        &image,
        "--encrypted",
        "--key",
        "imported",
    ]);
    let guest = watch.attach("restored");
    watch.run(&["disk", "delete", "copied", "--now"]);
    watch.detach("restored", guest);
}

#[test]
fn rule_k06_neither_passphrase_nor_its_key_nor_a_backups_root_key_is_left() {
    if !can_look() {
        return;
    }
    let mut kms = Kms::empty();
    kms.environment.push(few_arenas());
    let (file, backup) = (kms.path_text("passphrase"), kms.path_text("backup"));
    fs::write(&file, format!("{PASSPHRASE}\n")).unwrap();
    let init = [
        "init",
        "--region",
        REGION,
        "--root-key",
        "passphrase",
        "--passphrase-file",
        &file,
    ];
    kms.daemon_command(&init).text();
    kms.serve_with(&["--passphrase-file", &file]);
    let mut watch = Watch::new(kms, RootKey::Passphrase);
    watch.learn("the passphrase", PASSPHRASE.as_bytes(), Needle::key);
    watch.run(&["kms", "activate"]);
    watch.kms.ok(&["instance", "register", "vm"]);
    watch.run(&["disk", "create", "data", "--size", "1MiB"]);
    let guest = watch.attach("data");
    watch.run(&["kms", "rotate-root"]);
    let options = [
        "--with-root-key",
        "--passphrase-file",
        &file,
        "--root-passphrase-file",
        &file,
    ];
    watch
        .kms
        .daemon_command(&[&["backup", &backup], &options[..]].concat())
        .text();
    watch.check("backup --with-root-key");
    watch.detach("data", guest);

    let mut restored = Kms::empty();
    restored.environment.push(few_arenas());
    restored
        .daemon_command(&["restore", &backup, "--passphrase-file", &file])
        .text();
    restored.serve();
    watch.kms = restored;
    watch.root = RootKey::File;
    watch.check("restore");
}

#[test]
fn rule_k06_a_root_key_from_a_credential_is_not_left() {
    if !can_look() {
        return;
    }
    let mut kms = Kms::empty();
    let credentials = kms.path("credentials");
    fs::create_dir(&credentials).unwrap();
    let place = |name: &str, key: &[u8]| fs::write(credentials.join(name), hex::encode(key)).unwrap();
    place("sealblk-root-key", &made(3));
    place("sealblk-root-key-next", &made(4));
    let directory = credentials.to_str().unwrap().to_owned();
    kms.environment = vec![("CREDENTIALS_DIRECTORY", directory), few_arenas()];
    kms.daemon_command(&["init", "--region", REGION, "--root-key", "credential"])
        .text();
    kms.serve();
    let mut watch = Watch::new(kms, RootKey::Credential(made(3).into()));
    watch.run(&["kms", "activate"]);
    watch.kms.ok(&["instance", "register", "vm"]);
    watch.run(&["disk", "create", "data", "--size", "1MiB"]);
    let guest = watch.attach("data");
    watch.kms.ok(&["kms", "rotate-root"]);
    watch.root = RootKey::Credential(made(4).into());
    watch.check("kms rotate-root");
    watch.detach("data", guest);
}

//! Where keys and plaintext are not: rules K06 and K07, with the keys computed by an independent implementation.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::Signal;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::keys::DiskKeys;
use sealblk_e2e::kms::{self, Kms, is_root};
use sealblk_e2e::search::{Needle, found_below, found_in_file};
use sealblk_e2e::{eventually, memory, process};
use xts_mode::{Xts128, get_tweak_default};

const MARKER: &[u8] = b"The marker that must be nowhere but in the guest.";

/// An attached disk of a KMS, whose guest has written the marker into the first 64 KiB.
struct Scene {
    kms: Kms,
    pid: i32,
    disk_file: std::path::PathBuf,
    guest: Guest,
    keys: DiskKeys,
}

fn scene() -> Scene {
    let kms = Kms::start();
    let attachment = kms.attached();
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(0, &plaintext());
    guest.flush();
    assert_eq!(guest.read(0, plaintext().len()), plaintext());
    let keys = DiskKeys::of(&kms.state(), "data");
    let disk_file = kms::path(&kms.disk("data"), "path").to_owned();
    Scene {
        pid: kms::pid(&attachment),
        kms,
        disk_file,
        guest,
        keys,
    }
}

fn plaintext() -> Vec<u8> {
    MARKER.iter().copied().cycle().take(64 << 10).collect()
}

/// Every secret that must not be found, without the root key, which has a file of its own.
fn secrets(keys: &DiskKeys) -> Vec<Needle> {
    vec![
        Needle::text("marker", MARKER),
        Needle::key("master key", &keys.master),
        Needle::key("data key", &keys.data),
        Needle::key("lineage salt", &keys.salt),
        Needle::key("lineage key", &keys.lineage),
        Needle::key("XTS data key", &keys.xts[..32]),
        Needle::key("XTS tweak key", &keys.xts[32..]),
    ]
}

/// The disk's file has the ciphertext under the keys that the test searches for: they are the ones in use.
fn assert_keys_are_real(scene: &Scene) {
    use aes::cipher::KeyInit;
    let cipher = |half: &[u8]| aes::Aes256::new_from_slice(half).unwrap();
    let xts = Xts128::new(cipher(&scene.keys.xts[..32]), cipher(&scene.keys.xts[32..]));
    let mut bytes = plaintext();
    xts.encrypt_area(&mut bytes, 512, 0, get_tweak_default);
    // Wherever the store has put it.
    let ciphertext = [Needle::text("ciphertext", &bytes[..4096])];
    assert_eq!(
        found_in_file(&scene.disk_file, &ciphertext),
        ["ciphertext"],
        "the disk's ciphertext is not that of the documented keys"
    );
}

#[test]
fn rule_k06_no_key_and_no_plaintext_is_in_any_file_argument_or_environment() {
    let mut scene = scene();
    assert_keys_are_real(&scene);
    let secrets = secrets(&scene.keys);
    // The search finds what is there: the root key in its file.
    let root = Needle::key("root key", &scene.keys.root);
    assert_eq!(
        found_in_file(&scene.kms.state().join("root.key"), std::slice::from_ref(&root)),
        ["root key"]
    );

    let (found, files) = found_below(&scene.kms.path("."), &secrets);
    assert!(found.is_empty() && files >= 5, "{found:?} in {files} files");
    let (found, _) = found_below(&scene.kms.path("."), &[root]);
    assert_eq!(found.len(), 1, "the root key is in its file only: {found:?}");
    assert!(found_in_file(&scene.disk_file, &secrets).is_empty());

    for pid in [scene.pid, scene.kms.pid()] {
        for file in ["cmdline", "environ"] {
            match fs::read(format!("/proc/{pid}/{file}")) {
                Ok(bytes) => assert!(!secrets.iter().any(|needle| needle.is_in(&bytes)), "{pid} {file}"),
                Err(error) => assert!(!is_root(), "{error}"),
            }
        }
    }
    // A plain disk shows that the search would find the marker in a disk's file.
    scene.kms.create("plain", &["--encrypted=false"]);
    let attachment = scene.kms.ok(&["attach", "plain", "vm"]);
    scene.guest = Guest::connect(kms::path(&attachment, "socket"));
    scene.guest.write(0, &plaintext());
    scene.guest.flush();
    let plain = scene.kms.disk("plain");
    assert_eq!(found_in_file(kms::path(&plain, "path"), &secrets), ["marker"]);
}

#[test]
fn rule_k06_no_key_is_left_in_files_after_the_end() {
    let mut scene = scene();
    let secrets = secrets(&scene.keys);
    scene.kms.ok(&["detach", "data", "--force"]);
    scene.kms.stop();
    let (found, files) = found_below(&scene.kms.path("."), &secrets);
    assert!(found.is_empty() && files >= 4, "{found:?} in {files} files");
}

#[test]
fn rule_k06_a_serving_process_has_no_core_dump() {
    let scene = scene();
    for pid in [scene.pid, scene.kms.pid()] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let limit = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let values: Vec<&str> = limit.split_whitespace().skip(4).take(2).collect();
        assert_eq!(values, ["0", "0"], "{limit}");
    }
    // What is not dumpable belongs to root in /proc, whoever runs it (proc(5)).
    let owner = fs::metadata(format!("/proc/{}/mem", scene.pid)).unwrap().uid();
    let status = fs::read_to_string(format!("/proc/{}/status", scene.pid)).unwrap();
    let uid = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap()
        .to_owned();
    assert_eq!(owner, 0);
    assert!(
        !uid.split_whitespace().any(|field| field == "0"),
        "a backend does not run as root: {uid}"
    );

    let directory = fs::read_link(format!("/proc/{}/cwd", scene.pid));
    process::signal(scene.pid, Signal::ABORT);
    eventually("the end of an aborted process", || {
        (!process::is_running(scene.pid)).then_some(())
    });
    for directory in [directory.ok().as_deref(), Some(&*scene.kms.path("."))]
        .into_iter()
        .flatten()
    {
        assert!(
            !has_core_file(directory, scene.pid),
            "a core file in {}",
            directory.display()
        );
    }
}

/// Looks for `core`, `core.PID` and the like.
fn has_core_file(directory: &Path, pid: i32) -> bool {
    let pid = pid.to_string();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| name == "core" || name.starts_with("core.") && name.contains(&pid))
}

#[test]
fn rule_k06_a_debugger_of_root_dumps_no_key() {
    let scene = scene();
    let searched = memory::search(scene.pid, &secrets(&scene.keys)[1..]);
    if !is_root() {
        searched.expect_err("the memory of a serving process is closed to its own user");
        return;
    }
    let search = searched.unwrap();
    assert!(search.found.is_empty(), "{:?}", search.found);
    assert!(search.searched > 1 << 20 && search.excluded >= 4096, "{search:?}");
}

#[test]
fn rule_k06_the_kms_keeps_no_key_that_a_debugger_dumps() {
    let scene = scene();
    let mut needles = secrets(&scene.keys)[1..].to_vec();
    needles.push(Needle::key("root key", &scene.keys.root));
    if is_root() {
        let search = memory::search(scene.kms.pid(), &needles).unwrap();
        assert!(search.found.is_empty(), "{:?}", search.found);
        assert!(search.excluded >= 4096, "{search:?}");
    }
}

#[test]
fn rule_k07_no_answer_has_key_material() {
    let scene = scene();
    let mut needles = secrets(&scene.keys);
    needles.push(Needle::key("root key", &scene.keys.root));
    let key = scene.kms.ok(&["key", "list"])["keys"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let calls: [&[&str]; 10] = [
        &["kms", "status"],
        &["key", "list"],
        &["key", "show", &key],
        &["instance", "list"],
        &["instance", "show", "vm"],
        &["disk", "list"],
        &["disk", "show", "data"],
        &["usage"],
        &["audit"],
        &["detach", "data", "--force"],
    ];
    for call in calls {
        let answer = scene.kms.ok(call).to_string();
        let found: Vec<&Needle> = needles
            .iter()
            .filter(|needle| needle.is_in(answer.as_bytes()))
            .collect();
        assert!(found.is_empty(), "{call:?}: {found:?}");
        assert!(
            !answer.contains("wrapped") && !answer.contains("salt"),
            "{call:?}: {answer}"
        );
    }
    // CMKs live apart from the data: in the catalogue only, wrapped.
    let key = scene.keys.master;
    assert!(found_in_file(&scene.disk_file, &[Needle::key("master key", &key)]).is_empty());
}

//! What the modules share: daemons of every profile, and guests on their disks.

use std::fmt::Debug;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms, text};
use serde_json::json;

/// The policy profiles, as `docs/rules-profiles.md` has them.
pub(crate) const PROFILES: [&str; 5] = [
    "tencent-cbs",
    "alibaba-ecs-classic",
    "alibaba-ecs",
    "huawei-evs",
    "sealblk",
];

/// What is expected under each profile, in the order of [`PROFILES`].
pub(crate) type Table<T> = [(&'static str, T); PROFILES.len()];

/// The outcome of a call: it succeeds, or it is refused with this code by this rule.
pub(crate) type Side = Result<(), (&'static str, &'static str)>;

/// Micro-units that suffice for every test.
const BALANCE: u64 = 100_000_000;

/// Bytes that [`mark`] writes.
pub(crate) const BLOCK: usize = 4096;
/// Where it writes them.
pub(crate) const SECTOR: u64 = 8;

/// Runs a test under each profile, on a daemon that was activated or granted the use of the keys.
pub(crate) fn each<T: Debug>(table: Table<T>, test: impl Fn(&mut Kms, T)) {
    each_closed(BALANCE, table, |kms, expected| {
        open_gate(kms);
        test(kms, expected);
    });
}

/// As [`each`], with this balance, and before the account was activated or has granted anything.
pub(crate) fn each_closed<T: Debug>(balance: u64, table: Table<T>, test: impl Fn(&mut Kms, T)) {
    assert_eq!(table.each_ref().map(|(profile, _)| *profile), PROFILES);
    for (profile, expected) in table {
        eprintln!("profile {profile}: {expected:?}");
        test(&mut Kms::of_profile(profile, balance), expected);
    }
}

/// Activates the KMS, or grants the use of it, as the profile asks.
pub(crate) fn open_gate(kms: &Kms) {
    let verb = match text(&kms.ok(&["kms", "profile"]), "gate") {
        "grant" => "grant",
        _ => "activate",
    };
    kms.ok(&["kms", verb]);
}

/// The daemon again, with these users, each of an account and with a role. They need no entry anywhere else.
pub(crate) fn serve_users(kms: &mut Kms, users: &[(u32, &str, &str)]) {
    let principals = users
        .iter()
        .map(|(uid, account, role)| json!({"uid": uid, "account": account, "roles": [role]}));
    let principals: Vec<_> = principals.collect();
    let file = kms.path_text("accounts.json");
    fs::write(&file, json!({"principals": principals}).to_string()).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    kms.stop();
    kms.serve_with(&["--accounts", &file, "--socket-mode", "0666"]);
}

/// Runs `sealctl` and asserts the outcome; a refusal has changed nothing.
pub(crate) fn assert_side(kms: &Kms, arguments: &[&str], expected: Side) {
    match expected {
        Ok(()) => {
            kms.ok(arguments);
        }
        Err((code, rule)) => {
            kms.refused(arguments, code, Some(rule));
        }
    }
}

/// An activated KMS with the instance `vm` and the encrypted disk `data`.
pub(crate) fn with_disk() -> Kms {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    kms
}

/// As [`with_disk`], with the disk under the customer key `mine`.
pub(crate) fn with_customer_key() -> Kms {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["key", "create", "mine"]);
    kms.create("data", &["--key", "mine"]);
    kms
}

/// Attaches the disk to `vm` and connects to it.
pub(crate) fn attach(kms: &Kms, disk: &str) -> Guest {
    let attachment = kms.ok(&["attach", disk, "vm"]);
    Guest::connect(kms::path(&attachment, "socket"))
}

/// Attaches the disk, lets a guest do something with it, and detaches it.
pub(crate) fn briefly<T>(kms: &Kms, disk: &str, work: impl FnOnce(&mut Guest) -> T) -> T {
    let mut guest = attach(kms, disk);
    let result = work(&mut guest);
    drop(guest);
    kms.ok(&["detach", disk, "--force"]);
    result
}

/// Writes a block of this byte, durably.
pub(crate) fn mark(guest: &mut Guest, byte: u8) {
    guest.write(SECTOR, &[byte; BLOCK]);
    guest.flush();
}

/// The byte that was marked; 0 where none was.
pub(crate) fn marked(guest: &mut Guest) -> u8 {
    let block = guest.read(SECTOR, BLOCK);
    assert!(block.iter().all(|byte| *byte == block[0]), "one write in whole");
    block[0]
}

/// What the key `name` is shown to be.
pub(crate) fn key_state(kms: &Kms, name: &str) -> String {
    text(&kms.ok(&["key", "show", name]), "state").to_owned()
}

/// How many records of this call with this decision the audit log has.
pub(crate) fn audited(kms: &Kms, call: &str, decision: &str) -> usize {
    let log = kms.ok(&["audit"]);
    let records = log["audit"].as_array().expect("records").iter();
    records
        .filter(|record| record["call"] == call && record["decision"] == decision)
        .count()
}

/// Whether this test runs as root, and says so if it does not.
pub(crate) fn is_root() -> bool {
    let root = kms::is_root();
    if !root {
        eprintln!("skipped: only root can call as other users");
    }
    root
}

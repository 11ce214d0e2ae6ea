//! Backup and restore of the catalogue, by the daemon's command line.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use sealblk_e2e::frontend::Guest;
use sealblk_e2e::keys::DiskKeys;
use sealblk_e2e::kms::{self, Kms, REGION};
use sealblk_e2e::search::{Needle, found_in_file};

/// A KMS with the instance `vm` and the disk `data`, whose first sector holds 7s; backed up while it serves the disk.
fn backed_up(arguments: &[&str]) -> Kms {
    let mut kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &["--path", &kms.path_text("data.img")]);
    let attachment = kms.ok(&["attach", "data", "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(0, &[7; 512]);
    guest.flush();
    kms.ok(&["detach", "data", "--force"]);
    kms.create("other", &[]);
    kms.ok(&["attach", "other", "vm"]);
    let file = kms.path_text("backup.db");
    let backup = kms.daemon_command(&[&["backup", &file], arguments].concat());
    assert_eq!(backup.status, Some(0), "{backup:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    kms.daemon_command(&["backup", &file]).refusal("FileExists", None);
    kms.ok(&["detach", "other"]);
    kms.stop();
    kms
}

fn assert_data_is_back(kms: &Kms) {
    let attachment = kms.ok(&["attach", "data", "vm"]);
    assert_eq!(
        Guest::connect(kms::path(&attachment, "socket")).read(0, 512),
        [7; 512]
    );
    assert_eq!(kms.ok(&["kms", "status"])["region"], REGION);
}

#[test]
fn a_backup_and_the_root_key_bring_the_disks_back() {
    let old = backed_up(&[]);
    let backup = old.path_text("backup.db");
    let keys = DiskKeys::of(&old.state(), "data");
    let secrets = [
        Needle::key("root key", &keys.root),
        Needle::key("master key", &keys.master),
        Needle::key("data key", &keys.data),
        Needle::key("lineage key", &keys.lineage),
    ];
    assert!(found_in_file(old.path("backup.db").as_path(), &secrets).is_empty());

    let mut new = Kms::empty();
    assert_eq!(new.daemon_command(&["restore", &backup]).status, Some(0));
    new.daemon_command(&["restore", &backup])
        .refusal("StateExists", None);
    new.serve_refused().refusal("RootKeyMissing", None);
    fs::copy(old.state().join("root.key"), new.state().join("root.key")).unwrap();
    new.serve();
    assert_data_is_back(&new);
}

#[test]
fn a_backup_with_the_root_key_needs_its_passphrase() {
    let passphrases = Kms::empty();
    let write = |name: &str, text: &str| {
        let path = passphrases.path_text(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    };
    let right = write("right", "correct horse battery\n");
    let wrong = write("wrong", "incorrect horse battery\n");
    let old = backed_up(&["--with-root-key", "--passphrase-file", &right]);
    let backup = old.path_text("backup.db");
    let mut new = Kms::empty();
    let restore =
        |passphrase: &str| new.daemon_command(&["restore", &backup, "--passphrase-file", passphrase]);
    restore(&wrong).refusal("WrongPassphrase", None);
    let restored = restore(&right);
    assert_eq!(restored.status, Some(0), "{restored:?}");
    let key = |kms: &Kms| fs::read(kms.state().join("root.key")).unwrap();
    assert_eq!(key(&new), key(&old));
    new.serve();
    assert_data_is_back(&new);
}

#[test]
fn damaged_backups_are_refused() {
    let old = backed_up(&[]);
    let bytes = fs::read(old.path("backup.db")).unwrap();
    let damaged = old.path_text("damaged.db");
    let new = Kms::empty();
    for contents in [&b""[..], b"garbage", &bytes[..bytes.len() / 2]] {
        fs::write(&damaged, contents).unwrap();
        new.daemon_command(&["restore", &damaged])
            .refusal("BackupInvalid", None);
        assert!(!new.state().join("catalogue.db").exists());
    }
}

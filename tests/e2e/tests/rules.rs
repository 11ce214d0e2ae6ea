//! The rules, each by its number: what it allows and what it refuses, through the public commands.

use std::process::Stdio;

use sealblk_e2e::Outcome;
use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::keys::DiskKeys;
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::locks::try_lock;

const CREATE: [&str; 5] = ["disk", "create", "data", "--size", "1MiB"];

#[test]
fn rule_k01_no_encrypted_disk_before_activation() {
    let kms = Kms::inactive();
    kms.refused(&CREATE, "KmsNotActivated", Some("K01"));
    assert_eq!(kms.ok(&["key", "list"])["keys"].as_array().unwrap().len(), 0);
    kms.create("plain", &["--encrypted=false"]);
    kms.ok(&["kms", "activate"]);
    kms.ok(&["kms", "activate"]);
    kms.ok(&CREATE);
}

#[test]
fn rule_k03_concurrent_first_uses_make_one_service_key() {
    let kms = Kms::start();
    assert_eq!(kms.ok(&["key", "list"])["keys"].as_array().unwrap().len(), 0);
    let children: Vec<_> = (0..6)
        .map(|number| {
            let mut program = kms.sealctl_program(&["disk", "create", &format!("d{number}"), "--size", "1M"]);
            program
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        Outcome::from(child.wait_with_output().unwrap()).text();
    }
    let keys = kms.ok(&["key", "list"]);
    let [key] = keys["keys"].as_array().unwrap().as_slice() else {
        panic!("{keys}")
    };
    assert_eq!((text(key, "origin"), text(key, "state")), ("service", "Enabled"));
    assert_eq!(key["disks"], 6);
    for number in 0..6 {
        assert_eq!(kms.disk(&format!("d{number}"))["key"], key["id"]);
    }
}

#[test]
fn rule_k03_the_service_key_is_shown_and_named_but_nothing_else() {
    let kms = Kms::start();
    kms.create("first", &[]);
    let key = kms.ok(&["key", "list"])["keys"][0].clone();
    let id = text(&key, "id");
    assert_eq!(kms.ok(&["key", "show", id])["id"], key["id"]);
    assert_eq!(kms.create("second", &["--key", id])["key"], key["id"]);
    kms.sealctl(&["key", "delete", id]).usage_error();
    for verb in ["disable", "rotate", "schedule-deletion"] {
        kms.refused(&["key", verb, id], "ServiceKeyFixed", Some("K03"));
    }
    kms.refused(&["instance", "remove", id], "NotFound", None);
    kms.refused(&["disk", "delete", id], "NotFound", None);
}

#[test]
fn rule_k03_a_refused_first_use_makes_no_key() {
    let kms = Kms::start();
    let foreign = kms.path_text("foreign.img");
    std::fs::write(&foreign, b"precious").unwrap();
    let missing = kms.path_text("missing/disk.img");
    let refusals = [
        (foreign.as_str(), "FileNotEmpty"),
        (&missing, "InvalidPath"),
        ("/dev/null", "NotAFileOrBlockDevice"),
    ];
    for (path, code) in refusals {
        kms.refused(&[&CREATE[..], &["--path", path]].concat(), code, None);
        assert_eq!(
            kms.ok(&["key", "list"])["keys"].as_array().unwrap().len(),
            0,
            "{code}"
        );
    }
}

#[test]
fn rule_k04_every_disk_has_a_256_bit_data_key_of_its_own_under_the_service_key() {
    let kms = Kms::start();
    let (one, two) = (kms.create("one", &[]), kms.create("two", &[]));
    assert_eq!(one["key"], two["key"]);
    assert_ne!(one["lineage"], two["lineage"]);
    let (one, two) = (
        DiskKeys::of(&kms.state(), "one"),
        DiskKeys::of(&kms.state(), "two"),
    );
    assert_eq!(one.master, two.master);
    assert_eq!((one.data.len(), one.lineage.len(), one.xts.len()), (32, 32, 64));
    assert!(one.data != two.data && one.lineage != two.lineage && one.xts != two.xts);
    let plain = kms.create("plain", &["--encrypted=false"]);
    assert!(plain["key"].is_null() && plain["lineage"].is_null());
}

#[test]
fn rule_k15_keys_of_another_region_are_refused() {
    let kms = Kms::start();
    let other = Kms::start();
    other.create("data", &[]);
    let foreign = text(&other.ok(&["key", "list"])["keys"][0], "id").to_owned();
    kms.refused(
        &[&CREATE[..], &["--key", &foreign]].concat(),
        "WrongRegion",
        Some("K15"),
    );
    kms.create("data", &[]);
    kms.refused(
        &["disk", "create", "more", "--size", "1M", "--key", &foreign],
        "WrongRegion",
        Some("K15"),
    );
}

#[test]
fn rule_d01_disks_are_empty_and_encrypted_or_not() {
    let kms = Kms::start();
    assert_eq!(kms.create("encrypted", &[])["encrypted"], true);
    assert_eq!(kms.create("asked", &["--encrypted=true"])["encrypted"], true);
    assert_eq!(kms.create("plain", &["--encrypted=false"])["encrypted"], false);
    kms.ok(&["instance", "register", "vm"]);
    let attachment = kms.ok(&["attach", "plain", "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    assert_eq!(guest.read(0, 65536), vec![0; 65536]);
}

#[test]
fn rule_d02_only_files_and_block_devices_become_disks() {
    let kms = Kms::start();
    kms.create("first", &[]);
    for (path, code) in [
        ("/dev/null", "NotAFileOrBlockDevice"),
        ("/dev/tty", "NotAFileOrBlockDevice"),
        ("/proc", "InvalidPath"),
    ] {
        let create = [&CREATE[..], &["--path", path]].concat();
        kms.refused(&create, code, None);
    }
    kms.create("data", &["--path", &kms.path_text("data.img")]);
}

#[test]
fn rule_d03_the_encryption_attribute_never_changes() {
    let mut kms = Kms::start();
    kms.create("encrypted", &[]);
    kms.create("plain", &["--encrypted=false"]);
    for verb in ["update", "encrypt", "decrypt", "convert"] {
        kms.sealctl(&["disk", verb, "plain", "--encrypted=true"])
            .usage_error();
    }
    kms.refused(&["disk", "create", "plain", "--size", "1MiB"], "NameTaken", None);
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["attach", "plain", "vm"]);
    kms.ok(&["detach", "plain"]);
    kms.stop();
    let change = "UPDATE volumes SET encrypted = 1 - encrypted";
    let refusal = Catalogue::open(&kms.state()).try_execute(change).unwrap_err();
    assert!(refusal.contains("D03"), "{refusal}");
    kms.serve();
    assert_eq!(
        (
            &kms.disk("encrypted")["encrypted"],
            &kms.disk("plain")["encrypted"]
        ),
        (&true.into(), &false.into())
    );
}

#[test]
fn rule_d05_a_new_disk_is_available_and_states_permit_their_calls() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    assert_eq!(kms.create("data", &[])["state"], "available");
    kms.ok(&["attach", "data", "vm"]);
    assert_eq!(kms.disk("data")["state"], "in-use");
    kms.refused(&["disk", "delete", "data"], "DiskAttached", None);
    kms.refused(&["attach", "data", "vm"], "AlreadyAttached", Some("D09"));
    assert_eq!(kms.ok(&["detach", "data"])["state"], "available");
    kms.ok(&["disk", "delete", "data"]);
}

#[test]
fn rule_a01_disk_and_instance_are_in_one_zone() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "here"]);
    kms.ok(&["instance", "register", "there", "--zone", "other-zone"]);
    kms.create("data", &[]);
    kms.create("remote", &["--zone", "other-zone"]);
    kms.refused(&["attach", "data", "there"], "ZoneMismatch", Some("A01"));
    kms.refused(&["attach", "remote", "here"], "ZoneMismatch", Some("A01"));
    kms.ok(&["attach", "data", "here"]);
    kms.ok(&["attach", "remote", "there"]);
}

#[test]
fn rule_a03_encrypted_disks_and_local_storage_do_not_meet() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "local", "--local-storage"]);
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    kms.create("plain", &["--encrypted=false"]);
    kms.refused(&["attach", "data", "local"], "LocalStorage", Some("A03"));
    kms.ok(&["attach", "plain", "local"]);
    kms.ok(&["attach", "data", "vm"]);
}

#[test]
fn rule_a04_bare_metal_is_refused_by_the_profile_that_says_so() {
    let kms = Kms::start();
    assert_eq!(kms.ok(&["kms", "status"])["profile"], "sealblk");
    kms.ok(&["instance", "register", "metal", "--bare-metal"]);
    kms.create("data", &[]);
    kms.ok(&["attach", "data", "metal"]);
    let mut other = Kms::empty();
    let init = ["init", "--region", "r", "--profile", "alibaba-ecs"];
    other.daemon_command(&init).text();
    other.serve();
    other.ok(&["kms", "activate"]);
    other.ok(&["instance", "register", "metal", "--bare-metal"]);
    other.create("data", &[]);
    other.refused(&["attach", "data", "metal"], "BareMetal", Some("A04"));
}

#[test]
fn rule_a05_attach_needs_an_enabled_key() {
    let mut kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.create("data", &[]);
    let id = text(&kms.ok(&["key", "list"])["keys"][0], "id").to_owned();
    for (state, deletion) in [
        ("Disabled", "NULL"),
        ("PendingDeletion", "'2999-01-01T00:00:00.000Z'"),
    ] {
        kms.stop();
        let change = format!("UPDATE keys SET state = '{state}', deletion = {deletion}");
        Catalogue::open(&kms.state()).execute(&change);
        kms.serve();
        let sentence = kms.refused(&["attach", "data", "vm"], "KeyNotUsable", Some("A05"));
        assert!(sentence.contains(&id) && sentence.contains(state), "{sentence}");
    }
    kms.stop();
    Catalogue::open(&kms.state()).execute("UPDATE keys SET state = 'Enabled', deletion = NULL");
    kms.serve();
    kms.ok(&["attach", "data", "vm"]);
}

#[test]
fn rule_a08_one_process_serves_a_disk_by_a_lock_on_the_store() {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    let disk = kms.create("data", &[]);
    let open = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(kms::path(&disk, "path"))
            .unwrap()
    };
    let stranger = open();
    assert!(try_lock(&stranger));
    kms.refused(&["attach", "data", "vm"], "StoreInUse", Some("A08"));
    assert_eq!(kms.disk("data")["state"], "available");
    drop(stranger);
    kms.ok(&["attach", "data", "vm"]);
    assert!(!try_lock(&open()), "the store of a served disk is not locked");
    kms.ok(&["detach", "data"]);
    assert!(try_lock(&open()), "the store of a detached disk is still locked");
}

#[test]
fn rule_m01_create_attach_and_detach_of_encrypted_disks_count() {
    let kms = Kms::start();
    let metered = || {
        [
            kms.metered("create"),
            kms.metered("attach"),
            kms.metered("detach"),
        ]
    };
    kms.ok(&["instance", "register", "vm"]);
    kms.ok(&["instance", "register", "local", "--local-storage"]);
    assert_eq!(metered(), [0, 0, 0]);
    kms.create("data", &[]);
    assert_eq!(metered(), [1, 0, 0]);
    let attachment = kms.ok(&["attach", "data", "vm"]);
    assert_eq!(metered(), [1, 1, 0]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(0, &[1; 512]);
    guest.read(0, 512);
    kms.disk("data");
    assert_eq!(metered(), [1, 1, 0]);
    kms.ok(&["detach", "data", "--force"]);
    assert_eq!(metered(), [1, 1, 1]);
    // Neither plain disks nor refused calls are metered; deleting is not either.
    kms.create("plain", &["--encrypted=false"]);
    kms.ok(&["attach", "plain", "vm"]);
    kms.ok(&["detach", "plain"]);
    kms.refused(&["attach", "data", "local"], "LocalStorage", Some("A03"));
    kms.ok(&["disk", "delete", "data"]);
    assert_eq!(metered(), [1, 1, 1]);
}

#[test]
fn rule_m04_every_decision_is_in_the_audit_log() {
    let mut kms = Kms::start();
    kms.ok(&["instance", "register", "local", "--local-storage"]);
    kms.create("data", &[]);
    kms.refused(&["attach", "data", "local"], "LocalStorage", Some("A03"));
    let log = kms.ok(&["audit"]);
    let records = log["audit"].as_array().unwrap();
    let has = |call: &str, decision: &str| {
        records
            .iter()
            .any(|record| record["call"] == call && record["decision"] == decision)
    };
    assert!(
        has("kms.activate", "allowed") && has("disk.create", "allowed"),
        "{log}"
    );
    let refused = records
        .iter()
        .find(|record| record["decision"] == "refused")
        .unwrap();
    assert_eq!((text(refused, "call"), text(refused, "rule")), ("attach", "A03"));
    assert_eq!(
        (text(refused, "code"), refused["uid"].as_u64()),
        ("LocalStorage", Some(own_uid()))
    );
    for (index, record) in records.iter().enumerate() {
        assert_eq!(
            (record["seq"].as_u64(), text(record, "hash").len()),
            (Some(index as u64 + 1), 64)
        );
    }
    let newest = kms.ok(&["audit", "--limit", "1"]);
    assert_eq!(
        newest["audit"].as_array().unwrap().as_slice(),
        &records[records.len() - 1..]
    );
    let later = kms.ok(&["audit", "--after", "1"]);
    assert_eq!(later["audit"].as_array().unwrap().as_slice(), &records[1..]);

    kms.stop();
    let mut catalogue = Catalogue::open(&kms.state());
    for change in ["DELETE FROM audit", "UPDATE audit SET decision = 'allowed'"] {
        let refusal = catalogue.try_execute(change).unwrap_err();
        assert!(refusal.contains("M04"), "{refusal}");
    }
}

#[test]
fn rule_m04_without_a_record_nothing_is_done() {
    let mut kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms.stop();
    let stop_writing = "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END";
    Catalogue::open(&kms.state()).execute(stop_writing);
    kms.serve();
    kms.refused(&CREATE, "AuditFailed", Some("M04"));
    kms.refused(&["instance", "register", "more"], "AuditFailed", Some("M04"));
    kms.stop();
    Catalogue::open(&kms.state()).execute("DROP TRIGGER no_more");
    kms.serve();
    kms.ok(&CREATE);
}

fn own_uid() -> u64 {
    rustix::process::getuid().as_raw().into()
}

//! Accounts, roles and the grant of rule K02: calls of several users, which root alone can start.

use std::os::unix::fs::PermissionsExt;

use crate::common::users::{
    ADMIN, AUDITOR, NOBODY, OPERATOR, OTHER, SECURITY, does, entry, everyone, is_root, may_not, restart,
    restart_with, restart_with_paths, sealctl, write_accounts,
};
use crate::common::{Kms, MIB, Value, is_alive, json, kill};

#[test]
fn each_call_needs_its_role_and_a_refusal_names_it() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::start();
    restart(&mut kms, &everyone());
    let lacks = |uid, words: &str, role: &str| {
        let message = may_not(&kms, uid, words, "NotAuthorized", None);
        assert!(
            message.contains(role) && message.contains("ask somebody"),
            "{words}: {message}"
        );
    };
    lacks(OPERATOR, "kms activate", "security-administrator");
    lacks(ADMIN, "kms activate", "security-administrator");
    assert_eq!(does(&kms, SECURITY, "kms activate")["state"], "active");
    lacks(SECURITY, "disk create data --size 1MiB", "operator or admin");
    lacks(AUDITOR, "disk create data --size 1MiB", "operator or admin");
    assert_eq!(kms.query("SELECT count(*) FROM disks"), 0);
    does(&kms, OPERATOR, "disk create data --size 1MiB");
    does(&kms, ADMIN, "instance register vm");
    does(&kms, OPERATOR, "attach data vm");
    does(&kms, OPERATOR, "detach data");
    for reader in [OPERATOR, SECURITY, AUDITOR, ADMIN] {
        assert_eq!(does(&kms, reader, "disk show data")["name"], "data");
        assert_eq!(
            does(&kms, reader, "key list")["keys"].as_array().unwrap().len(),
            1
        );
    }
    lacks(OPERATOR, "audit", "auditor");
    lacks(OPERATOR, "account list", "admin or auditor");
    lacks(AUDITOR, "account credit acme 5", "admin");
    let audit = does(&kms, AUDITOR, "audit");
    let refusals = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["object"] == "POST /v1/disks" && record["code"] == "NotAuthorized");
    assert_eq!(refusals.count(), 2, "refusals are in the log: {audit}");
    let message = may_not(&kms, NOBODY, "kms status", "NotAuthorized", None);
    assert!(message.contains("accounts file"), "{message}");
}

#[test]
fn the_accounts_file_is_read_again_by_a_signal_and_a_wrong_one_changes_nothing() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::active();
    restart(&mut kms, &everyone()[..4]);
    let pid = kms.pid();
    let read_again = |said: &str| {
        let before = kms.log().matches(said).count();
        kill(i64::from(pid), "HUP");
        kms.until(said, || kms.log().matches(said).count() > before);
    };
    may_not(&kms, OTHER, "disk list", "NotAuthorized", None);
    let limited = json!({"principals": everyone(), "accounts": {"other": {"limits": {"instances": 1}, "paths": ["/srv"]}}});
    std::fs::write(kms.path("accounts.json"), limited.to_string()).unwrap();
    read_again("the accounts file has been read again");
    does(&kms, OTHER, "instance register one");
    may_not(&kms, OTHER, "instance register two", "TooMany", None);
    let named = may_not(
        &kms,
        OTHER,
        "instance set one --vm-socket /run/qmp",
        "PathNotAllowed",
        None,
    );
    assert!(named.contains("/srv"), "{named}");
    does(&kms, OPERATOR, "disk list");

    std::fs::write(kms.path("accounts.json"), "{").unwrap();
    read_again("the accounts stay as they were");
    does(&kms, OTHER, "instance show one");
    may_not(&kms, OTHER, "instance register two", "TooMany", None);

    write_accounts(&kms, &everyone()[..4]);
    read_again("the accounts file has been read again");
    may_not(&kms, OTHER, "instance list", "NotAuthorized", None);
    assert_eq!(kms.pid(), pid);
}

#[test]
fn nothing_of_another_account_is_seen_or_used() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::start();
    restart(&mut kms, &everyone());
    does(&kms, SECURITY, "kms activate");
    let message = may_not(
        &kms,
        OTHER,
        "disk create data --size 1MiB",
        "KmsNotActivated",
        Some("K01"),
    );
    assert!(message.contains("kms activate"), "{message}");
    let disk = does(&kms, OPERATOR, "disk create data --size 1MiB");
    does(&kms, OPERATOR, "instance register vm");
    does(&kms, OPERATOR, "snapshot create data snap");
    let attachment = does(&kms, OPERATOR, "attach data vm");
    let (id, key) = (disk["id"].as_str().unwrap(), disk["key"].as_str().unwrap());
    for (list, rows) in [
        ("disk list", "disks"),
        ("instance list", "instances"),
        ("snapshot list", "snapshots"),
        ("key list", "keys"),
        ("usage", "usage"),
    ] {
        assert_eq!(does(&kms, OTHER, list)[rows], json!([]), "{list}");
    }
    does(&kms, OTHER, "kms activate");
    does(&kms, OTHER, "instance register vm");
    for name in ["data", id] {
        for words in [
            "disk show DISK",
            "disk delete DISK",
            "disk resize DISK --size 2MiB",
            "attach DISK vm",
            "detach DISK --force",
            "backend restart DISK",
            "snapshot create DISK other",
            "rollback DISK snap --force",
            "disk create new --snapshot DISK/snap",
        ] {
            may_not(&kms, OTHER, &words.replace("DISK", name), "NotFound", None);
        }
    }
    may_not(&kms, OTHER, &format!("key show {key}"), "NotFound", None);
    // Nor what is in the bin.
    let gone = does(&kms, OPERATOR, "disk create gone --size 1MiB");
    does(&kms, OPERATOR, "disk delete gone");
    assert_eq!(does(&kms, OTHER, "disk list --deleted")["disks"], json!([]));
    for name in ["gone", gone["id"].as_str().unwrap()] {
        for words in ["disk restore DISK", "disk show DISK", "disk delete DISK --now"] {
            may_not(&kms, OTHER, &words.replace("DISK", name), "NotFound", None);
        }
        may_not(
            &kms,
            AUDITOR,
            &format!("disk restore {name}"),
            "NotAuthorized",
            None,
        );
    }
    does(&kms, OPERATOR, "disk restore gone");
    let create = format!("disk create new --size 1MiB --key {key}");
    assert_eq!(sealctl(&kms, OTHER, &create).0, Some(1));
    assert_eq!(does(&kms, OTHER, "disk list")["disks"], json!([]));
    // Nor who knocked at the door: that is for the owner.
    may_not(&kms, NOBODY, "disk list", "NotAuthorized", None);
    let knocked = ("refused".to_owned(), "NotAuthorized".to_owned());
    assert_eq!(kms.audit("api"), [knocked]);
    let audit = does(&kms, OTHER, "audit");
    let records = audit["audit"].as_array().unwrap().iter();
    assert!(
        records.clone().all(|record| record["account"] == "other"),
        "{audit}"
    );
    // The same names are free here, under a key of this account's own.
    let own = does(&kms, OTHER, "disk create data --size 1MiB");
    assert!(own["key"] != disk["key"] && own["id"] != disk["id"]);
    let seen = does(&kms, OPERATOR, "disk show data");
    assert_eq!(
        (&seen["id"], &seen["state"], &seen["pid"]),
        (&disk["id"], &json!("in-use"), &attachment["pid"])
    );
    // Not even the owner of the KMS sees them.
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
}

#[test]
fn rule_m02_accounts_have_balances_of_their_own_which_the_owner_credits() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::of_profile("alibaba-ecs-classic", 10);
    restart(&mut kms, &everyone());
    let ids = |answer: Value| -> Vec<(String, u64)> {
        let rows = answer["accounts"].as_array().unwrap().clone();
        rows.iter()
            .map(|row| {
                (
                    row["id"].as_str().unwrap().to_owned(),
                    row["balance"].as_u64().unwrap(),
                )
            })
            .collect()
    };
    let own = |balance| vec![("acme".to_owned(), balance)];
    assert_eq!(ids(does(&kms, ADMIN, "account list")), own(0));
    may_not(&kms, ADMIN, "account show default", "NotFound", None);
    let message = may_not(&kms, ADMIN, "account credit acme 5", "NotAuthorized", None);
    assert!(message.contains("account default"), "{message}");
    does(&kms, 0, "account credit acme 5");
    assert_eq!(ids(does(&kms, ADMIN, "account list")), own(5));
    assert_eq!(does(&kms, OPERATOR, "usage")["balance"], 5);
    let all = ["acme", "default", "other"]
        .map(str::to_owned)
        .into_iter()
        .zip([5, 10, 0]);
    assert_eq!(ids(does(&kms, 0, "account list")), all.collect::<Vec<_>>());
}

#[test]
fn rule_i05_a_plain_image_is_shared_and_disks_are_made_from_it() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::start();
    restart(&mut kms, &everyone());
    does(&kms, SECURITY, "kms activate");
    does(&kms, OPERATOR, "disk create data --size 1MiB --encrypted=false");
    does(&kms, OPERATOR, "disk create secret --size 1MiB");
    let image = does(&kms, OPERATOR, "image create base --disk data");
    does(&kms, OPERATOR, "image create secret --disk secret");
    let id = image["id"].as_str().unwrap();
    let create = "disk create clone --image acme/base";
    // Before it is shared it is not there, by no name.
    for words in [create, "image show acme/base", &format!("image show {id}")] {
        may_not(&kms, OTHER, words, "NotFound", None);
    }
    let share = "image share secret --account other";
    may_not(&kms, OPERATOR, share, "EncryptedImageNotShared", Some("I05"));
    let shared = does(&kms, OPERATOR, "image share base --account other");
    assert_eq!(shared["shared_with"], json!(["other"]));
    let seen = does(&kms, OTHER, "image list")["images"].clone();
    assert_eq!(
        (&seen[0]["id"], &seen[0]["account"], &seen[1]),
        (&image["id"], &json!("acme"), &Value::Null)
    );
    assert_eq!(
        (&seen[0]["snapshot"], &seen[0]["shared_with"]),
        (&Value::Null, &Value::Null)
    );
    // By its name alone it is nobody's who has not made it.
    may_not(&kms, OTHER, "image show base", "NotFound", None);
    for words in [
        "image delete acme/base",
        "image set acme/base --name mine",
        "image share acme/base --account default",
        "image export acme/base /nowhere",
        "image copy acme/base --to-region eu-2",
    ] {
        let message = may_not(&kms, OTHER, words, "NotAuthorized", None);
        assert!(message.contains("acme"), "{message}");
    }
    let disk = does(&kms, OTHER, create);
    assert_eq!(disk["encrypted"], false);
    does(&kms, OTHER, "instance register vm");
    does(&kms, OTHER, "attach clone vm");
    // Unshared, deleted: the disk goes on.
    does(&kms, OPERATOR, "image unshare base --account other");
    may_not(
        &kms,
        OTHER,
        "disk create second --image acme/base",
        "NotFound",
        None,
    );
    for words in [
        "image delete base",
        "snapshot delete base",
        "disk delete data --now",
    ] {
        does(&kms, OPERATOR, words);
    }
    does(&kms, OTHER, "detach clone");
    does(&kms, OTHER, "attach clone vm");
    does(&kms, OTHER, "detach clone");
    does(&kms, OTHER, "disk delete clone --now");
    let volumes = kms.query("SELECT count(*) FROM volumes");
    assert_eq!(
        volumes, 1,
        "the plain disk's file has gone with its last dependant"
    );
}

#[test]
fn who_leaves_the_accounts_file_has_no_access_any_more() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::start();
    restart(&mut kms, &everyone());
    does(&kms, SECURITY, "kms activate");
    does(&kms, OPERATOR, "disk create data --size 1MiB");
    restart(&mut kms, &[entry(AUDITOR, "acme", &["auditor", "operator"])]);
    may_not(&kms, OPERATOR, "disk list", "NotAuthorized", None);
    // The account has what it had, and a user may have other roles.
    assert_eq!(does(&kms, AUDITOR, "disk show data")["name"], "data");
    does(&kms, AUDITOR, "disk delete data --now");
    kms.kill();
    kms.options.drain(..2);
    kms.serve();
    may_not(&kms, AUDITOR, "disk list", "NotAuthorized", None);
    assert_eq!(kms.get("/v1/kms")["account"], "default");
}

#[test]
fn an_accounts_file_that_is_wrong_keeps_the_daemon_from_serving() {
    let mut kms = Kms::start();
    kms.kill();
    let own = rustix::process::geteuid().as_raw();
    let auditor = entry(AUDITOR, "acme", &["auditor"]);
    let wrong = [
        vec![entry(own, "acme", &["auditor"])],
        vec![auditor.clone(), auditor.clone()],
        vec![entry(AUDITOR, "acme", &["root"])],
        vec![entry(AUDITOR, "no name", &["auditor"])],
    ];
    for principals in wrong {
        let file = write_accounts(&kms, &principals);
        kms.fails(&["serve", "--accounts", &file], "InvalidAccounts");
        assert_eq!(kms.query("SELECT count(*) FROM principals"), 1);
    }
    let file = write_accounts(&kms, &[auditor]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).unwrap();
    kms.fails(&["serve", "--accounts", &file], "InvalidAccounts");
    kms.fails(&["serve", "--accounts", &kms.path("missing")], "InvalidAccounts");
    kms.fails(&["serve", "--accounts", &kms.path("state")], "InvalidAccounts");
    kms.fails(&["serve", "--socket-mode", "rw"], "InvalidSocketMode");
    kms.serve();
    assert_eq!(kms.get("/v1/kms")["account"], "default");
}

#[test]
fn rule_k02_without_a_grant_nothing_encrypted_is_created_or_attached() {
    let kms = Kms::of_profile("huawei-evs", 0);
    assert_eq!(kms.get("/v1/kms")["state"], "inactive");
    kms.refuses("/v1/kms/activate", json!({}), "NotSupported", None);
    let body = json!({"name": "data", "size": MIB});
    let answer = kms.refuses("/v1/disks", body.clone(), "KmsNotGranted", Some("K02"));
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("Security Administrator"), "{message}");
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
    let plain = json!({"name": "plain", "size": MIB, "encrypted": false});
    kms.make("/v1/disks", plain);

    assert_eq!(kms.make("/v1/kms/grant", json!({}))["state"], "active");
    kms.make("/v1/kms/grant", json!({}));
    kms.make("/v1/disks", body);
    kms.disk("idle");
    kms.instance("vm");
    kms.snapshot("data", "snap");
    let attachment = kms.attach("data", "vm");

    assert_eq!(kms.make("/v1/kms/revoke", json!({}))["state"], "inactive");
    for (path, body) in [
        ("/v1/disks", json!({"name": "new", "size": MIB})),
        ("/v1/disks", json!({"name": "new", "snapshot": "data/snap"})),
        ("/v1/attachments", json!({"disk": "idle", "instance": "vm"})),
    ] {
        kms.refuses(path, body, "KmsNotGranted", Some("K02"));
    }
    // What is attached goes on, and can be detached; plain disks are nobody's business.
    assert!(is_alive(attachment["pid"].as_i64().unwrap()));
    kms.attach("plain", "vm");
    let detach = "/v1/disks/data/detach";
    kms.refuses(detach, json!({}), "DetachNeedsForce", Some("A07"));
    kms.make(detach, json!({"force": true}));
    let again = json!({"disk": "data", "instance": "vm"});
    kms.refuses("/v1/attachments", again, "KmsNotGranted", Some("K02"));
    assert_eq!(kms.usage("attach"), 1);

    kms.make("/v1/kms/grant", json!({}));
    kms.attach("data", "vm");
}

#[test]
fn rule_k02_only_a_security_administrator_grants() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::of_profile("huawei-evs", 0);
    restart(&mut kms, &everyone());
    for uid in [OPERATOR, ADMIN, AUDITOR] {
        for words in ["kms grant", "kms revoke"] {
            let message = may_not(&kms, uid, words, "NotSecurityAdministrator", Some("K02"));
            assert!(message.contains("security-administrator"), "{message}");
        }
    }
    let create = "disk create data --size 1MiB";
    may_not(&kms, OPERATOR, create, "KmsNotGranted", Some("K02"));
    does(&kms, SECURITY, "kms grant");
    does(&kms, OPERATOR, create);
    // A grant is one account's.
    may_not(&kms, OTHER, create, "KmsNotGranted", Some("K02"));
    does(&kms, SECURITY, "kms revoke");
    may_not(
        &kms,
        OPERATOR,
        "disk create new --size 1MiB",
        "KmsNotGranted",
        Some("K02"),
    );
}

#[test]
fn rule_k02_other_profiles_need_no_grant() {
    let kms = Kms::active();
    for path in ["/v1/kms/grant", "/v1/kms/revoke"] {
        let answer = kms.refuses(path, json!({}), "NotSupported", None);
        assert!(answer["message"].as_str().unwrap().contains("activate"));
    }
    kms.disk("data");
}

#[test]
fn refusals_of_strangers_are_counted_and_not_written_one_by_one() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::active();
    restart(&mut kms, &everyone());
    let (_, first) = sealctl(&kms, NOBODY, "disk list");
    for _ in 0..4 {
        may_not(&kms, NOBODY, "disk list", "NotAuthorized", None);
    }
    let request = first["request"].as_str().unwrap();
    let records = kms.get(&format!("/v1/audit?limit=10&request={request}"));
    assert_eq!(records["audit"][0]["uid"], NOBODY, "{first}");
    assert_eq!(kms.audit("api").len(), 1, "the first one");
    kms.stop();
    kms.serve();
    let counted =
        "SELECT count(*) FROM audit WHERE account = '' AND uid = 1800000006 AND object = 'caller: 4 calls'";
    assert_eq!(kms.query(counted), 1, "the end of the daemon writes the others");
}

#[test]
fn the_audit_log_is_archived_by_a_security_administrator_of_the_owner_s_account() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::active();
    let mut all = everyone();
    const ARCHIVIST: u32 = NOBODY + 1;
    all.push(entry(ARCHIVIST, "default", &["security-administrator"]));
    restart(&mut kms, &all);
    let directory = kms.path("archives");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = format!("{directory}/archive");
    let archive = format!("audit archive --before 2 {file}");
    for uid in [OPERATOR, AUDITOR, ADMIN, SECURITY] {
        may_not(&kms, uid, &archive, "NotAuthorized", None);
        assert!(!std::path::Path::new(&file).exists());
    }
    assert_eq!(does(&kms, ARCHIVIST, &archive)["seq"], 1);
}

/// `vm1` is `vm10`'s beginning, which may be meant for another account.
#[test]
fn a_path_that_is_no_directory_permits_longer_names_and_the_log_says_so() {
    let mut kms = Kms::start();
    let device = kms.path("vm1");
    std::fs::write(&device, "").unwrap();
    let paths = [device.as_str(), &kms.path(""), &kms.path("vm2-")];
    restart_with_paths(&mut kms, &paths, &[]);
    kms.until("a warning", || kms.log().contains(&format!("such as {device}0")));
    assert_eq!(kms.log().matches("is no directory").count(), 1);
}

#[test]
fn an_account_has_no_more_of_each_kind_than_its_limits() {
    if !is_root() {
        return;
    }
    let mut kms = Kms::active_with_backend("halts");
    let limits = json!({"disks": 2, "instances": 1, "images": 1, "backups": 2, "copies": 1});
    let document = json!({"principals": everyone(), "accounts": {"acme": {"limits": limits}}});
    restart_with(&mut kms, &document);
    does(&kms, SECURITY, "kms activate");
    for words in [
        "disk create one --size 1MiB",
        "disk create two --size 1MiB",
        "instance register vm",
        "snapshot create one snap",
        "image create base --snapshot one/snap",
        "backup create first --snapshot one/snap --no-wait",
    ] {
        does(&kms, OPERATOR, words);
    }
    for (words, what) in [
        ("disk create three --size 1MiB", "2 disks"),
        ("disk create three --snapshot one/snap", "2 disks"),
        ("instance register more", "1 instances"),
        ("image create more --snapshot one/snap", "1 images"),
        ("backup create two second --no-wait", "1 copies"),
        ("disk copy one two --no-wait", "1 copies"),
    ] {
        let message = may_not(&kms, OPERATOR, words, "TooMany", None);
        assert!(
            message.contains(what) && message.contains("accounts file"),
            "{message}"
        );
    }
    does(&kms, OPERATOR, "backup delete first");
    does(
        &kms,
        OPERATOR,
        "backup create third --snapshot one/snap --no-wait",
    );
    // Those of another account are its own.
    for disk in ["one", "two", "three"] {
        kms.make("/v1/disks", json!({"name": disk, "size": MIB}));
    }
    // What there is stays.
    let none = json!({"disks": 0});
    let document = json!({"principals": everyone(), "accounts": {"acme": {"limits": none}}});
    restart_with(&mut kms, &document);
    assert_eq!(
        does(&kms, OPERATOR, "disk list")["disks"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    may_not(&kms, OPERATOR, "disk create three --size 1MiB", "TooMany", None);
}

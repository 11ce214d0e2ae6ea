//! The rules, each by its number, through the API: the allowed and the refused side.

mod common;

use common::{Kms, MIB, json, refused};

#[test]
fn rule_k01_encrypted_disks_need_an_activated_kms() {
    let kms = Kms::start();
    assert_eq!(kms.get("/v1/kms")["state"], "inactive");
    let body = json!({"name": "data", "size": MIB});
    kms.refuses("/v1/disks", body.clone(), "KmsNotActivated", Some("K01"));
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
    kms.make(
        "/v1/disks",
        json!({"name": "plain", "size": MIB, "encrypted": false}),
    );
    kms.make("/v1/kms/activate", json!({}));
    kms.make("/v1/kms/activate", json!({}));
    assert_eq!(kms.get("/v1/kms")["state"], "active");
    kms.make("/v1/disks", body);
}

#[test]
fn rule_k03_concurrent_first_uses_make_one_service_key_that_nobody_can_change() {
    let kms = Kms::active();
    assert_eq!(
        kms.get("/v1/keys")["keys"],
        json!([]),
        "there is none before the first use"
    );
    std::thread::scope(|scope| {
        for number in 0..8 {
            let kms = &kms;
            scope.spawn(move || kms.disk(&format!("disk{number}")));
        }
    });
    let keys = kms.get("/v1/keys")["keys"].as_array().unwrap().clone();
    assert_eq!(keys.len(), 1);
    let key = &keys[0];
    assert_eq!(
        (&key["origin"], &key["state"], &key["disks"]),
        (&json!("service"), &json!("Enabled"), &json!(8))
    );
    let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    assert_eq!(&kms.get(&path), key);
    for method in ["DELETE", "PUT", "POST"] {
        let (status, answer) = kms.call(method, &path, Some(b"{}"));
        assert_eq!(status, 405);
        refused(status, &answer, "MethodNotAllowed", None);
    }
    // Naming it is the same as naming none.
    let named = kms.make(
        "/v1/disks",
        json!({"name": "named", "size": MIB, "key": key["id"]}),
    );
    assert_eq!(named["key"], key["id"]);
}

#[test]
fn rule_k03_another_key_cannot_be_chosen_where_the_profile_has_no_customer_keys() {
    let mut kms = Kms::of_profile("alibaba-ecs-classic", 0);
    kms.make("/v1/kms/activate", json!({}));
    kms.disk("first");
    kms.kill();
    kms.tamper(
        "INSERT INTO keys (id, account, region, name, origin, state, created)
             SELECT 'key-customer', account, region, 'mine', 'customer', state, created FROM keys",
    );
    kms.serve();
    let body = json!({"name": "data", "size": MIB, "key": "mine"});
    kms.refuses("/v1/disks", body, "KeyNotAllowed", Some("K03"));
    let body = json!({"name": "data", "size": MIB, "key": "mine", "encrypted": false});
    kms.refuses("/v1/disks", body, "InvalidRequest", None);
}

#[test]
fn rule_k04_k05_each_disk_has_a_data_key_and_lineage_of_its_own() {
    let mut kms = Kms::active();
    let (one, other) = (kms.disk("one"), kms.disk("other"));
    assert_ne!(one["lineage"], other["lineage"]);
    assert_eq!(one["key"], other["key"]);
    assert_eq!(one["key_version"], 1);
    kms.instance("vm");
    kms.attach("one", "vm");
    kms.make("/v1/disks/one/detach", json!({}));
    assert_eq!(
        kms.get("/v1/disks/one")["lineage"],
        one["lineage"],
        "it stays the same"
    );
    // Swapped in the catalogue, neither opens: a wrapped key belongs to its row.
    kms.kill();
    kms.tamper(
        "CREATE TEMP TABLE swap AS SELECT id, wrapped_key, wrapped_salt FROM lineages;
         UPDATE lineages SET
            wrapped_key = (SELECT wrapped_key FROM swap WHERE swap.id <> lineages.id),
            wrapped_salt = (SELECT wrapped_salt FROM swap WHERE swap.id <> lineages.id)",
    );
    kms.serve();
    for disk in ["one", "other"] {
        kms.refuses(
            "/v1/attachments",
            json!({"disk": disk, "instance": "vm"}),
            "WrappedKeyInvalid",
            None,
        );
        let disk = kms.get(&format!("/v1/disks/{disk}"));
        assert_eq!(
            (&disk["state"], &disk["attachment"]),
            (&json!("available"), &json!(null))
        );
    }
    assert_eq!(kms.backends(), Vec::<i64>::new());
}

#[test]
fn rule_k07_no_answer_has_key_material() {
    let kms = Kms::active();
    let disk = kms.disk("data");
    kms.layered("base");
    kms.make("/v1/images", json!({"name": "base", "disk": "base"}));
    for (path, fields) in [
        (format!("/v1/keys/{}", disk["key"].as_str().unwrap()), 13),
        ("/v1/disks/data".to_owned(), 34),
        ("/v1/images/base".to_owned(), 15),
    ] {
        let answer = kms.get(&path);
        assert_eq!(
            answer.as_object().unwrap().len(),
            fields,
            "a new field: is it no key? {answer}"
        );
    }
}

#[test]
fn rule_k15_a_key_of_another_region_is_refused() {
    let mut kms = Kms::active();
    kms.disk("data");
    kms.instance("vm");
    kms.kill();
    kms.tamper("UPDATE keys SET region = 'eu-2'");
    kms.serve();
    let attach = json!({"disk": "data", "instance": "vm"});
    kms.refuses("/v1/attachments", attach, "WrongRegion", Some("K15"));
    let create = json!({"name": "new", "size": MIB, "key": "service-eu-1"});
    kms.refuses("/v1/disks", create, "WrongRegion", Some("K15"));
    let unknown = json!({"name": "new", "size": MIB, "key": "key-unknown"});
    kms.refuses("/v1/disks", unknown, "WrongRegion", Some("K15"));
}

#[test]
fn rule_d01_d02_disks_encrypted_or_not_and_only_cloud_disks() {
    let kms = Kms::active();
    let encrypted = kms.disk("encrypted");
    assert_eq!(
        (&encrypted["encrypted"], encrypted["key"].is_string()),
        (&json!(true), true)
    );
    let plain = kms.make(
        "/v1/disks",
        json!({"name": "plain", "size": MIB, "encrypted": false}),
    );
    assert_eq!(
        (&plain["encrypted"], &plain["key"], &plain["lineage"]),
        (&json!(false), &json!(null), &json!(null))
    );
    for store in ["thin", "local", ""] {
        let body = json!({"name": "other", "size": MIB, "store": store});
        kms.refuses("/v1/disks", body, "StoreNotAvailable", None);
    }
}

#[test]
fn rule_d03_encryption_never_changes() {
    let kms = Kms::active();
    let disk = kms.disk("data");
    for method in ["PUT", "POST"] {
        let (status, answer) = kms.call(method, "/v1/disks/data", Some(br#"{"encrypted": false}"#));
        refused(status, &answer, "MethodNotAllowed", None);
    }
    assert_eq!(kms.get("/v1/disks/data"), disk);
}

#[test]
#[should_panic(expected = "D03")]
fn rule_d03_not_even_in_the_catalogue() {
    let mut kms = Kms::active();
    kms.disk("data");
    kms.kill();
    kms.tamper("UPDATE volumes SET encrypted = 0, lineage = NULL");
}

#[test]
fn rule_d05_states_of_a_disk() {
    let mut kms = Kms::active();
    assert_eq!(kms.disk("data")["state"], "available");
    kms.instance("vm");
    kms.attach("data", "vm");
    assert_eq!(kms.get("/v1/disks/data")["state"], "in-use");
    let (status, answer) = kms.call("DELETE", "/v1/disks/data", None);
    refused(status, &answer, "DiskAttached", None);
    assert_eq!(kms.make("/v1/disks/data/detach", json!({}))["state"], "available");
    kms.kill();
    kms.tamper("UPDATE disks SET state = 'error'");
    kms.serve();
    let attach = json!({"disk": "data", "instance": "vm"});
    kms.refuses("/v1/attachments", attach, "DiskNotAvailable", Some("D05"));
    assert_eq!(kms.call("DELETE", "/v1/disks/data", None).0, 200);
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
    assert_eq!(std::fs::read_dir(kms.state().join("disks")).unwrap().count(), 0);
}

#[test]
fn rule_d09_two_attaches_at_once_one_wins() {
    let kms = Kms::active();
    kms.disk("data");
    kms.instance("one");
    kms.instance("other");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let attach = |instance| {
            let kms = &kms;
            scope.spawn(move || kms.post("/v1/attachments", json!({"disk": "data", "instance": instance})))
        };
        [attach("one"), attach("other")]
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        answers.iter().filter(|(status, _)| *status == 201).count(),
        1,
        "{answers:?}"
    );
    let (status, answer) = answers.iter().find(|(status, _)| *status != 201).unwrap();
    refused(*status, answer, "AlreadyAttached", Some("D09"));
    assert_eq!((kms.backends().len(), kms.usage("attach")), (1, 1));
}

#[test]
fn rule_a01_zones_must_be_the_same() {
    let kms = Kms::active();
    kms.make("/v1/disks", json!({"name": "data", "size": MIB, "zone": "eu-1b"}));
    kms.instance("here");
    kms.make("/v1/instances", json!({"name": "there", "zone": "eu-1b"}));
    let body = json!({"disk": "data", "instance": "here"});
    kms.refuses("/v1/attachments", body, "ZoneMismatch", Some("A01"));
    kms.attach("data", "there");
}

#[test]
fn rule_a03_encrypted_disks_do_not_go_where_local_storage_is() {
    let kms = Kms::active();
    kms.disk("secret");
    kms.make(
        "/v1/disks",
        json!({"name": "plain", "size": MIB, "encrypted": false}),
    );
    kms.make("/v1/instances", json!({"name": "local", "local_storage": true}));
    let body = json!({"disk": "secret", "instance": "local"});
    kms.refuses("/v1/attachments", body, "LocalStorage", Some("A03"));
    assert_eq!((kms.backends().len(), kms.usage("attach")), (0, 0));
    kms.attach("plain", "local");
    kms.make("/v1/instances", json!({"name": "metal", "bare_metal": true}));
    kms.attach("secret", "metal"); // A04: this profile permits it.
}

#[test]
fn rule_a05_attaching_needs_an_enabled_key_and_a06_serving_does_not() {
    let mut kms = Kms::active();
    let key = kms.disk("served")["key"].as_str().unwrap().to_owned();
    kms.disk("idle");
    kms.instance("vm");
    let attachment = kms.attach("served", "vm");
    kms.kill();
    kms.tamper("UPDATE keys SET state = 'Disabled'");
    kms.serve();
    let refusal = kms.refuses(
        "/v1/attachments",
        json!({"disk": "idle", "instance": "vm"}),
        "KeyNotUsable",
        Some("A05"),
    );
    let message = refusal["message"].as_str().unwrap();
    assert!(
        message.contains(&key) && message.contains("Disabled"),
        "{message}"
    );
    kms.refuses(
        "/v1/disks",
        json!({"name": "new", "size": MIB}),
        "KeyNotUsable",
        Some("A05"),
    );
    // What is attached goes on, even if its process dies; the use is in the log, and not metered.
    let before = kms.audit("key.use").len();
    common::kill(attachment["pid"].as_i64().unwrap(), "KILL");
    kms.until("a new backend", || {
        let disk = kms.get("/v1/disks/served");
        disk["pid"].is_i64() && disk["pid"] != attachment["pid"]
    });
    assert_eq!((kms.audit("key.use").len(), kms.usage("attach")), (before + 1, 1));
    let warnings = kms.get("/v1/disks/served")["warnings"].to_string();
    assert!(warnings.contains("Disabled"), "{warnings}");
}

#[test]
fn rule_m01_encrypted_disks_calls_are_metered_once_each() {
    let kms = Kms::active();
    kms.disk("data");
    kms.instance("vm");
    for _ in 0..2 {
        kms.attach("data", "vm");
        kms.get("/v1/disks/data");
        kms.make("/v1/disks/data/detach", json!({}));
    }
    assert_eq!(
        (kms.usage("create"), kms.usage("attach"), kms.usage("detach")),
        (1, 2, 2)
    );
    kms.make(
        "/v1/disks",
        json!({"name": "plain", "size": MIB, "encrypted": false}),
    );
    kms.attach("plain", "vm");
    kms.make("/v1/disks/plain/detach", json!({}));
    kms.refuses(
        "/v1/disks",
        json!({"name": "data", "size": MIB}),
        "NameTaken",
        None,
    );
    assert_eq!(
        (kms.usage("create"), kms.usage("attach"), kms.usage("detach")),
        (1, 2, 2)
    );
    let row = &kms.get("/v1/usage")["usage"][0];
    assert_eq!(
        (&row["region"], row["month"].as_str().unwrap().len()),
        (&json!("eu-1"), 7)
    );
}

#[test]
fn rule_m04_every_decision_is_in_the_audit_log() {
    let kms = Kms::start();
    kms.refuses(
        "/v1/disks",
        json!({"name": "data", "size": MIB}),
        "KmsNotActivated",
        Some("K01"),
    );
    kms.make("/v1/kms/activate", json!({}));
    kms.disk("data");
    let decisions = kms.audit("disk.create");
    let pair = |decision: &str, code: &str| (decision.to_owned(), code.to_owned());
    assert_eq!(
        decisions,
        [pair("refused", "KmsNotActivated"), pair("allowed", "")]
    );
    // Pages follow each other without a gap.
    let all = kms.get("/v1/audit?limit=1000")["audit"]
        .as_array()
        .unwrap()
        .clone();
    let (mut paged, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let page = kms.get(&format!("/v1/audit?limit=1&after={after}"));
        paged.extend(page["audit"].as_array().unwrap().clone());
        after = page["next"].clone();
    }
    assert_eq!(paged, all);
}

#[test]
fn rule_m04_a_call_that_cannot_be_recorded_fails_and_changes_nothing() {
    let mut kms = Kms::active();
    kms.kill();
    kms.tamper("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END");
    kms.serve();
    let body = json!({"name": "data", "size": MIB});
    kms.refuses("/v1/disks", body, "AuditFailed", Some("M04"));
    kms.refuses(
        "/v1/disks",
        json!({"name": "data", "size": 1}),
        "AuditFailed",
        Some("M04"),
    );
    assert_eq!(
        (&kms.get("/v1/disks")["disks"], kms.usage("create")),
        (&json!([]), 0)
    );
}

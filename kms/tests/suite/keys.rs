//! Keys of one's own and their lives (rules K08, K11, K12, A05, A06, A07), through the API.

use crate::common;

use crate::common::{Kms, MIB, Value, json, refused};

fn with_key(name: &str, key: &str) -> Value {
    json!({"name": name, "size": MIB, "store": "raw", "key": key})
}

fn state(kms: &Kms, key: &str) -> String {
    kms.get(&format!("/v1/keys/{key}"))["state"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn patch(kms: &Kms, path: &str, body: &Value) -> (u16, Value) {
    kms.call("PATCH", path, Some(body.to_string().as_bytes()))
}

#[test]
fn rule_k08_a_key_of_ones_own_is_created_described_and_used() {
    let kms = Kms::active();
    let key = kms.make("/v1/keys", json!({"name": "mine"}));
    assert_eq!(
        (&key["origin"], &key["state"], &key["version"]),
        (&json!("customer"), &json!("Enabled"), &json!(1))
    );
    let disk = kms.make("/v1/disks", with_key("data", "mine"));
    assert_eq!(disk["key"], key["id"]);
    assert_eq!(
        kms.get("/v1/keys")["keys"].as_array().unwrap().len(),
        1,
        "no service key is made where it is not needed"
    );
    kms.instance("vm");
    kms.attach("data", "vm");
    kms.make("/v1/disks/data/detach", json!({}));
    kms.refuses("/v1/keys", json!({"name": "mine"}), "NameTaken", None);
    kms.refuses("/v1/keys", json!({"name": "a b"}), "InvalidName", None);
    assert_eq!(kms.get("/v1/keys/mine")["disks"], 1);
}

#[test]
fn rule_k08_profiles_without_customer_keys_refuse_them() {
    for profile in ["alibaba-ecs-classic", "tencent-cbs"] {
        let kms = Kms::of_profile(profile, 1_000_000);
        kms.refuses(
            "/v1/keys",
            json!({"name": "mine"}),
            "CustomerKeysNotOffered",
            Some("K08"),
        );
        assert_eq!(kms.get("/v1/keys")["keys"], json!([]));
    }
}

#[test]
fn rule_k08_aliases_and_tags() {
    let kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "one"}));
    kms.make("/v1/keys", json!({"name": "two"}));
    let (status, key) = patch(
        &kms,
        "/v1/keys/one",
        &json!({"add_aliases": ["current"], "tags": {"owner": "finance", "stage": "live"}}),
    );
    assert_eq!(status, 200, "{key}");
    assert_eq!(
        (&key["aliases"], &key["tags"]),
        (&json!(["current"]), &json!({"owner": "finance", "stage": "live"}))
    );
    let disk = kms.make("/v1/disks", with_key("data", "current"));
    assert_eq!(disk["key"], key["id"]);
    // Another key takes the alias; the disk keeps its key.
    patch(&kms, "/v1/keys/two", &json!({"add_aliases": ["current"]}));
    assert_eq!(kms.get("/v1/keys/current")["name"], "two");
    assert_eq!(kms.get("/v1/keys/one")["aliases"], json!([]));
    assert_eq!(kms.get("/v1/disks/data")["key"], key["id"]);
    let (_, key) = patch(&kms, "/v1/keys/one", &json!({"tags": {"stage": null}}));
    assert_eq!(key["tags"], json!({"owner": "finance"}));
    let long = "x".repeat(257);
    for (body, code) in [
        (json!({"add_aliases": ["two"]}), "NameTaken"),
        (json!({"add_aliases": ["a b"]}), "InvalidName"),
        (json!({"remove_aliases": ["current"]}), "NotFound"),
        (json!({"tags": {"": "x"}}), "InvalidTag"),
        (json!({"tags": {"a\nb": "x"}}), "InvalidTag"),
        (json!({"tags": {"a": long}}), "InvalidTag"),
        (
            json!({"add_aliases": (0..17).map(|n| format!("alias{n}")).collect::<Vec<_>>()}),
            "TooMany",
        ),
        (
            json!({"tags": (0..50).map(|n| (format!("tag{n}"), json!("x"))).collect::<serde_json::Map<_, _>>()}),
            "TooMany",
        ),
    ] {
        let (status, answer) = patch(&kms, "/v1/keys/one", &body);
        refused(status, &answer, code, None);
    }
    assert_eq!(kms.get("/v1/keys/one"), key, "nothing was changed");
    kms.refuses("/v1/keys", json!({"name": "current"}), "NameTaken", None);
}

#[test]
fn rule_k08_an_account_has_so_many_keys_and_no_more() {
    let mut kms = Kms::active();
    kms.disk("data");
    kms.kill();
    kms.tamper(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999)
         INSERT INTO keys (id, account, region, name, origin, state, created)
         SELECT 'key-' || n, 'default', 'eu-1', 'key' || n, 'imported', 'PendingImport', '2020-01-01T00:00:00.000Z'
         FROM numbers",
    );
    kms.serve();
    kms.make("/v1/keys", json!({"name": "last"}));
    kms.refuses("/v1/keys", json!({"name": "more"}), "TooMany", None);
    // What is destroyed does not count.
    kms.kill();
    kms.tamper("UPDATE keys SET state = 'Destroyed' WHERE name = 'key1'");
    kms.serve();
    kms.make("/v1/keys", json!({"name": "more"}));
}

#[test]
fn rule_k03_the_service_key_is_never_changed() {
    let kms = Kms::active();
    let key = kms.disk("data")["key"].as_str().unwrap().to_owned();
    let before = kms.get(&format!("/v1/keys/{key}"));
    for call in [
        "enable",
        "disable",
        "schedule-deletion",
        "cancel-deletion",
        "rotate",
        "rewrap",
    ] {
        let path = format!("/v1/keys/{key}/{call}");
        kms.refuses(&path, json!({}), "ServiceKeyFixed", Some("K03"));
    }
    let (status, answer) = patch(&kms, &format!("/v1/keys/{key}"), &json!({"tags": {"a": "b"}}));
    refused(status, &answer, "ServiceKeyFixed", Some("K03"));
    for method in ["DELETE", "PUT", "POST"] {
        let (status, answer) = kms.call(method, &format!("/v1/keys/{key}"), Some(b"{}"));
        refused(status, &answer, "MethodNotAllowed", None);
    }
    assert_eq!(kms.get(&format!("/v1/keys/{key}")), before);
}

#[test]
fn rule_a05_a_disabled_key_is_for_nothing_new() {
    let kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/disks", json!({"name": "data", "size": MIB, "key": "mine"}));
    kms.snapshot("data", "before");
    kms.instance("vm");
    assert_eq!(kms.make("/v1/keys/mine/disable", json!({}))["state"], "Disabled");
    for (path, body) in [
        ("/v1/disks", with_key("other", "mine")),
        ("/v1/disks", json!({"name": "clone", "snapshot": "data/before"})),
        ("/v1/attachments", json!({"disk": "data", "instance": "vm"})),
    ] {
        let answer = kms.refuses(path, body, "KeyNotUsable", Some("A05"));
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.contains("Disabled") && message.contains("key enable"),
            "{message}"
        );
    }
    kms.disk("unconcerned");
    kms.make("/v1/keys/mine/enable", json!({}));
    kms.attach("data", "vm");
}

#[test]
fn rule_a06_a07_what_is_attached_goes_on_and_is_detached_with_force() {
    let mut kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/disks", with_key("data", "mine"));
    kms.instance("vm");
    let attachment = kms.attach("data", "vm");
    kms.make("/v1/keys/mine/disable", json!({}));
    let text = |value: &Value| value["warnings"].to_string();
    assert!(text(&kms.get("/v1/disks/data")).contains("A06"));
    assert!(text(&kms.get("/v1/kms")).contains("1 attached disks"));
    // Over a restart of its process and of the daemon.
    common::kill(attachment["pid"].as_i64().unwrap(), "KILL");
    let served_anew = |kms: &Kms, pid: &Value| {
        let disk = kms.get("/v1/disks/data");
        disk["pid"].is_i64() && disk["pid"] != *pid
    };
    kms.until("a new backend", || served_anew(&kms, &attachment["pid"]));
    kms.kill();
    let pid = kms.backends()[0];
    common::kill(pid, "KILL");
    kms.serve();
    kms.until("a new backend", || served_anew(&kms, &json!(pid)));
    assert_eq!(kms.usage("attach"), 1, "no new attach");
    let answer = kms.refuses(
        "/v1/disks/data/detach",
        json!({}),
        "DetachNeedsForce",
        Some("A07"),
    );
    assert!(answer["message"].as_str().unwrap().contains("--force"));
    assert_eq!(
        (kms.usage("detach"), state(&kms, "mine")),
        (0, "Disabled".to_owned())
    );
    kms.make("/v1/disks/data/detach", json!({"force": true}));
    let attach = json!({"disk": "data", "instance": "vm"});
    kms.refuses("/v1/attachments", attach, "KeyNotUsable", Some("A05"));
    kms.make("/v1/keys/mine/enable", json!({}));
    kms.attach("data", "vm");
    assert_eq!(kms.get("/v1/disks/data")["warnings"], json!([]));
    assert_eq!(kms.get("/v1/kms")["warnings"], json!([]));
}

#[test]
fn rule_k11_deletion_waits_and_can_be_cancelled() {
    let kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/disks", json!({"name": "data", "size": MIB, "key": "mine"}));
    kms.snapshot("data", "before");
    let path = "/v1/keys/mine/schedule-deletion";
    for days in [0, 6, 31, 1096] {
        kms.refuses(path, json!({"days": days}), "InvalidDays", Some("K11"));
    }
    let answer = kms.refuses(path, json!({"days": 7}), "KeyInUse", Some("K11"));
    assert!(answer["message"].as_str().unwrap().contains("2 objects"));
    let resources = kms.get("/v1/keys/mine/resources")["resources"]
        .as_array()
        .unwrap()
        .clone();
    let kinds: Vec<_> = resources
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["disk", "snapshot"]);
    assert_eq!(state(&kms, "mine"), "Enabled");
    let key = kms.make(path, json!({"days": 7, "acknowledge": true}));
    assert_eq!(key["state"], "PendingDeletion");
    assert!(key["deletion"].as_str() > key["created"].as_str());
    for call in ["enable", "disable", "rotate", "schedule-deletion"] {
        let path = format!("/v1/keys/mine/{call}");
        kms.refuses(&path, json!({}), "KeyStateInvalid", Some("K11"));
    }
    let key = kms.make("/v1/keys/mine/cancel-deletion", json!({}));
    assert_eq!(
        (&key["state"], &key["deletion"]),
        (&json!("Disabled"), &json!(null))
    );
    kms.refuses(
        "/v1/keys/mine/cancel-deletion",
        json!({}),
        "KeyStateInvalid",
        Some("K11"),
    );
    kms.make("/v1/keys/mine/enable", json!({}));
    kms.make("/v1/disks", with_key("other", "mine"));
}

#[test]
fn rule_k11_the_daemon_can_permit_longer_waits() {
    let mut kms = Kms::active();
    kms.stop();
    kms.options = ["--deletion-days-most", "1096"].map(str::to_owned).to_vec();
    kms.serve();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/keys/mine/schedule-deletion", json!({"days": 1096}));
}

#[test]
fn rule_k11_every_use_before_the_deletion_day_raises_an_alarm() {
    let kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/disks", with_key("data", "mine"));
    kms.make("/v1/disks", with_key("idle", "mine"));
    kms.instance("vm");
    let attachment = kms.attach("data", "vm");
    let schedule = json!({"days": 7, "acknowledge": true});
    kms.make("/v1/keys/mine/schedule-deletion", schedule);
    let alarms = || kms.audit("key.alarm").len();
    kms.until("the day's alarm", || alarms() == 1);
    let attach = json!({"disk": "idle", "instance": "vm"});
    kms.refuses("/v1/attachments", attach, "KeyNotUsable", Some("A05"));
    assert_eq!(alarms(), 2, "who asks for it");
    kms.refuses("/v1/disks", with_key("new", "mine"), "KeyNotUsable", Some("A05"));
    assert_eq!(alarms(), 3);
    common::kill(attachment["pid"].as_i64().unwrap(), "KILL");
    kms.until("the restarted backend's use", || alarms() == 4);
    let warnings = kms.get("/v1/kms")["warnings"].to_string();
    assert!(
        warnings.contains("PendingDeletion") && warnings.contains("A06"),
        "{warnings}"
    );
}

/// The day has come, and enough days were seen to pass.
fn pass_the_days(kms: &mut Kms) {
    kms.kill();
    kms.tamper(
        "UPDATE keys SET deletion = '2020-01-01T00:00:00.000Z', deletion_seen = 0 WHERE state = 'PendingDeletion'",
    );
    kms.serve();
    kms.until("the key is destroyed", || state(kms, "mine") == "Destroyed");
}

#[test]
fn rule_k11_k14_on_its_day_a_key_is_destroyed_and_what_it_protected_says_so() {
    let mut kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/disks", with_key("data", "mine"));
    kms.disk("other");
    kms.instance("vm");
    kms.make(
        "/v1/keys/mine/schedule-deletion",
        json!({"days": 7, "acknowledge": true}),
    );
    pass_the_days(&mut kms);
    let key = kms.get("/v1/keys/mine");
    assert_eq!((&key["deletion"], &key["disks"]), (&json!(null), &json!(1)));
    let warnings = kms.get("/v1/disks/data")["warnings"].to_string();
    assert!(warnings.contains("never be read"), "{warnings}");
    let attach = json!({"disk": "data", "instance": "vm"});
    kms.refuses("/v1/attachments", attach, "KeyNotUsable", Some("A05"));
    for call in ["enable", "cancel-deletion", "rotate"] {
        let path = format!("/v1/keys/mine/{call}");
        kms.refuses(&path, json!({}), "KeyStateInvalid", Some("K11"));
    }
    assert_eq!(kms.audit("key.destroy").len(), 1);
    let left = "SELECT count(*) FROM key_material WHERE key IN (SELECT id FROM keys WHERE name = 'mine')";
    assert_eq!(kms.query(left), 0);
    kms.attach("other", "vm");
    kms.delete("/v1/disks/data?retention_days=0");
}

#[test]
fn the_names_of_a_destroyed_key_can_be_given_to_others() {
    let mut kms = Kms::active();
    let first = kms.make("/v1/keys", json!({"name": "mine"}))["id"].clone();
    let (status, _) = kms.call("PATCH", "/v1/keys/mine", Some(br#"{"add_aliases": ["current"]}"#));
    assert_eq!(status, 200);
    let create = |name: &str| ("/v1/keys", json!({"name": name}));
    let (path, body) = create("mine");
    kms.refuses(path, body, "NameTaken", None);
    kms.make("/v1/keys/mine/schedule-deletion", json!({"days": 7}));
    pass_the_days(&mut kms);
    assert_eq!(
        kms.get("/v1/keys/mine")["id"],
        first,
        "as long as nobody wants it"
    );
    for name in ["current", "mine"] {
        let (path, body) = create(name);
        let made = kms.make(path, body);
        let found = kms.get(&format!("/v1/keys/{name}"));
        assert_eq!((&found["id"], &found["state"]), (&made["id"], &json!("Enabled")));
        assert_ne!(made["id"], first);
    }
    let destroyed = kms.get(&format!("/v1/keys/{}", first.as_str().unwrap()));
    assert_eq!(
        (
            &destroyed["name"],
            &destroyed["former_name"],
            &destroyed["aliases"]
        ),
        (&first, &json!("mine"), &json!([]))
    );
}

/// Whether a file of the state directory has these bytes anywhere.
fn holds(kms: &Kms, wrapped: &[u8]) -> bool {
    let files = std::fs::read_dir(kms.state()).unwrap().flatten();
    let mut contents = files.filter_map(|entry| std::fs::read(entry.path()).ok());
    contents.any(|bytes| bytes.windows(wrapped.len()).any(|window| window == wrapped))
}

#[test]
fn rule_k14_nothing_of_a_destroyed_key_is_left_in_the_state_directory() {
    let mut kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/disks", with_key("data", "mine"));
    kms.kill();
    let wrapped = kms.blob("SELECT wrapped FROM key_material");
    let holds = |kms: &Kms| holds(kms, &wrapped);
    assert!(holds(&kms), "the search finds what is there");
    kms.serve();
    kms.make(
        "/v1/keys/mine/schedule-deletion",
        json!({"days": 7, "acknowledge": true}),
    );
    pass_the_days(&mut kms);
    kms.until("the log is emptied", || !holds(&kms));
    kms.kill();
    assert!(!holds(&kms));
}

fn rewrapped(kms: &Kms, total: u64) {
    kms.until("everything is rewrapped", || {
        let state = kms.get("/v1/keys/mine/rewrap");
        state["done"] == total && state["versions"].as_array().unwrap().len() == 1
    });
}

#[test]
fn rule_k12_rotation_makes_a_version_and_the_old_one_is_retired_when_nothing_needs_it() {
    let kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.instance("vm");
    for number in 0..3 {
        kms.make("/v1/disks", with_key(&format!("disk{number}"), "mine"));
    }
    let attachment = kms.attach("disk0", "vm");
    let lineage = kms.get("/v1/disks/disk0")["lineage"].clone();
    assert_eq!(kms.make("/v1/keys/mine/rotate", json!({}))["version"], 2);
    rewrapped(&kms, 3);
    let disk = kms.get("/v1/disks/disk0");
    assert_eq!((&disk["lineage"], &disk["key_version"]), (&lineage, &json!(2)));
    assert_eq!(disk["pid"], attachment["pid"], "its process does not notice");
    assert_eq!(kms.audit("key.retire").len(), 1);
    // What is under the new version opens, and what is made from now on is under it.
    kms.make("/v1/disks/disk0/detach", json!({}));
    for number in 0..3 {
        kms.attach(&format!("disk{number}"), "vm");
    }
    let disk = kms.make("/v1/disks", with_key("new", "mine"));
    assert_eq!(disk["key_version"], 2);
    assert_eq!(kms.make("/v1/keys/mine/rewrap", json!({}))["done"], 4);
}

#[test]
fn rule_k12_nothing_of_a_retired_version_is_left_in_the_state_directory() {
    let mut kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/disks", with_key("data", "mine"));
    kms.kill();
    let wrapped = kms.blob("SELECT wrapped FROM key_material");
    assert!(holds(&kms, &wrapped));
    kms.serve();
    kms.make("/v1/keys/mine/rotate", json!({}));
    rewrapped(&kms, 1);
    kms.until("the log is emptied", || !holds(&kms, &wrapped));
}

#[test]
fn rule_k12_the_key_of_the_data_stays_the_same() {
    let kms = Kms::active_with_backend("tells-key");
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.instance("vm");
    let given = |disk: &str| {
        let attachment = kms.attach(disk, "vm");
        let key = kms.given_key(&attachment);
        kms.make(&format!("/v1/disks/{disk}/detach"), json!({}));
        key
    };
    kms.make("/v1/disks", with_key("data", "mine"));
    kms.make("/v1/disks", with_key("other", "mine"));
    let before = [given("data"), given("other")];
    assert_ne!(before[0], before[1]);
    kms.make("/v1/keys/mine/rotate", json!({}));
    rewrapped(&kms, 2);
    assert_eq!([given("data"), given("other")], before);
}

#[test]
fn rule_k12_what_is_damaged_holds_up_nothing_else() {
    let mut kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.instance("vm");
    for number in 0..3 {
        kms.make("/v1/disks", with_key(&format!("disk{number}"), "mine"));
    }
    kms.kill();
    kms.tamper("UPDATE lineages SET wrapped_salt = zeroblob(61) WHERE id = (SELECT min(id) FROM lineages)");
    kms.serve();
    kms.make("/v1/keys/mine/rotate", json!({}));
    kms.until("the others are rewrapped", || {
        kms.get("/v1/keys/mine/rewrap")["done"] == 2
    });
    let state = kms.get("/v1/keys/mine/rewrap");
    assert_eq!((&state["total"], &state["versions"]), (&json!(3), &json!([1, 2])));
    assert!(kms.log().contains("does not open"));
}

#[test]
fn rule_k12_a_rewrapping_goes_on_after_a_crash_and_after_the_key_was_disabled() {
    let mut kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    for number in 0..4 {
        kms.make("/v1/disks", with_key(&format!("disk{number}"), "mine"));
    }
    kms.instance("vm");
    // Rotated, and stopped before anything was rewrapped: the state that a crash leaves at the worst moment.
    kms.make("/v1/keys/mine/rotate", json!({}));
    kms.restart();
    rewrapped(&kms, 4);
    kms.make("/v1/keys/mine/rotate", json!({}));
    kms.make("/v1/keys/mine/disable", json!({}));
    kms.refuses("/v1/keys/mine/rewrap", json!({}), "KeyStateInvalid", Some("K11"));
    kms.refuses("/v1/keys/mine/rotate", json!({}), "KeyStateInvalid", Some("K11"));
    kms.make("/v1/keys/mine/enable", json!({}));
    rewrapped(&kms, 4);
    for number in 0..4 {
        kms.attach(&format!("disk{number}"), "vm");
    }
}

/// Wraps material as the parameters want it, with the library that the daemon uses; `envelope::transport` has what
/// OpenSSL makes.
fn wrapped_for(params: &Value, material: &[u8]) -> String {
    use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
    use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
    use base64ct::{Base64, Encoding};
    let pem = params["public_key"].as_str().unwrap();
    let (_, public) = pem_rfc7468::decode_vec(pem.as_bytes()).unwrap();
    let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&public).unwrap()).unwrap();
    let (wrapping, mut blob) = ([7; 32], vec![0; public.ciphertext_size()]);
    public
        .encrypt(&OAEP_SHA256_MGF1SHA256, &wrapping, &mut blob, None)
        .unwrap();
    let mut room = vec![0; material.len() + 15];
    let cipher = AesKek::new(&AES_256, &wrapping).unwrap();
    blob.extend_from_slice(cipher.wrap_with_padding(material, &mut room).unwrap());
    Base64::encode_string(&blob)
}

fn import(kms: &Kms, key: &str, params: &Value, blob: &str) -> (u16, Value) {
    let body = json!({"import_token": params["import_token"], "wrapped_material": blob});
    kms.post(&format!("/v1/keys/{key}/import"), body)
}

#[test]
fn rule_k10_material_of_ones_own_is_imported_once_and_again_only_if_identical() {
    let kms = Kms::active();
    let key = kms.make("/v1/keys", json!({"name": "mine", "import": true}));
    assert_eq!(
        (&key["state"], &key["origin"], &key["version"]),
        (&json!("PendingImport"), &json!("imported"), &json!(null))
    );
    for (path, body, code, rule) in [
        ("/v1/disks", with_key("data", "mine"), "KeyNotUsable", "A05"),
        ("/v1/keys/mine/enable", json!({}), "KeyStateInvalid", "K11"),
        ("/v1/keys/mine/rotate", json!({}), "KeyStateInvalid", "K11"),
    ] {
        kms.refuses(path, body, code, Some(rule));
    }
    let params = || kms.make("/v1/keys/mine/import-params", json!({}));
    let first = params();
    let (status, key) = import(&kms, "mine", &first, &wrapped_for(&first, &[1; 32]));
    assert_eq!(
        (status, &key["state"], &key["version"]),
        (200, &json!("Enabled"), &json!(1))
    );
    kms.make("/v1/disks", with_key("data", "mine"));
    // A token is for one attempt.
    let (status, answer) = import(&kms, "mine", &first, &wrapped_for(&first, &[1; 32]));
    refused(status, &answer, "ImportTokenInvalid", Some("K10"));
    let again = params();
    let (status, key) = import(&kms, "mine", &again, &wrapped_for(&again, &[1; 32]));
    assert_eq!((status, &key["version"]), (200, &json!(1)), "the same once more");
    let other = params();
    let (status, answer) = import(&kms, "mine", &other, &wrapped_for(&other, &[2; 32]));
    refused(status, &answer, "ImportDiffers", Some("K10"));
    kms.refuses("/v1/keys/mine/rotate", json!({}), "KeyImported", Some("K12"));
    kms.instance("vm");
    kms.attach("data", "vm");
}

#[test]
fn rule_k10_what_is_no_wrapped_key_is_refused() {
    let kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine", "import": true}));
    kms.make("/v1/keys", json!({"name": "other", "import": true}));
    kms.make("/v1/keys", json!({"name": "made"}));
    kms.refuses(
        "/v1/keys/made/import-params",
        json!({}),
        "KeyNotImported",
        Some("K10"),
    );
    let params = |key: &str| kms.make(&format!("/v1/keys/{key}/import-params"), json!({}));
    let foreign = params("other");
    for (blob, code) in [
        ("!".to_owned(), "ImportInvalid"),
        ("AAAA".to_owned(), "ImportInvalid"),
        (wrapped_for(&foreign, &[1; 32]), "ImportInvalid"),
        (wrapped_for(&foreign, &[1; 16]), "ImportInvalid"),
    ] {
        let (status, answer) = import(&kms, "mine", &params("mine"), &blob);
        refused(status, &answer, code, Some("K10"));
    }
    // The token of another key.
    let (status, answer) = import(&kms, "mine", &foreign, &wrapped_for(&foreign, &[1; 32]));
    refused(status, &answer, "ImportTokenInvalid", Some("K10"));
    assert_eq!(state(&kms, "mine"), "PendingImport");
    // Without material it waits for it again.
    kms.make("/v1/keys/mine/schedule-deletion", json!({"days": 7}));
    assert_eq!(
        kms.make("/v1/keys/mine/cancel-deletion", json!({}))["state"],
        "PendingImport"
    );
}

#[test]
fn rule_m03_customer_keys_cost_a_monthly_fee_where_the_profile_says_so() {
    const FEE: u64 = 1_000_000;
    let mut kms = Kms::of_profile("alibaba-ecs", FEE + 5);
    kms.make("/v1/kms/activate", json!({}));
    kms.disk("service");
    let balance = |kms: &Kms| kms.get("/v1/usage")["balance"].as_u64().unwrap();
    assert_eq!(balance(&kms), FEE + 5, "the service's key is free");
    kms.make("/v1/keys", json!({"name": "mine"}));
    assert_eq!((balance(&kms), kms.usage("key-month")), (5, 1));
    kms.refuses(
        "/v1/keys",
        json!({"name": "other"}),
        "BalanceExhausted",
        Some("M02"),
    );
    assert_eq!(kms.get("/v1/keys")["keys"].as_array().unwrap().len(), 2);
    kms.make("/v1/disks", json!({"name": "data", "size": MIB, "key": "mine"}));
    kms.snapshot("data", "before");
    kms.instance("vm");
    kms.attach("data", "vm");
    // The next month begins, and nothing is left.
    kms.kill();
    kms.tamper(
        "UPDATE keys SET fee_month = strftime('%Y-%m', 'now', 'start of month', '-1 month')
         WHERE fee_month IS NOT NULL",
    );
    kms.serve();
    for body in [
        with_key("new", "mine"),
        json!({"name": "clone", "snapshot": "data/before"}),
    ] {
        kms.refuses("/v1/disks", body, "KeyFeeUnpaid", Some("M03"));
    }
    assert_eq!(
        kms.get("/v1/disks/data")["state"],
        "in-use",
        "what is attached goes on"
    );
    let detach = "/v1/disks/data/detach";
    kms.refuses(detach, json!({}), "DetachNeedsForce", Some("A07"));
    kms.make(detach, json!({"force": true}));
    let attach = json!({"disk": "data", "instance": "vm"});
    kms.refuses("/v1/attachments", attach, "KeyFeeUnpaid", Some("M03"));
    kms.make("/v1/accounts/default/credit", json!({"amount": FEE}));
    assert_eq!((balance(&kms), kms.usage("key-month")), (5, 2));
    kms.attach("data", "vm");
}

//! Policy profiles: chosen once, shown whole, and acted on.

use crate::common::{Kms, MIB, json};

#[test]
fn a_profile_is_shown_whole() {
    let kms = Kms::of_profile("alibaba-ecs-classic", 0);
    let profile = kms.get("/v1/profile");
    assert_eq!(profile["name"], kms.get("/v1/kms")["profile"]);
    let expected = json!({
        "id": "alibaba-ecs-classic",
        "name": "alibaba-ecs-classic",
        "key_scope": "disk",
        "customer_keys": false,
        "gate": "activation",
        "system_disks": "no",
        "refuse_local_storage": false,
        "refuse_bare_metal": false,
        "encryptable_types": ["basic", "efficiency", "ssd"],
        "encryptable_shared_types": ["efficiency", "ssd"],
        "share_image": false,
        "copy_snapshot_across_regions": false,
        "copy_image_across_regions": false,
        "export_image": false,
        "new_size": "after-reattach",
        "meter_reinit": true,
        "free_calls": 20_000,
        "call_price": 100,
        "customer_key_fee": 0,
        "retention": 0,
    });
    assert_eq!(profile, expected);
    assert_eq!(Kms::start().get("/v1/profile")["free_calls"], json!(null));
}

#[test]
fn an_unknown_profile_is_refused_with_the_names_of_all() {
    let kms = Kms::start();
    let state = kms.path("other");
    let words = ["init", "--state", &state, "--region", "r", "--profile", "nobody"];
    kms.fails(&words, "UnknownProfile");
    let text = String::from_utf8(kms.run(&words).stderr).unwrap();
    assert!(text.contains("tencent-cbs") && text.contains("sealblk"), "{text}");
    assert!(!std::fs::exists(&state).unwrap());
}

#[test]
fn rule_k04_one_data_key_for_the_region_and_yet_a_key_of_its_own_for_each_lineage() {
    let mut kms = Kms::of_profile("tencent-cbs", 1_000_000);
    kms.behave("tells-key");
    kms.restart();
    kms.make("/v1/kms/activate", json!({}));
    kms.instance("vm");
    for disk in ["one", "other"] {
        kms.disk(disk);
    }
    assert_eq!(kms.query("SELECT count(*) FROM data_keys"), 1);
    assert_eq!(
        kms.query("SELECT count(*) FROM lineages WHERE data_key IS NOT NULL"),
        2
    );
    let given = ["one", "other"].map(|disk| kms.given_key(&kms.attach(disk, "vm")));
    assert_ne!(given[0], given[1], "two lineages never share a key");
    // Rule K14: with the last object of a lineage its salt goes; the others' data stays readable.
    kms.make("/v1/disks/one/detach", json!({}));
    kms.delete("/v1/disks/one?retention_days=0");
    assert_eq!(kms.query("SELECT count(*) FROM lineages"), 1);
    kms.make("/v1/disks/other/detach", json!({}));
    assert_eq!(kms.given_key(&kms.attach("other", "vm")), given[1]);
}

#[test]
fn rule_k04_a_data_key_for_each_disk_elsewhere() {
    for profile in ["alibaba-ecs-classic", "huawei-evs", "sealblk"] {
        let kms = Kms::of_profile(profile, 0);
        kms.post("/v1/kms/activate", json!({}));
        kms.post("/v1/kms/grant", json!({}));
        kms.disk("one");
        kms.disk("other");
        assert_eq!(kms.query("SELECT count(*) FROM data_keys"), 0, "{profile}");
        let own = "SELECT count(DISTINCT wrapped_key) FROM lineages WHERE length(wrapped_key) = 61";
        assert_eq!(kms.query(own), 2, "{profile}");
    }
}

#[test]
fn rule_a03_a04_instances_are_refused_as_the_profile_says() {
    let kms = Kms::of_profile("alibaba-ecs", 0);
    kms.make("/v1/kms/activate", json!({}));
    kms.disk("data");
    kms.make("/v1/instances", json!({"name": "metal", "bare_metal": true}));
    kms.make("/v1/instances", json!({"name": "local", "local_storage": true}));
    let body = json!({"disk": "data", "instance": "metal"});
    kms.refuses("/v1/attachments", body, "BareMetal", Some("A04"));
    kms.attach("data", "local");
}

#[test]
fn rule_d06_where_the_new_size_is_seen_after_reattach_a_disk_in_use_grows_and_its_guest_waits() {
    let mut kms = Kms::of_profile("alibaba-ecs", 0);
    kms.make("/v1/kms/activate", json!({}));
    kms.layered("data");
    kms.instance("vm");
    kms.attach("data", "vm");
    let sizes = |kms: &Kms| {
        let disk = kms.get("/v1/disks/data");
        ["size", "guest_size"].map(|field| disk[field].as_u64())
    };
    let body = json!({"size": 2 * MIB});
    kms.make("/v1/disks/data/resize", body);
    assert_eq!(sizes(&kms), [2 * MIB, MIB].map(Some));
    kms.make("/v1/disks/data/detach", json!({}));
    kms.attach("data", "vm");
    assert_eq!(sizes(&kms), [Some(2 * MIB), None]);
    kms.make("/v1/disks/data/detach", json!({}));
    // A process of an earlier version would show it at once.
    kms.kill();
    kms.behave("earlier");
    kms.serve();
    kms.attach("data", "vm");
    let body = json!({"size": 3 * MIB});
    kms.refuses("/v1/disks/data/resize", body, "ResizeNeedsDetach", Some("D06"));
    assert_eq!(sizes(&kms), [Some(2 * MIB), None]);
}

/// A later version has other switches under a profile's name, or further ones.
#[test]
fn a_region_keeps_the_switches_that_it_was_initialised_with() {
    let mut kms = Kms::start();
    let changed =
        "json_remove(json_set(switches, '$.refuse_local_storage', json('false')), '$.meter_reinit')";
    kms.kill();
    kms.tamper(&format!("UPDATE meta SET switches = {changed}"));
    kms.serve();
    let profile = kms.get("/v1/profile");
    assert_eq!(
        (&profile["refuse_local_storage"], &profile["meter_reinit"]),
        (&json!(false), &json!(true))
    );
    let kept = "SELECT json_extract(switches, '$.meter_reinit') FROM meta";
    assert_eq!(kms.query(kept), 1, "what is new stays as it was first seen");
    // A catalogue of an earlier version has none.
    kms.kill();
    kms.tamper("UPDATE meta SET switches = NULL");
    kms.serve();
    assert_eq!(kms.get("/v1/profile")["refuse_local_storage"], true);
    let kept = "SELECT json_extract(switches, '$.refuse_local_storage') FROM meta";
    assert_eq!(kms.query(kept), 1);
}

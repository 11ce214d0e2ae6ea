//! Policy profiles: chosen once, shown whole, and acted on.

mod common;

use common::{Kms, MIB, json};

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
    });
    assert_eq!(profile, expected);
    assert_eq!(Kms::start().get("/v1/profile")["free_calls"], json!(null));
}

#[test]
fn a_profile_that_is_not_fulfilled_cannot_be_chosen() {
    let kms = Kms::start();
    let state = kms.path("other");
    let init =
        |profile| ["init", "--state", &state, "--region", "r", "--profile", profile].map(str::to_owned);
    for (profile, code) in [
        ("tencent-cbs", "ProfileNotAvailable"),
        ("nobody", "UnknownProfile"),
    ] {
        let words = init(profile);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        kms.fails(&words, code);
        assert!(!std::fs::exists(&state).unwrap());
    }
    let output = kms.run(&[
        "init",
        "--state",
        &state,
        "--region",
        "r",
        "--profile",
        "tencent-cbs",
    ]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("K04") && text.contains("sealblk"), "{text}");
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
fn rule_d06_where_the_new_size_is_seen_after_reattach_a_disk_in_use_is_not_resized() {
    let kms = Kms::of_profile("alibaba-ecs", 0);
    kms.make("/v1/kms/activate", json!({}));
    kms.layered("data");
    kms.instance("vm");
    kms.attach("data", "vm");
    let body = json!({"size": 2 * MIB});
    kms.refuses(
        "/v1/disks/data/resize",
        body.clone(),
        "ResizeNeedsDetach",
        Some("D06"),
    );
    assert_eq!(kms.get("/v1/disks/data")["size"], MIB);
    kms.make("/v1/disks/data/detach", json!({}));
    kms.make("/v1/disks/data/resize", body);
    kms.attach("data", "vm");
    assert_eq!(kms.get("/v1/disks/data")["size"], 2 * MIB);
}

//! Rule I01: the disk that an instance boots from comes and goes with it, and the profile says who decides whether it is
//! encrypted. Every row of the decision is in a table beside it; here some of them through the API.

use crate::common;

use crate::common::{Kms, MIB, Value, json, refused};

/// With the images `secret` (encrypted) and `open` (plain).
fn of_profile(profile: &str) -> Kms {
    let kms = Kms::of_profile(profile, 1 << 20);
    if profile == "huawei-evs" {
        kms.make("/v1/kms/grant", json!({}));
    } else {
        kms.make("/v1/kms/activate", json!({}));
    }
    for (image, encrypted) in [("secret", true), ("open", false)] {
        let disk = format!("{image}-disk");
        kms.make(
            "/v1/disks",
            json!({"name": disk, "size": MIB, "encrypted": encrypted}),
        );
        kms.make("/v1/images", json!({"name": image, "disk": disk}));
    }
    kms
}

fn with(name: &str, system_disk: Value) -> Value {
    json!({"name": name, "system_disk": system_disk})
}

/// An instance with a system disk: both.
fn register(kms: &Kms, name: &str, system_disk: Value) -> (Value, Value) {
    let answer = kms.make("/v1/instances", with(name, system_disk));
    let disk = answer["new_disks"][0].clone();
    (answer, disk)
}

#[test]
fn rule_i01_d11_a_system_disk_comes_with_its_instance() {
    let kms = of_profile("sealblk");
    let body =
        json!({"name": "vm", "system_disk": {"image": "secret"}, "disks": [{"name": "logs", "size": MIB}]});
    let creates = kms.usage("create");
    let answer = kms.make("/v1/instances", body);
    let disks = answer["new_disks"].as_array().unwrap();
    let [system, data] = disks.as_slice() else {
        panic!("{answer}")
    };
    assert_eq!(kms.usage("create"), creates + 2, "each counts");
    assert_eq!(
        (
            &system["name"],
            &system["role"],
            &system["system_of"],
            &system["size"]
        ),
        (&json!("vm-system"), &json!("system"), &answer["id"], &json!(MIB))
    );
    assert_eq!(
        (&data["role"], &data["system_of"]),
        (&json!("data"), &json!(null))
    );
    assert_eq!(answer["system_disk"], system["id"]);
    assert_eq!(kms.get("/v1/instances/vm")["system_disk"], system["id"]);
    let (_, other) = register(
        &kms,
        "vm2",
        json!({"image": "open", "name": "root", "size": 2 * MIB}),
    );
    assert_eq!(
        (&other["name"], &other["size"], &other["role"]),
        (&json!("root"), &json!(2 * MIB), &json!("system"))
    );
    let roles: Vec<_> = kms.get("/v1/disks")["disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|disk| disk["role"].clone())
        .collect();
    assert_eq!(roles.iter().filter(|role| **role == json!("system")).count(), 2);
    // A refused one refuses everything.
    for (system_disk, code, rule) in [
        (json!({"image": "no"}), "NotFound", None),
        (
            json!({"image": "open", "size": 512}),
            "SizeBelowSource",
            Some("I04"),
        ),
        (json!({"image": "open", "name": "root"}), "NameTaken", None),
        (json!({"image": "open", "type": "essd"}), "InvalidRequest", None),
        (json!({"size": MIB}), "InvalidRequest", None),
        (
            json!({"image": "open", "snapshot": "open"}),
            "InvalidRequest",
            None,
        ),
    ] {
        kms.refuses("/v1/instances", with("vm3", system_disk), code, rule);
    }
    assert_eq!(kms.get("/v1/disks")["disks"].as_array().unwrap().len(), 5);
    assert_eq!(kms.get("/v1/instances")["instances"].as_array().unwrap().len(), 2);
}

#[test]
fn rule_i01_a_system_disk_exists_only_with_its_instance() {
    let mut kms = of_profile("sealblk");
    let alone = json!({"name": "alone", "size": MIB, "role": "system"});
    let answer = kms.refuses("/v1/disks", alone, "SystemDiskBound", Some("I01"));
    assert!(
        answer["message"].to_string().contains("--system-disk"),
        "{answer}"
    );
    let body = json!({"name": "alone", "size": MIB, "role": "swap"});
    kms.refuses("/v1/disks", body, "InvalidRequest", None);
    let body = json!({"name": "named", "size": MIB, "role": "data"});
    assert_eq!(kms.make("/v1/disks", body)["role"], "data");
    let (_, disk) = register(&kms, "vm", json!({"image": "secret"}));
    let file = disk["path"].as_str().unwrap().to_owned();
    kms.instance("other");
    let (status, answer) = kms.call("DELETE", "/v1/disks/vm-system", None);
    refused(status, &answer, "SystemDiskBound", Some("I01"));
    let elsewhere = json!({"disk": "vm-system", "instance": "other"});
    kms.refuses("/v1/attachments", elsewhere, "SystemDiskBound", Some("I01"));
    kms.attach("vm-system", "vm");
    // It is detached as any disk is, and comes back to its instance.
    kms.make("/v1/disks/vm-system/detach", json!({}));
    kms.attach("vm-system", "vm");
    let (status, answer) = kms.call("DELETE", "/v1/instances/vm", None);
    refused(status, &answer, "InstanceInUse", None);
    kms.make("/v1/disks/vm-system/detach", json!({}));
    kms.snapshot("vm-system", "last");
    kms.restart();
    assert_eq!(kms.delete("/v1/instances/vm")["system_disk"], disk["id"]);
    assert_eq!(kms.call("GET", "/v1/disks/vm-system", None).0, 404);
    assert_eq!(kms.call("GET", "/v1/instances/vm", None).0, 404);
    assert_eq!(kms.audit("disk.delete").len(), 2);
    // Its snapshot stays, and disks can be made from it.
    kms.make("/v1/disks", json!({"name": "rescue", "snapshot": "last"}));
    assert!(std::path::Path::new(&file).exists());
    kms.delete("/v1/disks/rescue?retention_days=0");
    kms.delete("/v1/snapshots/last");
    assert!(!std::path::Path::new(&file).exists());
    // The names are free again.
    register(&kms, "vm", json!({"image": "open"}));
}

#[test]
fn rule_i01_an_instance_whose_system_disk_cannot_be_deleted_stays() {
    let kms = of_profile("sealblk");
    let (instance, disk) = register(&kms, "vm", json!({"image": "open"}));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(disk["path"].as_str().unwrap());
    let file = file.unwrap();
    // As a process that serves it does.
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let (status, answer) = kms.call("DELETE", "/v1/instances/vm", None);
    refused(status, &answer, "StoreInUse", Some("A08"));
    assert_eq!(kms.get("/v1/instances/vm")["id"], instance["id"]);
    assert_eq!(kms.get("/v1/disks/vm-system")["state"], "available");
    drop(file);
    kms.delete("/v1/instances/vm");
}

#[test]
fn rule_i01_a03_a04_a01_the_rules_of_attach_hold_for_system_disks() {
    let kms = of_profile("sealblk");
    let body = |field: &str, value: Value, image: &str| {
        let mut body = with("vm", json!({"image": image}));
        body[field] = value;
        body
    };
    let local = body("local_storage", json!(true), "secret");
    kms.refuses("/v1/instances", local, "LocalStorage", Some("A03"));
    let zone = body("zone", json!("eu-9"), "open");
    kms.refuses("/v1/instances", zone, "ZoneMismatch", Some("A01"));
    assert_eq!(kms.get("/v1/instances")["instances"], json!([]));
    kms.make("/v1/instances", body("local_storage", json!(true), "open"));
    let kms = of_profile("alibaba-ecs");
    let metal = body("bare_metal", json!(true), "secret");
    kms.refuses("/v1/instances", metal, "BareMetal", Some("A04"));
    kms.make("/v1/instances", body("local_storage", json!(true), "secret"));
}

#[test]
fn rule_i01_where_system_disks_are_plain_neither_image_nor_choice_makes_them_encrypted() {
    for profile in ["alibaba-ecs-classic", "tencent-cbs"] {
        let kms = of_profile(profile);
        for choice in [
            json!({"image": "secret"}),
            json!({"image": "open", "encrypted": true}),
            json!({"image": "open", "key": "any"}),
        ] {
            kms.refuses(
                "/v1/instances",
                with("vm", choice),
                "SystemDiskPlain",
                Some("I01"),
            );
        }
        let (_, disk) = register(&kms, "vm", json!({"image": "open", "encrypted": false}));
        assert_eq!(disk["encrypted"], false);
    }
}

#[test]
fn rule_i01_where_the_image_decides_a_choice_is_refused() {
    let kms = of_profile("alibaba-ecs");
    for choice in [
        json!({"image": "open", "encrypted": true}),
        json!({"image": "secret", "encrypted": true}),
        json!({"image": "open", "encrypted": false}),
        json!({"image": "open", "key": "any"}),
    ] {
        kms.refuses(
            "/v1/instances",
            with("vm", choice),
            "SystemDiskByImage",
            Some("I01"),
        );
    }
    let image = kms.get("/v1/images/secret");
    let (_, disk) = register(&kms, "vm", json!({"image": "secret"}));
    assert_eq!(
        (&disk["lineage"], &disk["key"]),
        (&image["lineage"], &image["key"])
    );
    let (_, disk) = register(&kms, "vm2", json!({"image": "open"}));
    assert_eq!(disk["encrypted"], false);
}

#[test]
fn rule_i01_d10_where_the_purchaser_chooses_no_choice_is_the_image_s() {
    for profile in ["sealblk", "huawei-evs"] {
        let kms = of_profile(profile);
        let image = kms.get("/v1/images/secret");
        for (name, choice) in [
            ("vm1", json!({"image": "secret"})),
            ("vm2", json!({"image": "secret", "encrypted": true})),
            ("vm3", json!({"image": "secret", "key": image["key"]})),
        ] {
            let (_, disk) = register(&kms, name, choice);
            assert_eq!(
                (&disk["encrypted"], &disk["lineage"], &disk["key"]),
                (&json!(true), &image["lineage"], &image["key"])
            );
        }
        for (name, choice) in [
            ("vm4", json!({"image": "open"})),
            ("vm5", json!({"image": "open", "encrypted": false})),
        ] {
            let (_, disk) = register(&kms, name, choice);
            assert_eq!((&disk["encrypted"], &disk["key"]), (&json!(false), &json!(null)));
        }
        for (choice, code, rule) in [
            (
                json!({"image": "secret", "encrypted": false}),
                "EncryptionInherited",
                Some("D10"),
            ),
            (
                json!({"image": "open", "encrypted": false, "key": image["key"]}),
                "InvalidRequest",
                None,
            ),
            (json!({"image": "open", "key": "no"}), "NoSuchKey", None),
        ] {
            kms.refuses("/v1/instances", with("vm", choice), code, rule);
        }
        assert_eq!(kms.get("/v1/instances")["instances"].as_array().unwrap().len(), 5);
    }
}

/// Files of volumes: two disks, and whatever was made since.
fn files(kms: &Kms) -> usize {
    std::fs::read_dir(kms.state().join("disks")).unwrap().count()
}

#[test]
fn rule_i01_a_choice_that_is_not_the_image_s_encrypts_anew_under_another_lineage() {
    for profile in ["sealblk", "huawei-evs"] {
        let kms = of_profile(profile);
        let key_a = kms.make("/v1/keys", json!({"name": "key-a"}))["id"].clone();
        let key_b = kms.get("/v1/images/secret")["key"].clone();
        let (creates, uses) = (kms.usage("create"), kms.audit("key.use").len());
        for (name, choice, key, keys_used) in [
            ("vm1", json!({"image": "open", "key": "key-a"}), &key_a, 1),
            ("vm2", json!({"image": "secret", "key": "key-a"}), &key_a, 2),
            ("vm3", json!({"image": "open", "encrypted": true}), &key_b, 1),
            (
                "vm4",
                json!({"image": "open", "encrypted": true, "key": "key-a", "size": 2 * MIB, "type": "essd"}),
                &key_a,
                1,
            ),
        ] {
            let before = kms.audit("key.use").len();
            let (_, disk) = register(&kms, name, choice);
            assert_eq!(
                (&disk["encrypted"], &disk["key"], &disk["role"], &disk["state"]),
                (&json!(true), key, &json!("system"), &json!("available"))
            );
            assert_eq!(disk["snapshot"], json!(null), "it shares nothing with the image");
            assert_eq!(kms.store(&disk)["lineage"], disk["lineage"]);
            assert_eq!(
                kms.audit("key.use").len(),
                before + keys_used,
                "of each side that has a key"
            );
        }
        assert!(kms.audit("key.use").len() > uses);
        let disks = kms.get("/v1/disks")["disks"].as_array().unwrap().clone();
        let mut lineages: Vec<_> = disks.iter().map(|disk| disk["lineage"].to_string()).collect();
        lineages.sort();
        lineages.dedup();
        assert_eq!(
            (disks.len(), lineages.len()),
            (6, 6),
            "each has its own, one has none"
        );
        assert_eq!(kms.get("/v1/disks/vm4-system")["size"], 2 * MIB);
        assert_eq!(kms.get("/v1/disks/vm4-system")["type"], "essd");
        assert_eq!(
            kms.usage("create"),
            creates + 4,
            "each system disk, and nothing else"
        );
        // What was made to copy from has gone.
        assert_eq!(files(&kms), 6);
        for snapshot in ["secret", "open"] {
            assert_eq!(kms.get(&format!("/v1/snapshots/{snapshot}"))["clones"], 0);
        }
        kms.attach("vm1-system", "vm1");
        let too_small = json!({"image": "open", "encrypted": true, "size": MIB - 512});
        kms.refuses(
            "/v1/instances",
            with("vm", too_small),
            "SizeBelowSource",
            Some("I04"),
        );
    }
}

#[test]
fn rule_i01_a03_a05_what_is_encrypted_anew_obeys_the_rules_too() {
    let kms = of_profile("sealblk");
    let key = kms.make("/v1/keys", json!({"name": "key-a"}))["id"].clone();
    let mut local = with("vm", json!({"image": "open", "key": key}));
    local["local_storage"] = json!(true);
    kms.refuses("/v1/instances", local, "LocalStorage", Some("A03"));
    kms.make("/v1/keys/key-a/disable", json!({}));
    let disabled = with("vm", json!({"image": "open", "key": key}));
    kms.refuses("/v1/instances", disabled, "KeyNotUsable", Some("A05"));
    assert_eq!((files(&kms), kms.query("SELECT count(*) FROM volumes")), (2, 2));
    assert_eq!(kms.query("SELECT count(*) FROM lineages"), 1);
}

#[test]
fn rule_i01_d11_a_system_disk_that_cannot_be_copied_leaves_nothing() {
    let mut kms = of_profile("sealblk");
    let creates = kms.usage("create");
    kms.restart_with("fails-to-copy");
    let body = json!({
        "name": "vm",
        "system_disk": {"image": "secret", "key": "key-a"},
        "disks": [{"name": "logs", "size": MIB}],
    });
    kms.make("/v1/keys", json!({"name": "key-a"}));
    kms.refuses("/v1/instances", body.clone(), "NoSpace", None);
    assert_eq!(kms.get("/v1/instances")["instances"], json!([]));
    assert_eq!((files(&kms), kms.query("SELECT count(*) FROM volumes")), (2, 2));
    assert_eq!(kms.query("SELECT count(*) FROM lineages"), 1);
    assert_eq!(kms.usage("create"), creates);
    assert_eq!(kms.get("/v1/snapshots/secret")["clones"], 0);
    let last = kms.audit("instance.register").pop().unwrap();
    assert_eq!(last, ("failed".to_owned(), "NoSpace".to_owned()));
    kms.restart_with("sealblk");
    kms.make("/v1/instances", body);
}

/// A daemon that dies while the data is copied.
#[test]
fn rule_i01_d11_a_copy_that_a_crash_interrupted_leaves_nothing() {
    let mut kms = of_profile("sealblk");
    kms.restart_with("halts");
    let body = with("vm", json!({"image": "open", "encrypted": true})).to_string();
    let image = json!({"name": "sealed", "encrypted": true}).to_string();
    let copying = |count: i64| {
        let running = "SELECT count(*) FROM intents";
        kms.until("a copy", || {
            kms.query(running) == count && !kms.backends().is_empty()
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| kms.try_call("POST", "/v1/instances", Some(body.as_bytes())));
        copying(2);
        scope.spawn(|| kms.try_call("POST", "/v1/images/open/copy", Some(image.as_bytes())));
        copying(4);
        assert_eq!(kms.get("/v1/images/sealed")["state"], "creating");
        let (status, answer) = kms.call("DELETE", "/v1/images/sealed", None);
        refused(status, &answer, "ImageNotAvailable", None);
        let early = json!({"name": "early", "image": "sealed"});
        kms.refuses("/v1/disks", early, "ImageNotAvailable", None);
        common::kill(i64::from(kms.daemon.as_ref().unwrap().id()), "KILL");
    });
    kms.restart_with("sealblk");
    kms.until("undone", || kms.query("SELECT count(*) FROM volumes") == 2);
    assert_eq!(kms.get("/v1/instances")["instances"], json!([]));
    assert_eq!(kms.get("/v1/images")["images"].as_array().unwrap().len(), 2);
    assert_eq!(kms.query("SELECT count(*) FROM snapshots"), 2);
    assert_eq!(kms.query("SELECT count(*) FROM lineages"), 1);
    kms.until("no file is left", || files(&kms) == 2);
    kms.make("/v1/instances", serde_json::from_str(&body).unwrap());
    kms.make("/v1/images/open/copy", serde_json::from_str(&image).unwrap());
}

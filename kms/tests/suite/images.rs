//! The rules on images, each by its number, through the API: the allowed and the refused side. Sharing between accounts is
//! in `accounts.rs`.

use crate::common::{Kms, MIB, Value, json, refused};

/// With the encrypted disk `data` and the plain one `plain`, the snapshots `one` and `two` of them, and an image of each:
/// `secret` and `open`.
fn with_images() -> Kms {
    let kms = Kms::active();
    kms.layered("data");
    kms.snapshot("data", "one");
    kms.plain("plain");
    kms.snapshot("plain", "two");
    image(&kms, "secret", "one");
    image(&kms, "open", "two");
    kms
}

fn image(kms: &Kms, name: &str, snapshot: &str) -> Value {
    kms.make("/v1/images", json!({"name": name, "snapshot": snapshot}))
}

fn disk_of(kms: &Kms, name: &str, image: &str) -> Value {
    kms.make("/v1/disks", json!({"name": name, "image": image}))
}

/// In the order of the alphabet.
fn names(kms: &Kms, path: &str, kind: &str) -> Vec<String> {
    let list = kms.get(path)[kind].as_array().unwrap().clone();
    let mut names: Vec<_> = list
        .iter()
        .map(|object| object["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn lineages_of(kms: &Kms) -> i64 {
    kms.query("SELECT count(*) FROM lineages")
}

#[test]
fn rule_s01_k05_an_image_is_encrypted_as_its_snapshot_is_with_the_same_lineage() {
    let kms = with_images();
    let (data, secret) = (kms.get("/v1/disks/data"), kms.get("/v1/images/secret"));
    assert_eq!(
        (&secret["encrypted"], &secret["lineage"], &secret["key"]),
        (&json!(true), &data["lineage"], &data["key"])
    );
    assert_eq!(secret["snapshot"], kms.get("/v1/snapshots/one")["id"]);
    assert_eq!(
        (&secret["size"], &secret["state"], &secret["shared_with"]),
        (&json!(MIB), &json!("available"), &json!([]))
    );
    let open = kms.get("/v1/images/open");
    assert_eq!(
        (&open["encrypted"], &open["lineage"], &open["key"]),
        (&json!(false), &json!(null), &json!(null))
    );
    assert_eq!(kms.get("/v1/snapshots/one")["images"], 1);
    // There is no way to ask for anything else.
    let body = json!({"name": "other", "snapshot": "two", "encrypted": true});
    kms.refuses("/v1/images", body, "InvalidRequest", None);
    let path = format!("/v1/images?lineage={}", data["lineage"].as_str().unwrap());
    assert_eq!(names(&kms, &path, "images"), ["secret"]);
    assert_eq!(
        kms.usage("snapshot"),
        1,
        "an image of a snapshot is no metered call"
    );
}

#[test]
fn rule_s01_m01_an_image_of_a_disk_takes_a_snapshot_of_it() {
    let kms = Kms::active();
    let disk = kms.layered("data");
    kms.instance("vm");
    kms.attach("data", "vm");
    let image = kms.make("/v1/images", json!({"name": "base", "disk": "data"}));
    assert_eq!(
        (&image["state"], &image["lineage"]),
        (&json!("available"), &disk["lineage"])
    );
    let snapshot = kms.get("/v1/snapshots/data%2Fbase");
    assert_eq!(
        (&snapshot["id"], &snapshot["state"]),
        (&image["snapshot"], &json!("available"))
    );
    assert_eq!(kms.changes(&disk), ["Snapshot"]);
    assert_eq!(kms.usage("snapshot"), 1);
    for call in ["image.create", "snapshot.create"] {
        assert_eq!(kms.audit(call), [("allowed".to_owned(), String::new())]);
    }
    kms.disk("raw");
    for (body, code) in [
        (json!({"name": "other", "disk": "raw"}), "NotSupported"),
        (json!({"name": "other", "disk": "no"}), "NotFound"),
        (json!({"name": "other", "snapshot": "no"}), "NotFound"),
        (json!({"name": "other"}), "InvalidRequest"),
        (
            json!({"name": "other", "disk": "data", "snapshot": "base"}),
            "InvalidRequest",
        ),
        (json!({"name": "base", "snapshot": "base"}), "NameTaken"),
        (json!({"name": "-x", "snapshot": "base"}), "InvalidName"),
    ] {
        kms.refuses("/v1/images", body, code, None);
    }
    // The snapshot of the name is there already.
    kms.delete("/v1/images/base");
    let again = json!({"name": "base", "disk": "data"});
    kms.refuses("/v1/images", again, "NameTaken", None);
    assert_eq!(names(&kms, "/v1/images", "images"), [""; 0]);
    assert_eq!((kms.changes(&disk).len(), kms.usage("snapshot")), (1, 1));
}

#[test]
fn an_image_whose_snapshot_cannot_be_taken_is_not_there() {
    let mut kms = Kms::active();
    let disk = kms.layered("data");
    backends(&mut kms, "full");
    let body = json!({"name": "base", "disk": "data"});
    kms.refuses("/v1/images", body.clone(), "NoSpace", None);
    assert_eq!(kms.get("/v1/images")["images"], json!([]));
    assert_eq!(kms.get("/v1/snapshots")["snapshots"], json!([]));
    assert_eq!(kms.usage("snapshot"), 0);
    backends(&mut kms, "sealblk");
    kms.make("/v1/images", body);
    assert_eq!(kms.changes(&disk), ["Snapshot"]);
}

/// The daemon again, with backends of this behaviour.
fn backends(kms: &mut Kms, behaviour: &str) {
    kms.restart_with(behaviour);
}

#[test]
fn rule_s07_an_image_stays_if_its_deleted_snapshot_cannot_go() {
    let mut kms = with_images();
    kms.delete("/v1/snapshots/one");
    backends(&mut kms, "full");
    let (status, answer) = kms.call("DELETE", "/v1/images/secret", None);
    refused(status, &answer, "NoSpace", None);
    assert_eq!(kms.get("/v1/images/secret")["state"], "available");
    assert_eq!(names(&kms, "/v1/snapshots", "snapshots"), ["two"]);
    backends(&mut kms, "sealblk");
    kms.delete("/v1/images/secret");
    assert_eq!(kms.query("SELECT count(*) FROM snapshots"), 1);
}

#[test]
fn rule_d10_k09_i04_a_disk_from_an_image_inherits_from_it() {
    let kms = with_images();
    let data = kms.get("/v1/disks/data");
    let disk = disk_of(&kms, "clone", "secret");
    assert_eq!(
        (&disk["encrypted"], &disk["lineage"], &disk["key"], &disk["size"]),
        (&json!(true), &data["lineage"], &data["key"], &json!(MIB))
    );
    assert_eq!(kms.store(&disk)["lineage"], data["lineage"]);
    let disk = disk_of(&kms, "plain-clone", "open");
    assert_eq!(
        (&disk["encrypted"], &disk["lineage"], &disk["type"]),
        (&json!(false), &json!(null), &json!("ssd"))
    );
    let wanted = |image: &str, field: &str, value: Value| {
        let mut body = json!({"name": "other", "image": image});
        body[field] = value;
        body
    };
    for (image, field, value, code, rule) in [
        (
            "secret",
            "encrypted",
            json!(false),
            "EncryptionInherited",
            Some("D10"),
        ),
        (
            "open",
            "encrypted",
            json!(true),
            "EncryptionInherited",
            Some("D10"),
        ),
        ("secret", "key", data["key"].clone(), "KeyInherited", Some("K09")),
        ("open", "key", data["key"].clone(), "KeyInherited", Some("K09")),
        ("secret", "size", json!(MIB - 512), "SizeBelowSource", Some("I04")),
        ("secret", "type", json!("essd"), "InvalidRequest", None),
        ("open", "kind", json!("local"), "InvalidRequest", None),
        ("open", "store", json!("raw"), "StoreNotAvailable", None),
        ("open", "zone", json!("elsewhere"), "InvalidRequest", None),
        ("open", "snapshot", json!("two"), "InvalidRequest", None),
        ("no", "size", json!(MIB), "NotFound", None),
    ] {
        kms.refuses("/v1/disks", wanted(image, field, value), code, rule);
    }
    let same = kms.make("/v1/disks", wanted("open", "encrypted", json!(false)));
    assert_eq!(same["encrypted"], false);
    let larger = kms.make(
        "/v1/disks",
        json!({"name": "larger", "image": "secret", "size": 2 * MIB}),
    );
    assert_eq!(kms.store(&larger)["size"], 2 * MIB);
    // With an instance too.
    let body = json!({"name": "vm", "zone": "eu-1", "disks": [{"name": "with", "image": "secret"}]});
    let made = kms.make("/v1/instances", body);
    assert_eq!(made["new_disks"][0]["lineage"], data["lineage"]);
}

#[test]
fn rule_s07_a_deleted_snapshot_stays_for_its_images_and_goes_with_the_last() {
    let kms = with_images();
    let data = kms.get("/v1/disks/data");
    image(&kms, "second", "one");
    kms.delete("/v1/snapshots/one");
    assert_eq!(kms.get("/v1/disks/data")["snapshots"], json!([]));
    assert_eq!(kms.call("GET", "/v1/snapshots/one", None).0, 404);
    assert_eq!(kms.get("/v1/images/secret")["snapshot"], json!(null));
    // The name is free, and disks are still made from the images.
    kms.snapshot("data", "one");
    kms.delete("/v1/snapshots/one");
    disk_of(&kms, "clone", "secret");
    kms.delete("/v1/images/secret");
    disk_of(&kms, "other", "second");
    assert_eq!(kms.store(&data)["snapshots"][0]["hidden"], false);
    assert_eq!(kms.delete("/v1/images/second")["state"], "available");
    let answer = json!({"name": "late", "image": "second"});
    kms.refuses("/v1/disks", answer, "NotFound", None);
    // Now what clones read of it is all that is left.
    assert_eq!(kms.store(&data)["snapshots"][0]["hidden"], true);
    kms.delete("/v1/disks/clone?retention_days=0");
    kms.delete("/v1/disks/other?retention_days=0");
    assert_eq!(kms.store(&data)["snapshots"], json!([]));
    assert_eq!(kms.query("SELECT count(*) FROM snapshots WHERE name = 'one'"), 0);
    // Of a snapshot that was not deleted, an image takes nothing with it.
    kms.delete("/v1/images/open");
    assert_eq!(names(&kms, "/v1/snapshots", "snapshots"), ["two"]);
    assert_eq!(kms.get("/v1/snapshots/two")["images"], 0);
}

#[test]
fn rule_s07_the_name_of_a_deleted_snapshot_is_free_also_while_it_goes_with_its_last_image() {
    let kms = with_images();
    kms.delete("/v1/snapshots/one");
    kms.snapshot("data", "one");
    kms.delete("/v1/images/secret");
    assert_eq!(names(&kms, "/v1/snapshots", "snapshots"), ["one", "two"]);
    assert_eq!(names(&kms, "/v1/images", "images"), ["open"]);
}

#[test]
fn rule_s07_k14_an_image_outlives_disk_and_snapshot_and_the_last_object_takes_file_and_key() {
    let kms = with_images();
    let data = kms.get("/v1/disks/data");
    let file = std::path::PathBuf::from(data["path"].as_str().unwrap());
    for path in ["/v1/disks/data?retention_days=0", "/v1/snapshots/one"] {
        kms.delete(path);
    }
    assert!(file.exists());
    assert_eq!(lineages_of(&kms), 1);
    assert_eq!(disk_of(&kms, "clone", "secret")["lineage"], data["lineage"]);
    kms.delete("/v1/disks/clone?retention_days=0");
    assert!(file.exists());
    kms.delete("/v1/images/secret");
    assert!(!file.exists());
    assert_eq!(lineages_of(&kms), 0, "every wrapped copy of the key is destroyed");
    assert_eq!(names(&kms, "/v1/images", "images"), ["open"]);
}

#[test]
fn rule_k11_a_key_protects_images_too() {
    let kms = Kms::active();
    kms.make("/v1/keys", json!({"name": "mine"}));
    kms.make("/v1/disks", json!({"name": "data", "size": MIB, "key": "mine"}));
    kms.make("/v1/images", json!({"name": "base", "disk": "data"}));
    kms.delete("/v1/snapshots/base");
    kms.delete("/v1/disks/data?retention_days=0");
    let resources = kms.get("/v1/keys/mine/resources")["resources"].clone();
    assert_eq!(
        (&resources[0]["kind"], &resources[0]["name"], &resources[1]),
        (&json!("image"), &json!("base"), &Value::Null)
    );
    let soon = json!({"days": 7});
    kms.refuses("/v1/keys/mine/schedule-deletion", soon, "KeyInUse", Some("K11"));
    // Rule A05: what could not be attached is not made.
    kms.make("/v1/keys/mine/disable", json!({}));
    let body = json!({"name": "clone", "image": "base"});
    kms.refuses("/v1/disks", body.clone(), "KeyNotUsable", Some("A05"));
    kms.make("/v1/keys/mine/enable", json!({}));
    kms.make("/v1/disks", body);
    kms.delete("/v1/disks/clone?retention_days=0");
    kms.delete("/v1/images/base");
    assert_eq!(kms.get("/v1/keys/mine/resources")["resources"], json!([]));
}

#[test]
fn rule_i02_encryption_and_key_of_an_image_are_not_changed() {
    let kms = with_images();
    let key = kms.get("/v1/disks/data")["key"].clone();
    let before = kms.get("/v1/images");
    for (name, body) in [
        ("secret", json!({"encrypted": false})),
        ("secret", json!({"name": "new", "encrypted": false})),
        ("secret", json!({"key": "another"})),
        ("open", json!({"encrypted": true})),
        ("open", json!({"key": key})),
    ] {
        let (status, answer) = kms.patch(&format!("/v1/images/{name}"), body);
        refused(status, &answer, "ImageEncryptionFixed", Some("I02"));
    }
    assert_eq!(kms.get("/v1/images"), before);
    let refusal = ("refused".to_owned(), "ImageEncryptionFixed".to_owned());
    assert_eq!(kms.audit("image.set"), vec![refusal; 5]);
    // To ask for what it is changes nothing; a name can be another.
    let same = json!({"encrypted": true, "key": key});
    assert_eq!(kms.patch("/v1/images/secret", same).0, 200);
    let (status, answer) = kms.patch("/v1/images/secret", json!({"name": "new"}));
    assert_eq!((status, &answer["name"]), (200, &json!("new")));
    for (path, body, code) in [
        ("/v1/images/new", json!({"name": "open"}), "NameTaken"),
        ("/v1/images/new", json!({"name": "a/b"}), "InvalidName"),
        ("/v1/images/new", json!({}), "InvalidRequest"),
        ("/v1/images/secret", json!({"name": "x"}), "NotFound"),
    ] {
        let (status, answer) = kms.patch(path, body);
        refused(status, &answer, code, None);
    }
}

#[test]
fn rule_i05_an_encrypted_image_is_not_shared() {
    let kms = with_images();
    let body = json!({"account": "acme"});
    let answer = kms.refuses(
        "/v1/images/secret/share",
        body.clone(),
        "EncryptedImageNotShared",
        Some("I05"),
    );
    assert!(answer["message"].to_string().contains("plain disk"), "{answer}");
    kms.refuses("/v1/images/open/share", body.clone(), "NotFound", None);
    kms.refuses("/v1/images/open/unshare", body, "NotFound", None);
    let own = json!({"account": "default"});
    kms.refuses("/v1/images/open/share", own, "InvalidRequest", None);
    assert_eq!(kms.query("SELECT count(*) FROM image_shares"), 0);
}

#[test]
fn rule_i01_a_plain_image_is_copied_as_an_encrypted_one_and_then_used() {
    let kms = with_images();
    let key = kms.make("/v1/keys", json!({"name": "mine"}))["id"].clone();
    let (creates, snapshots) = (kms.usage("create"), kms.usage("snapshot"));
    let copy = |image: &str, body: Value| kms.make(&format!("/v1/images/{image}/copy"), body);
    let sealed = copy("open", json!({"name": "sealed", "encrypted": true}));
    assert_eq!(
        (
            &sealed["name"],
            &sealed["state"],
            &sealed["encrypted"],
            &sealed["size"]
        ),
        (&json!("sealed"), &json!("available"), &json!(true), &json!(MIB))
    );
    assert_eq!(
        sealed["key"],
        kms.get("/v1/images/secret")["key"],
        "the service key"
    );
    let mine = copy("open", json!({"name": "mine", "encrypted": true, "key": "mine"}));
    let again = copy(
        "secret",
        json!({"name": "again", "encrypted": true, "key": "mine"}),
    );
    assert_eq!((&mine["key"], &again["key"]), (&key, &key));
    let mut lineages: Vec<_> = ["secret", "sealed", "mine", "again"]
        .map(|name| kms.get(&format!("/v1/images/{name}"))["lineage"].to_string())
        .to_vec();
    lineages.sort();
    lineages.dedup();
    assert_eq!(lineages.len(), 4, "each has a data key of its own");
    assert_eq!(
        (kms.usage("create"), kms.usage("snapshot")),
        (creates + 3, snapshots)
    );
    // Neither disks nor snapshots are seen of that, and nothing is left of what was copied from.
    assert_eq!(names(&kms, "/v1/disks", "disks"), ["data", "plain"]);
    assert_eq!(names(&kms, "/v1/snapshots", "snapshots"), ["one", "two"]);
    assert_eq!(kms.get("/v1/snapshots/two")["clones"], 0);
    assert_eq!(kms.query("SELECT count(*) FROM volumes"), 5);
    let disk = disk_of(&kms, "clone", "mine");
    assert_eq!((&disk["lineage"], &disk["key"]), (&mine["lineage"], &key));
    assert_eq!(
        kms.get("/v1/images/open")["encrypted"],
        false,
        "it stays what it is"
    );
    // The last object takes file and key.
    kms.delete("/v1/disks/clone?retention_days=0");
    for image in ["sealed", "mine", "again"] {
        kms.delete(&format!("/v1/images/{image}"));
    }
    assert_eq!(
        (kms.query("SELECT count(*) FROM volumes"), lineages_of(&kms)),
        (2, 1)
    );
    assert_eq!(std::fs::read_dir(kms.state().join("disks")).unwrap().count(), 2);
}

#[test]
fn rule_i01_i02_a_copy_in_the_region_is_an_encrypted_one() {
    let kms = with_images();
    for (body, code, rule) in [
        (json!({"name": "copy"}), "InvalidRequest", None),
        (
            json!({"name": "copy", "encrypted": false}),
            "InvalidRequest",
            None,
        ),
        (json!({"name": "copy", "key": "any"}), "InvalidRequest", None),
        (
            json!({"name": "copy", "encrypted": true, "to_region": "eu-1"}),
            "InvalidRequest",
            None,
        ),
        (json!({"to_region": "eu-2", "key": "any"}), "InvalidRequest", None),
        (json!({}), "InvalidRequest", None),
        (json!({"name": "secret", "encrypted": true}), "NameTaken", None),
        (json!({"name": "a/b", "encrypted": true}), "InvalidName", None),
        (
            json!({"name": "copy", "encrypted": true, "key": "no"}),
            "NoSuchKey",
            None,
        ),
    ] {
        kms.refuses("/v1/images/open/copy", body, code, rule);
    }
    assert_eq!(kms.query("SELECT count(*) FROM volumes"), 2);
}

#[test]
fn an_image_that_cannot_be_copied_leaves_nothing() {
    let mut kms = with_images();
    let creates = kms.usage("create");
    backends(&mut kms, "fails-to-copy");
    let body = json!({"name": "sealed", "encrypted": true});
    kms.refuses("/v1/images/open/copy", body, "NoSpace", None);
    assert_eq!(names(&kms, "/v1/images", "images").len(), 2);
    assert_eq!(
        (kms.query("SELECT count(*) FROM volumes"), lineages_of(&kms)),
        (2, 1)
    );
    assert_eq!(kms.query("SELECT count(*) FROM snapshots"), 2);
    assert_eq!(std::fs::read_dir(kms.state().join("disks")).unwrap().count(), 2);
    assert_eq!(kms.usage("create"), creates);
    let last = kms.audit("image.copy").pop().unwrap();
    assert_eq!(last, ("failed".to_owned(), "NoSpace".to_owned()));
}

#[test]
fn rule_i06_images_do_not_leave_their_region() {
    let kms = with_images();
    for (image, region, code, rule) in [
        ("secret", "eu-2", "EncryptedImageStays", Some("I06")),
        ("open", "eu-2", "UnknownRegion", None),
        ("secret", "eu-1", "SameRegion", None),
        ("open", "", "InvalidName", None),
        ("no", "eu-2", "NotFound", None),
    ] {
        let path = format!("/v1/images/{image}/copy");
        kms.refuses(&path, json!({"to_region": region}), code, rule);
    }
    assert_eq!(kms.audit("image.copy").len(), 5);
}

#[test]
fn rule_i07_encrypted_images_are_not_exported() {
    let kms = with_images();
    let file = kms.path("file");
    for (image, code, rule) in [
        ("secret", "EncryptedImageNotExported", Some("I07")),
        ("no", "NotFound", None),
    ] {
        let path = format!("/v1/images/{image}/export");
        kms.refuses(&path, json!({"path": file}), code, rule);
    }
    assert!(!std::path::Path::new(&file).exists());
    assert_eq!(kms.audit("image.export").len(), 2);
}

#[test]
fn an_image_is_written_to_one_file_at_a_time_and_one_that_is_made_to_none() {
    let mut kms = with_images();
    backends(&mut kms, "halts");
    let export = |image: &str, file: &str| {
        (
            format!("/v1/images/{image}/export"),
            json!({"path": kms.path(file)}),
        )
    };
    let (path, body) = export("open", "file");
    kms.make(&path, body);
    let (path, body) = export("open", "other");
    kms.refuses(&path, body, "ImageNotAvailable", None);
    let source = kms.path("source");
    std::fs::write(&source, [7; 65536]).unwrap();
    kms.make("/v1/imports/images", json!({"name": "in", "file": source}));
    kms.until("it goes on", || kms.get("/v1/images/in")["copy"]["done"] == 4096);
    let (path, body) = export("in", "other");
    kms.refuses(&path, body, "ImageNotAvailable", None);
    kms.refuses("/v1/images/in/export/cancel", json!({}), "NoCopy", None);
    assert_eq!(kms.get("/v1/images/in")["state"], "creating");
    kms.until("it goes on", || {
        kms.get("/v1/images/open")["copy"]["done"] == 4096
    });
    assert!(std::path::Path::new(&kms.path("file")).exists());
    kms.make("/v1/images/open/export/cancel", json!({}));
    for file in ["file", "other"] {
        assert!(!std::path::Path::new(&kms.path(file)).exists(), "{file}");
    }
}

#[test]
fn an_image_is_no_larger_than_a_disk_can_be() {
    let kms = Kms::active();
    // A qcow2 header of version 2, with clusters of 2 MiB and tables for 65 TiB.
    let mut header = vec![0; 72];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
    header[23] = 21;
    header[24..32].copy_from_slice(&(65_u64 << 40).to_be_bytes());
    header[36..40].copy_from_slice(&130_u32.to_be_bytes());
    header[40..48].copy_from_slice(&(2 * MIB).to_be_bytes());
    let source = kms.path("source");
    std::fs::write(&source, header).unwrap();
    let image = json!({"name": "in", "file": source});
    kms.refuses("/v1/imports/images", image, "InvalidSize", None);
    let disk = json!({"file": source, "disk": {"name": "data"}});
    kms.refuses("/v1/imports", disk, "InvalidSize", None);
}

//! Rule D11: disks that are created together with an instance.

use crate::common::{Kms, MIB, Value, json};

fn disk(name: &str) -> Value {
    json!({"name": name, "size": MIB, "store": "raw"})
}

fn nothing(kms: &Kms) {
    assert_eq!(kms.get("/v1/instances")["instances"], json!([]));
    assert_eq!(kms.get("/v1/disks")["disks"], json!([]));
    assert_eq!(kms.get("/v1/keys")["keys"], json!([]));
    assert_eq!(kms.usage("create"), 0);
    assert_eq!(std::fs::read_dir(kms.state().join("disks")).unwrap().count(), 0);
    assert_eq!(kms.get("/v1/kms")["instances"], 0);
}

#[test]
fn rule_d11_an_instance_and_its_disks_are_made_together() {
    let kms = Kms::active();
    let mut plain = disk("plain");
    plain["encrypted"] = json!(false);
    let layered = json!({"name": "layered", "size": MIB, "type": "essd"});
    let body = json!({"name": "vm", "zone": "eu-1b", "disks": [disk("data"), plain, layered]});
    let answer = kms.make("/v1/instances", body);
    assert_eq!((&answer["name"], &answer["disks"]), (&json!("vm"), &json!([])));
    let disks = answer["new_disks"].as_array().unwrap();
    let names: Vec<_> = disks.iter().map(|disk| disk["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["data", "plain", "layered"]);
    for disk in disks {
        assert_eq!(
            (&disk["state"], &disk["zone"]),
            (&json!("available"), &json!("eu-1b"))
        );
    }
    assert_eq!(disks[2]["type"], "essd");
    assert_eq!(kms.usage("create"), 2, "each encrypted one counts");
    assert_eq!(kms.audit("disk.create").len(), 3);
    assert_eq!(kms.audit("instance.register").len(), 1);
    for name in names {
        kms.attach(name, "vm");
    }
    assert_eq!(kms.get("/v1/instances/vm")["disks"].as_array().unwrap().len(), 3);
}

#[test]
fn rule_d11_a_refused_disk_refuses_everything() {
    let kms = Kms::active();
    let mut local = disk("local");
    local["kind"] = json!("local");
    let twice = kms.path("file");
    let (mut one, mut other) = (disk("one"), disk("other"));
    one["path"] = json!(twice);
    other["path"] = json!(twice);
    let many: Vec<_> = (0..17).map(|number| disk(&format!("disk{number}"))).collect();
    for (disks, code, rule) in [
        (json!([disk("data"), local]), "LocalDisk", Some("D02")),
        (json!([disk("data"), disk("data")]), "NameTaken", None),
        (json!([disk("data"), {"name": "none"}]), "InvalidRequest", None),
        (json!([one, other]), "FileInUse", None),
        (json!(many), "TooMany", None),
    ] {
        let body = json!({"name": "vm", "disks": disks});
        kms.refuses("/v1/instances", body, code, rule);
        nothing(&kms);
        let last = kms.audit("instance.register").pop().unwrap();
        assert_eq!(last, ("refused".to_owned(), code.to_owned()));
    }
    assert!(!std::path::Path::new(&twice).exists());
}

#[test]
fn rule_d11_a_disk_that_cannot_be_made_undoes_everything() {
    let kms = Kms::active();
    let mut huge = disk("huge");
    huge["size"] = json!(64u64 << 40);
    let body = json!({"name": "vm", "disks": [disk("data"), huge, disk("logs")]});
    kms.refuses("/v1/instances", body, "NoSpace", None);
    nothing(&kms);
    let failed = ("failed".to_owned(), "NoSpace".to_owned());
    assert_eq!(kms.audit("instance.register").pop(), Some(failed.clone()));
    let decisions = kms.audit("disk.create");
    assert_eq!(decisions.iter().filter(|record| **record == failed).count(), 3);
    kms.make("/v1/instances", json!({"name": "vm", "disks": [disk("data")]}));
}

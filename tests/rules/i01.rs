//! I01: a system disk comes and goes with its instance; who decides whether it is encrypted is the profile's choice.

use sealblk_e2e::Kms;
use serde_json::json;

use crate::scene::{PROFILES, each};

/// The images `secret`, encrypted with the key B, and `open`, plain; and the key A, where there are customer keys.
fn with_images(kms: &Kms) {
    for (image, encrypted) in [("secret", "--encrypted=true"), ("open", "--encrypted=false")] {
        kms.create(image, &[encrypted]);
        kms.ok(&["image", "create", image, "--disk", image]);
    }
    kms.sealctl(&["key", "create", "A"]);
}

#[test]
fn rule_i01_choice_and_image_decide_as_the_profile_says() {
    const CHOICES: [&str; 4] = [
        "image=secret,key=A",
        "image=open,key=A",
        "image=secret",
        "image=open",
    ];
    const PLAIN: Result<&str, (&str, &str)> = Err(("SystemDiskPlain", "I01"));
    const BY_IMAGE: Result<&str, (&str, &str)> = Err(("SystemDiskByImage", "I01"));
    // With what key the system disk is encrypted in each case.
    let table = [
        ("tencent-cbs", [PLAIN, PLAIN, PLAIN, Ok("none")]),
        ("alibaba-ecs-classic", [PLAIN, PLAIN, PLAIN, Ok("none")]),
        ("alibaba-ecs", [BY_IMAGE, BY_IMAGE, Ok("B"), Ok("none")]),
        ("huawei-evs", [Ok("A"), Ok("A"), Ok("B"), Ok("none")]),
        ("sealblk", [Ok("A"), Ok("A"), Ok("B"), Ok("none")]),
    ];
    each(table, |kms, cases| {
        with_images(kms);
        let all = kms.ok(&["key", "list"])["keys"].clone();
        let named_a = all.as_array().unwrap().iter().find(|key| key["name"] == "A");
        let image = kms.ok(&["image", "show", "secret"]);
        let keys = json!({"A": named_a.map(|key| &key["id"]), "B": image["key"], "none": null});
        for (choice, expected) in CHOICES.into_iter().zip(cases) {
            let register = ["instance", "register", "vm", "--system-disk", choice];
            match expected {
                Err((code, rule)) => {
                    kms.refused(&register, code, Some(rule));
                }
                Ok(key) => {
                    let disk = kms.ok(&register)["new_disks"][0].clone();
                    assert_eq!(disk["key"], keys[key], "{choice}");
                    let inherits = key != "A" && disk["encrypted"] == true;
                    assert_eq!(disk["lineage"] == image["lineage"], inherits, "{choice}");
                    kms.ok(&["instance", "remove", "vm"]);
                }
            }
        }
    });
}

#[test]
fn rule_i01_a_system_disk_exists_only_with_its_instance() {
    let kms = Kms::start();
    with_images(&kms);
    kms.ok(&["instance", "register", "other"]);
    kms.ok(&["instance", "register", "vm", "--system-disk", "image=secret"]);
    for call in [
        &["disk", "delete", "vm-system"][..],
        &["attach", "vm-system", "other"],
    ] {
        kms.refused(call, "SystemDiskBound", Some("I01"));
    }
    kms.ok(&["attach", "vm-system", "vm"]);
    kms.ok(&["detach", "vm-system"]);
    kms.ok(&["instance", "remove", "vm"]);
    kms.refused(&["disk", "show", "vm-system"], "NotFound", None);
}

#[test]
fn rule_i01_a_plain_image_is_copied_as_an_encrypted_one_and_then_used() {
    each(PROFILES.map(|profile| (profile, ())), |kms, ()| {
        with_images(kms);
        let copy = kms.ok(&["image", "copy", "open", "sealed", "--encrypt"]);
        assert_eq!(
            (&copy["encrypted"], copy["lineage"].is_string()),
            (&true.into(), true)
        );
        let disk = kms.ok(&["disk", "create", "data", "--image", "sealed"]);
        assert_eq!(disk["lineage"], copy["lineage"]);
        kms.sealctl(&["image", "copy", "secret", "opened"]).usage_error();
    });
}

#[test]
fn rule_i01_an_image_that_is_made_of_a_file_decides_as_any_other() {
    each(PROFILES.map(|profile| (profile, ())), |kms, ()| {
        let file = kms.path_text("image.raw");
        std::fs::write(&file, [7; 65536]).unwrap();
        let sealed = kms.ok(&["image", "import", "sealed", &file, "--encrypted"]);
        kms.ok(&["image", "import", "open", &file]);
        let disk = kms.ok(&["disk", "create", "data", "--image", "sealed"]);
        assert_eq!(
            (&disk["encrypted"], &disk["lineage"]),
            (&true.into(), &sealed["lineage"])
        );
        let other = [
            "disk",
            "create",
            "plain",
            "--image",
            "sealed",
            "--encrypted=false",
        ];
        kms.refused(&other, "EncryptionInherited", Some("D10"));
        kms.ok(&["instance", "register", "vm", "--system-disk", "image=open"]);
        assert_eq!(kms.disk("vm-system")["encrypted"], false);
    });
}

//! K01: the KMS is activated before the first encrypted disk.

use sealblk_e2e::Kms;

use crate::scene::each_closed;

const CREATE: [&str; 5] = ["disk", "create", "data", "--size", "1MiB"];

#[test]
fn rule_k01_before_activation_only_plain_disks_are_created() {
    // What refuses an encrypted disk, what opens the gate, and the call of the other kind of gate.
    let activation = ("KmsNotActivated", "K01", "activate", "grant");
    let grant = ("KmsNotGranted", "K02", "grant", "activate");
    let table = [
        ("tencent-cbs", activation),
        ("alibaba-ecs-classic", activation),
        ("alibaba-ecs", activation),
        ("huawei-evs", grant),
        ("sealblk", activation),
    ];
    each_closed(1_000, table, |kms, (code, rule, opens, other)| {
        assert_eq!(kms.ok(&["kms", "status"])["state"], "inactive");
        let sentence = kms.refused(&CREATE, code, Some(rule));
        assert!(sentence.contains(&format!("kms {opens}")), "{sentence}");
        kms.create("plain", &["--encrypted=false"]);
        kms.refused(&["kms", other], "NotSupported", None);
        for _ in 0..2 {
            assert_eq!(kms.ok(&["kms", opens])["state"], "active");
        }
        kms.ok(&CREATE);
    });
}

#[test]
fn rule_k01_an_encrypted_image_is_made_of_a_file_only_in_an_activated_account() {
    let kms = Kms::inactive();
    let file = kms.path_text("image.raw");
    std::fs::write(&file, [7; 65536]).unwrap();
    let encrypted = ["image", "import", "sealed", &file, "--encrypted"];
    kms.refused(&encrypted, "KmsNotActivated", Some("K01"));
    kms.ok(&["image", "import", "open", &file]);
}

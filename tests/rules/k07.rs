//! K07: master keys live apart from the data, one service key an account and region, and no answer has one.

use sealblk_e2e::keys::DiskKeys;
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::search::{Needle, found_in_file};

use crate::scene::with_customer_key;

#[test]
fn rule_k07_no_answer_and_no_disk_has_a_master_key() {
    let kms = with_customer_key();
    let needle = Needle::key("master key", &DiskKeys::of(&kms.state(), "data").master);
    for call in [
        &["key", "show", "mine"][..],
        &["key", "list"],
        &["key", "resources", "mine"],
        &["key", "rotate", "mine"],
        &["disk", "show", "data"],
        &["kms", "status"],
        &["audit"],
    ] {
        assert!(!needle.is_in(kms.ok(call).to_string().as_bytes()), "{call:?}");
    }
    for verb in ["export", "material", "reveal"] {
        kms.sealctl(&["key", verb, "mine"]).usage_error();
    }
    let disk = kms.disk("data");
    assert_eq!(
        found_in_file(kms::path(&disk, "path"), &[needle]),
        Vec::<String>::new()
    );
}

#[test]
fn rule_k07_each_region_has_a_service_key_of_its_own() {
    let master = |kms: &Kms| DiskKeys::of(&kms.state(), "data").master;
    let kms = [Kms::start(), Kms::start()];
    let ids = kms
        .each_ref()
        .map(|kms| text(&kms.create("data", &[]), "key").to_owned());
    assert_ne!(ids[0], ids[1]);
    assert_ne!(master(&kms[0]), master(&kms[1]));
    kms[0].refused(&["key", "show", &ids[1]], "NotFound", None);
}

#[test]
fn rule_k07_no_answer_has_a_field_that_nobody_has_thought_about() {
    let kms = with_customer_key();
    kms.ok(&["image", "create", "base", "--disk", "data"]);
    for (call, fields) in [
        (["key", "show", "mine"], 13),
        (["disk", "show", "data"], 37),
        (["image", "show", "base"], 15),
    ] {
        let answer = kms.ok(&call);
        assert_eq!(
            answer.as_object().unwrap().len(),
            fields,
            "a new field: is it no key? {answer}"
        );
    }
}

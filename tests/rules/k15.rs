//! K15: a disk uses a key of its own region only.

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::kms::{Kms, REGION, text};

use crate::scene::with_disk;

#[test]
fn rule_k15_a_key_of_another_region_is_neither_named_nor_used() {
    let elsewhere = text(&Kms::start().create("data", &[]), "key").to_owned();
    let create = |name, key| ["disk", "create", name, "--size", "1MiB", "--key", key];
    let before_its_first_key = Kms::start();
    before_its_first_key.refused(&create("data", &elsewhere), "WrongRegion", Some("K15"));
    let mut kms = with_disk();
    let own = text(&kms.disk("data"), "key").to_owned();
    kms.refused(&create("more", &elsewhere), "WrongRegion", Some("K15"));
    kms.ok(&create("more", &own));
    // Nor if the catalogue was mended so that it is here.
    kms.stop();
    Catalogue::open(&kms.state()).execute("UPDATE keys SET region = 'elsewhere'");
    kms.serve();
    kms.refused(&["attach", "data", "vm"], "WrongRegion", Some("K15"));
    for key in [&own, &format!("service-{REGION}")] {
        kms.refused(&create("new", key), "WrongRegion", Some("K15"));
    }
}

#[test]
fn rule_k15_a_name_that_no_key_has_is_not_said_to_be_of_another_region() {
    let kms = with_disk();
    for key in ["typo", "key-typo"] {
        let create = ["disk", "create", "new", "--size", "1MiB", "--key", key];
        let sentence = kms.refused(&create, "NoSuchKey", None);
        assert!(sentence.contains(key), "{sentence}");
    }
}

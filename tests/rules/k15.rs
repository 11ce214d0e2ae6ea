//! K15: a disk uses a key of its own region only.

use sealblk_e2e::catalogue::Catalogue;
use sealblk_e2e::kms::{Kms, text};

use crate::scene::with_disk;

#[test]
fn rule_k15_a_key_of_another_region_is_neither_named_nor_used() {
    let mut kms = with_disk();
    let own = text(&kms.disk("data"), "key").to_owned();
    let elsewhere = text(&Kms::start().create("data", &[]), "key").to_owned();
    let create = |key| ["disk", "create", "more", "--size", "1MiB", "--key", key];
    kms.refused(&create(&elsewhere), "WrongRegion", Some("K15"));
    kms.ok(&create(&own));
    // Nor if the catalogue was mended so that it is here.
    kms.stop();
    Catalogue::open(&kms.state()).execute("UPDATE keys SET region = 'elsewhere'");
    kms.serve();
    kms.refused(&["attach", "data", "vm"], "WrongRegion", Some("K15"));
}

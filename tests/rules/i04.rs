//! I04: a disk from a snapshot has exactly its size; key metadata takes nothing from it.

use crate::scene::{attach, briefly, with_disk};

/// Sectors of the disk `data`.
const SECTORS: u64 = 2048;

#[test]
fn rule_i04_a_disk_from_a_snapshot_has_the_sources_size_or_a_larger_one() {
    let kms = with_disk();
    briefly(&kms, "data", |guest| guest.write(SECTORS - 1, &[7; 512]));
    kms.ok(&["snapshot", "create", "data", "one"]);
    let clone = kms.ok(&["disk", "create", "clone", "--snapshot", "one"]);
    assert_eq!(clone["size"], SECTORS * 512);
    let mut guest = attach(&kms, "clone");
    assert_eq!(guest.read(SECTORS - 1, 512), [7; 512]);
    assert_ne!(guest.write_status(SECTORS), 0);
    let sized = |name, size| ["disk", "create", name, "--snapshot", "one", "--size", size];
    kms.refused(&sized("smaller", "512K"), "SizeBelowSource", Some("I04"));
    assert_eq!(kms.ok(&sized("larger", "2MiB"))["size"], 2 << 20);
}

//! D08: data is encrypted at rest and in every snapshot; the guest sees plaintext.

use sealblk_e2e::kms;
use sealblk_e2e::search::{Needle, found_in_file};

use crate::scene::{briefly, with_disk};

#[test]
fn rule_d08_nothing_in_the_clear_is_at_rest_of_a_disk_or_its_snapshots() {
    let marker: Vec<u8> = b"what the guest wrote "
        .iter()
        .copied()
        .cycle()
        .take(4096)
        .collect();
    let needle = [Needle::text("marker", &marker[..64])];
    let kms = with_disk();
    kms.create("plain", &["--encrypted=false"]);
    for (disk, found) in [("data", &[][..]), ("plain", &["marker"])] {
        briefly(&kms, disk, |guest| {
            guest.write(0, &marker);
            guest.flush();
            assert_eq!(guest.read(0, marker.len()), marker);
        });
        kms.ok(&["snapshot", "create", disk, "one"]);
        briefly(&kms, disk, |guest| guest.write(0, &[0; 4096]));
        // The snapshot's data is in the same file, and readable with the key.
        let file = kms.disk(disk);
        assert_eq!(found_in_file(kms::path(&file, "path"), &needle), found);
        kms.ok(&["rollback", disk, "one"]);
        assert_eq!(briefly(&kms, disk, |guest| guest.read(0, marker.len())), marker);
    }
}

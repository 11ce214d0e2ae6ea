//! A02: data is encrypted on the host where the instance runs; its guest needs no change.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use aes::Aes256;
use aes::cipher::KeyInit;
use sealblk_e2e::frontend::Guest;
use sealblk_e2e::keys::DiskKeys;
use sealblk_e2e::kms;
use sealblk_e2e::search::{Needle, found_in_file};
use xts_mode::{Xts128, get_tweak_default};

use crate::scene::{BLOCK, SECTOR, mark, marked, with_disk};

/// What AES-256-XTS under the disk's key makes of the block that [`mark`] writes.
fn ciphertext(keys: &DiskKeys, byte: u8) -> Vec<u8> {
    let [data, tweak] = [&keys.xts[..32], &keys.xts[32..]].map(|half| Aes256::new_from_slice(half).unwrap());
    let mut block = vec![byte; BLOCK];
    Xts128::new(data, tweak).encrypt_area(&mut block, 512, u128::from(SECTOR), get_tweak_default);
    block
}

#[test]
fn rule_a02_the_host_encrypts_and_the_guest_sees_a_plain_virtio_disk() {
    let kms = with_disk();
    let attachment = kms.ok(&["attach", "data", "vm"]);
    // A socket of this host, and nobody else's.
    let metadata = kms::path(&attachment, "socket").metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    mark(&mut guest, 9);
    assert_eq!(marked(&mut guest), 9);
    let keys = DiskKeys::of(&kms.state(), "data");
    let needles = [
        Needle::text("ciphertext", &ciphertext(&keys, 9)),
        Needle::text("plaintext", &[9; 512]),
    ];
    let disk = kms.disk("data");
    assert_eq!(found_in_file(kms::path(&disk, "path"), &needles), ["ciphertext"]);
    // A second host's attachment is refused: there is one serving process.
    kms.ok(&["instance", "register", "elsewhere"]);
    kms.refused(&["attach", "data", "elsewhere"], "AlreadyAttached", Some("D09"));
}

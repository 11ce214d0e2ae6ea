//! XTS-AES-256 against published vectors: NIST CAVP, IEEE 1619-2007, and OpenSSL's for ciphertext stealing.

mod kernels;

use std::path::Path;

use aes::cipher::inout::InOutBuf;
use sealblk::crypto::{Direction, KEY_BYTES, Kernel, XtsAes256};
use sealblk::units::{SECTOR_BYTES, Sector};

/// One record of a file in NIST's format.
#[derive(Default)]
struct Vector {
    section: String,
    count: String,
    bits: usize,
    key: Vec<u8>,
    tweak: [u8; 16],
    plain: Vec<u8>,
    cipher: Vec<u8>,
}

/// The vectors of a file whose data units are a whole number of bytes.
fn read(folder: &str, file: &str) -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(folder)
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut section = String::new();
    let mut vectors: Vec<Vector> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        let Some((name, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        if name == "COUNT" {
            vectors.push(Vector {
                section: section.clone(),
                count: value.to_owned(),
                ..Vector::default()
            });
            continue;
        }
        let vector = vectors.last_mut().unwrap();
        match name {
            "DataUnitLen" => vector.bits = value.parse().unwrap(),
            "Key" => vector.key = hex::decode(value).unwrap(),
            "i" => vector.tweak = hex::decode(value).unwrap().try_into().unwrap(),
            "DataUnitSeqNumber" => vector.tweak = value.parse::<u128>().unwrap().to_le_bytes(),
            "PT" => vector.plain = hex::decode(value).unwrap(),
            "CT" => vector.cipher = hex::decode(value).unwrap(),
            other => panic!("{other} in {}", path.display()),
        }
    }
    vectors.retain(|vector| vector.bits.is_multiple_of(8));
    vectors
}

/// By each kernel, both directions, in place and out of place.
fn check(vector: &Vector) {
    for kernel in kernels::available() {
        check_kernel(kernel, vector);
    }
}

fn check_kernel(kernel: Kernel, vector: &Vector) {
    let Vector {
        section, count, bits, ..
    } = vector;
    let name = format!("{section} {count} of {bits} bits, {kernel}");
    assert_eq!(
        (vector.plain.len(), vector.cipher.len()),
        (vector.bits / 8, vector.bits / 8),
        "{name}"
    );
    let key: &[u8; KEY_BYTES] = vector.key.as_slice().try_into().unwrap();
    let xts = XtsAes256::with_kernel(kernel, key).unwrap();
    for (direction, input, expected) in [
        (Direction::Encrypt, &vector.plain, &vector.cipher),
        (Direction::Decrypt, &vector.cipher, &vector.plain),
    ] {
        let mut out = vec![0; input.len()];
        let data = InOutBuf::new(input.as_slice(), out.as_mut_slice()).unwrap();
        xts.process_unit(direction, &vector.tweak, data).unwrap();
        assert_eq!(hex::encode(out), hex::encode(expected), "{name}, {direction:?}");

        let mut in_place = input.clone();
        xts.process_unit(direction, &vector.tweak, in_place.as_mut_slice().into())
            .unwrap();
        assert_eq!(
            hex::encode(in_place),
            hex::encode(expected),
            "{name}, {direction:?} in place"
        );
    }
}

fn check_nist(folder: &str) {
    let vectors = read(folder, "XTSGenAES256.rsp");
    for (section, count) in [("[ENCRYPT]", 300), ("[DECRYPT]", 300)] {
        assert_eq!(
            vectors.iter().filter(|vector| vector.section == section).count(),
            count
        );
    }
    vectors.iter().for_each(check);
}

#[test]
fn nist_cavp_with_tweaks_of_16_bytes() {
    check_nist("nist-xts-128hexstr");
}

#[test]
fn nist_cavp_with_data_unit_sequence_numbers() {
    check_nist("nist-xts-dataunitseqno");
}

#[test]
fn openssl_with_ciphertext_stealing() {
    let vectors = read("openssl-stealing", "XTS-AES-256.rsp");
    assert_eq!(vectors.len(), 25);
    vectors.iter().for_each(check);
}

#[test]
fn ieee_1619_vectors_10_to_14_as_units_and_as_sectors() {
    let vectors = read("ieee1619-2007", "XTS-AES-256.rsp");
    assert_eq!(vectors.len(), 5);
    for vector in &vectors {
        check(vector);
        for kernel in kernels::available() {
            check_sector(kernel, vector);
        }
    }
}

fn check_sector(kernel: Kernel, vector: &Vector) {
    let first = Sector(u128::from_le_bytes(vector.tweak).try_into().unwrap());
    let key = vector.key.as_slice().try_into().unwrap();
    let xts = XtsAes256::with_kernel(kernel, key).unwrap();
    let mut data = vector.plain.clone();
    assert_eq!(data.len(), SECTOR_BYTES);
    xts.process_sectors(Direction::Encrypt, first, data.as_mut_slice().into())
        .unwrap();
    assert_eq!(
        hex::encode(&data),
        hex::encode(&vector.cipher),
        "vector {}, {kernel}",
        vector.count
    );
    xts.process_sectors(Direction::Decrypt, first, data.as_mut_slice().into())
        .unwrap();
    assert_eq!(data, vector.plain, "vector {}, {kernel}", vector.count);
}

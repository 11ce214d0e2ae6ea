//! From the lineage key to the XTS keys.

use hkdf::Hkdf;
use sealblk_proto::keys::LineageKey;
use sha2::Sha256;

use super::KEY_BYTES;

/// Separates these keys from everything else that is ever derived from a lineage key.
const LABEL: &[u8] = b"sealblk xts v1";

/// Writes the XTS key of one segment: HKDF-Expand of RFC 5869, section 2.3, with SHA-256.
///
/// The lineage key is the pseudorandom key; `info` is the label and then the segment's number, 8 bytes
/// little-endian. The first half of the output encrypts the data, the second half the tweaks.
pub(super) fn segment_key(lineage: &LineageKey, segment: u64, key: &mut [u8; KEY_BYTES]) {
    let info = [LABEL, &segment.to_le_bytes()];
    let expander =
        Hkdf::<Sha256>::from_prk(lineage.expose()).expect("a lineage key has the length of a SHA-256");
    let expanded = expander.expand_multi_info(&info, key);
    expanded.expect("64 bytes are far fewer than HKDF's limit of 255 hashes");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from Python's `hmac` and `cryptography`'s `HKDFExpand`, which agree:
    /// `HKDFExpand(SHA256(), 64, b"sealblk xts v1" + segment.to_bytes(8, "little")).derive(bytes(range(32)))`.
    #[test]
    fn keys_are_those_of_an_independent_implementation() {
        let lineage = LineageKey::new_with(|key| *key = std::array::from_fn(|i| i as u8)).unwrap();
        for (segment, expected) in [
            (
                0,
                concat!(
                    "111eab4cd25fc3c648f7e949628127776a1f60a0bdeafac90c06733be6de1bfd",
                    "9fd5d74b414f4cb2a6f3738070de29530445a5710f537b8b7862d5fe20fa6ae7"
                ),
            ),
            (
                1,
                concat!(
                    "f011b303e0d013630443a9e765f994ee80f07016d734732ae25b6d30acda9189",
                    "1801e4d40449cee91a6895b5112c68c7b22646b3690341b30815907247ee94ba"
                ),
            ),
            (
                63,
                concat!(
                    "ab712575e8422a16bfe1a3b236402c121c18934b6bbbfd490024d52c9c191d16",
                    "e5d8d1991bb9e6520cda1d952db88cd9853f6a600f5e44b7029558eb328a5e07"
                ),
            ),
            (
                0x0102030405060708,
                concat!(
                    "afe25a0a69f6d5f039c5afdbd6ab4e0e47daa54e60382715700199a9f2b39d24",
                    "325558ce7bc733ef2b8666cd267b4f660189a56d57077df140415480ae87d8c1"
                ),
            ),
        ] {
            let mut key = [0; KEY_BYTES];
            segment_key(&lineage, segment, &mut key);
            assert_eq!(hex::encode(key), expected, "segment {segment}");
        }
    }
}

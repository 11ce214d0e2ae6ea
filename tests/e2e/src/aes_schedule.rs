//! The key expansion of AES-256 (FIPS 197, section 5.2), to know what round keys look like.

/// Of the 15 round keys the last one; the first two are the key itself.
pub(crate) fn last_round_key(key: &[u8]) -> [u8; 16] {
    let mut words: Vec<[u8; 4]> = key.as_chunks::<4>().0.to_vec();
    assert_eq!(words.len(), 8, "a key of 256 bits");
    let mut constant = 1;
    for index in 8..60 {
        let mut word = words[index - 1];
        if index % 8 == 0 {
            word.rotate_left(1);
            word = word.map(substitute);
            word[0] ^= constant;
            constant = double(constant);
        } else if index % 8 == 4 {
            word = word.map(substitute);
        }
        let before = words[index - 8];
        words.push(std::array::from_fn(|byte| before[byte] ^ word[byte]));
    }
    let mut last = [0; 16];
    last.copy_from_slice(words[56..].as_flattened());
    last
}

/// The S-box (section 5.1.1): the inverse in GF(2^8), which is the 254th power, and an affine map.
fn substitute(byte: u8) -> u8 {
    let inverse = (0..254).fold(1, |power, _| multiply(power, byte));
    (0..5).fold(0x63, |result, bits| result ^ inverse.rotate_left(bits))
}

fn multiply(mut one: u8, mut other: u8) -> u8 {
    let mut product = 0;
    while other != 0 {
        if other & 1 == 1 {
            product ^= one;
        }
        one = double(one);
        other >>= 1;
    }
    product
}

fn double(byte: u8) -> u8 {
    (byte << 1) ^ (0x1b * (byte >> 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197, appendix A.3.
    #[test]
    fn the_last_round_key_is_the_standards() {
        let key = hex::decode("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
        assert_eq!(
            hex::encode(last_round_key(&key)),
            "fe4890d1e6188d0b046df344706c631e"
        );
    }
}

use proptest::prelude::*;

use super::*;

const PLACE: Place<'static> = Place {
    region: "eu-1",
    account: "default",
    key: "key-a",
    key_version: 7,
    lineage: "lin-b",
};

fn counting(from: u8) -> [u8; KEY_BYTES] {
    std::array::from_fn(|index| from + index as u8)
}

/// Computed with Python's `cryptography` 48 (OpenSSL): AESGCM(00..1f).encrypt(10..1b, a0..bf, aad).
#[test]
fn known_answers_of_the_wrapping() {
    let start = "01101112131415161718191a1bdd5f3ab5ed6c9c1462dca2b6a3d4c7fc67e1fcbdaf77e1065f4058dce2e9ea64";
    for (object, tag) in [
        (ObjectType::MasterKey, "45a46fdc7e1db03f094e34d2891b2efc"),
        (ObjectType::DataKey, "f31aaa3b10ccb04117903eab47ce1842"),
        (ObjectType::LineageSalt, "7622f38f18fbb13b4f8a09c62fe5997a"),
    ] {
        let nonce = std::array::from_fn(|index| 0x10 + index as u8);
        let blob = seal_with_nonce(&counting(0), &counting(0xa0), &PLACE.encode(object), nonce).unwrap();
        assert_eq!(hex::encode(blob.as_bytes()), format!("{start}{tag}"));
        let mut secret = [0; KEY_BYTES];
        open(&counting(0), &blob, &PLACE.encode(object), &mut secret).unwrap();
        assert_eq!(secret, counting(0xa0));
    }
}

/// Computed with Python's `cryptography` 48: HKDF(SHA256, 32, salt=40..5f, info=b"sealblk lineage v1").derive(00..1f).
#[test]
fn known_answer_of_the_lineage_key() {
    let key = DataKey::new_with(|bytes| *bytes = counting(0)).unwrap();
    let salt = LineageSalt::try_new_with(|bytes| {
        *bytes = counting(0x40);
        Ok::<(), io::Error>(())
    })
    .unwrap();
    assert_eq!(
        hex::encode(derive_lineage_key(&key, &salt).unwrap().expose()),
        "cf5ebf283aee8114cd85718ed5465bb85c5d2f538b37347e0dc5abdc9e426c10"
    );
}

#[test]
fn the_whole_way_and_back() {
    let root = RootKey::generate().unwrap();
    let master = MasterKey::generate().unwrap();
    let data = DataKey::generate().unwrap();
    let salt = LineageSalt::generate().unwrap();
    let wrapped_master = wrap_master_key(&root, &master, &PLACE).unwrap();
    let opened = unwrap_master_key(&root, &wrapped_master, &PLACE).unwrap();
    let wrapped_data = wrap_data_key(&opened, &data, &PLACE).unwrap();
    let wrapped_salt = wrap_lineage_salt(&opened, &salt, &PLACE).unwrap();
    assert_eq!(
        unwrap_data_key(&master, &wrapped_data, &PLACE).unwrap().expose(),
        data.expose()
    );
    assert_eq!(
        unwrap_lineage_salt(&master, &wrapped_salt, &PLACE)
            .unwrap()
            .expose(),
        salt.expose()
    );
    // A blob of one kind is not one of another kind, in the same place under the same key.
    assert!(unwrap_data_key(&master, &wrapped_salt, &PLACE).is_err());
    assert!(unwrap_lineage_salt(&master, &wrapped_data, &PLACE).is_err());
    assert_ne!(
        wrap_data_key(&master, &data, &PLACE).unwrap(),
        wrapped_data,
        "nonces are never the same"
    );
}

#[test]
fn a_foreign_root_key_is_found() {
    let root = RootKey::generate().unwrap();
    let check = wrap_root_key_check(&root, &PLACE).unwrap();
    check_root_key(&root, &check, &PLACE).unwrap();
    let other = RootKey::generate().unwrap();
    assert!(matches!(
        check_root_key(&other, &check, &PLACE),
        Err(EnvelopeError::Invalid)
    ));
}

#[test]
fn a_key_of_another_place_does_not_open() {
    let master = MasterKey::generate().unwrap();
    let blob = wrap_data_key(&master, &DataKey::generate().unwrap(), &PLACE).unwrap();
    assert!(unwrap_data_key(&master, &blob, &PLACE).is_ok());
    for other in [
        Place {
            region: "eu-2",
            ..PLACE
        },
        Place {
            account: "other",
            ..PLACE
        },
        Place {
            key: "key-b",
            ..PLACE
        },
        Place {
            key_version: 8,
            ..PLACE
        },
        Place {
            lineage: "lin-c",
            ..PLACE
        },
        Place { region: "", ..PLACE },
    ] {
        assert!(
            matches!(
                unwrap_data_key(&master, &blob, &other),
                Err(EnvelopeError::Invalid)
            ),
            "{other:?}"
        );
    }
}

#[test]
fn blobs_of_other_lengths_or_versions_are_refused() {
    assert!(matches!(WrappedKey::from_bytes(&[]), Err(EnvelopeError::Invalid)));
    assert!(matches!(
        WrappedKey::from_bytes(&[1; BLOB_BYTES - 1]),
        Err(EnvelopeError::Invalid)
    ));
    assert!(matches!(
        WrappedKey::from_bytes(&[1; BLOB_BYTES + 1]),
        Err(EnvelopeError::Invalid)
    ));
    assert!(matches!(
        WrappedKey::from_bytes(&[2; BLOB_BYTES]),
        Err(EnvelopeError::UnknownVersion(2))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Each byte of the blob, changed in any way, and nothing of the key is given out.
    #[test]
    fn every_changed_byte_is_found(secret: [u8; KEY_BYTES], change in 1..=255u8) {
        let master = MasterKey::generate().unwrap();
        let key = DataKey::new_with(|bytes| *bytes = secret).unwrap();
        let blob = wrap_data_key(&master, &key, &PLACE).unwrap();
        for position in 0..BLOB_BYTES {
            let mut bytes = *blob.as_bytes().first_chunk::<BLOB_BYTES>().unwrap();
            bytes[position] ^= change;
            let opened = WrappedKey::from_bytes(&bytes)
                .and_then(|blob| unwrap_data_key(&master, &blob, &PLACE));
            prop_assert!(opened.is_err(), "byte {position}");
        }
    }

    /// Two places have the same encoding only if they are the same.
    #[test]
    fn the_encoding_of_places_is_unambiguous(
        one in (".{0,6}", ".{0,6}", ".{0,6}", 0..3u32, ".{0,6}"),
        other in (".{0,6}", ".{0,6}", ".{0,6}", 0..3u32, ".{0,6}"),
    ) {
        let encode = |fields: &(String, String, String, u32, String)| {
            let (region, account, key, key_version, lineage) = fields;
            Place { region, account, key, key_version: *key_version, lineage }.encode(ObjectType::DataKey)
        };
        prop_assert_eq!(encode(&one) == encode(&other), one == other);
    }
}

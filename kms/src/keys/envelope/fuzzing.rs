//! Wrapped keys that are not what the catalogue held, and blobs that are sent for an import.

use std::sync::OnceLock;

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use sealblk_proto::keys::{DataKey, KEY_BYTES, MasterKey, RootKey};

use super::transport::{known_pair, seal_for_known_pair};
use super::{
    LineageSalt, Place, WrappedKey, check_root_key, unwrap_data_key, unwrap_lineage_salt, unwrap_master_key,
    unwrap_root_key, wrap_data_key, wrap_lineage_salt, wrap_master_key, wrap_root_key, wrap_root_key_check,
};

const PLACE: Place<'static> = Place {
    region: "eu-1",
    account: "default",
    key: "key-a",
    key_version: 7,
    lineage: "lin-b",
};

/// Keys, and each kind of object wrapped by them.
struct Known {
    root: RootKey,
    master: MasterKey,
    wrapped: [WrappedKey; 5],
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let root = RootKey::generate().expect("randomness");
        let master = MasterKey::generate().expect("randomness");
        let data = DataKey::generate().expect("randomness");
        let salt = LineageSalt::generate().expect("randomness");
        let wrapped = [
            wrap_root_key_check(&root, &PLACE),
            wrap_root_key(&root, &root, &PLACE),
            wrap_master_key(&root, &master, &PLACE),
            wrap_data_key(&master, &data, &PLACE),
            wrap_lineage_salt(&master, &salt, &PLACE),
        ];
        Known {
            root,
            master,
            wrapped: wrapped.map(|wrapped| wrapped.expect("locked memory")),
        }
    })
}

/// A blob, or the changes of one that opens: only that one does.
pub fn envelope(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 8 {
        0 | 1 => unwrap(rest),
        2..=4 => unwrap(&changed(usize::from(*kind) % 5, rest)),
        5 => drop(known_pair().open(rest)),
        6 => import(rest),
        _ => import_of_any_length(rest),
    }
}

/// The wrapped object, with bytes changed: {place, exclusive or}, again and again.
fn changed(kind: usize, changes: &[u8]) -> Vec<u8> {
    let mut blob = known().wrapped[kind].as_bytes().to_vec();
    for change in changes.as_chunks::<2>().0 {
        let at = usize::from(change[0]) % blob.len();
        blob[at] ^= change[1];
    }
    blob
}

fn unwrap(blob: &[u8]) {
    let Ok(blob) = WrappedKey::from_bytes(blob) else {
        return;
    };
    let Known {
        root,
        master,
        wrapped,
    } = known();
    let opened = [
        check_root_key(root, &blob, &PLACE).is_ok(),
        unwrap_root_key(root, &blob, &PLACE).is_ok(),
        unwrap_master_key(root, &blob, &PLACE).is_ok(),
        unwrap_data_key(master, &blob, &PLACE).is_ok(),
        unwrap_lineage_salt(master, &blob, &PLACE).is_ok(),
    ];
    assert_eq!(opened, wrapped.each_ref().map(|wrapped| *wrapped == blob));
}

/// The RSA part is right: {AES key, what is under it}.
fn import(rest: &[u8]) {
    let mut key = [0; KEY_BYTES];
    let (head, wrapped) = rest.split_at(rest.len().min(KEY_BYTES));
    key[..head.len()].copy_from_slice(head);
    let sealed = seal_for_known_pair(&key);
    drop(known_pair().open(&[&sealed[..], wrapped].concat()));
}

/// An import whose two parts are right in themselves, whatever they hold: {length of the AES key, both parts}.
fn import_of_any_length(rest: &[u8]) {
    let Some((length, rest)) = rest.split_first() else {
        return;
    };
    // What OAEP with SHA-256 has room for in 3072 bits (RFC 8017, section 7.1.1).
    let (key, material) = rest.split_at(rest.len().min(usize::from(*length)));
    let sealed = seal_for_known_pair(key);
    let Ok(cipher) = AesKek::new(&AES_256, key) else {
        drop(known_pair().open(&sealed));
        return;
    };
    let mut wrapped = vec![0; material.len() + 15];
    let Ok(wrapped) = cipher.wrap_with_padding(material, &mut wrapped) else {
        return;
    };
    let opened = known_pair().open(&[&sealed[..], wrapped].concat());
    match opened {
        Ok(opened) => assert_eq!(opened.expose(), material),
        Err(_) => assert_ne!(material.len(), KEY_BYTES, "a key of the right length opens"),
    }
}

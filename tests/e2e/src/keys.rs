//! The keys of a disk, computed from root key and catalogue as an auditor would: from the documented format, with
//! none of the project's own code.

use std::fs;
use std::path::Path;

use aes_gcm::aead::Aead;
use aes_gcm::aead::Payload;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::catalogue::Catalogue;

/// Every key that stands above the data of one disk.
#[derive(Debug)]
pub struct DiskKeys {
    /// Root key, 32 bytes.
    pub root: Vec<u8>,
    /// The customer master key's version, 32 bytes.
    pub master: Vec<u8>,
    /// Data key (DK), 32 bytes.
    pub data: Vec<u8>,
    /// Salt of the lineage, 32 bytes.
    pub salt: Vec<u8>,
    /// Id of the lineage.
    pub lineage_id: String,
    /// Lineage key, 32 bytes.
    pub lineage: Vec<u8>,
    /// AES-256-XTS key of the first TiB, 64 bytes.
    pub xts: Vec<u8>,
}

/// A data key is its lineage's, or one that lineages of the region share: that has a row, and so a place, of its own.
const QUERY: &str = "SELECT m.region, l.account, l.key, l.key_version, l.id AS lineage, v.wrapped AS master,
    coalesce(s.id, l.id) AS data_place, coalesce(s.wrapped_key, l.wrapped_key) AS data, l.wrapped_salt AS salt
    FROM lineages l LEFT JOIN data_keys s ON s.id = l.data_key AND s.key_version = l.key_version
    JOIN key_material v ON v.key = l.key AND v.version = l.key_version, meta m";

impl DiskKeys {
    /// The keys of the disk `name`.
    ///
    /// # Panics
    /// If state directory or disk are not as documented, or a shared data key is being rewrapped.
    pub fn of(state: &Path, name: &str) -> Self {
        let disk = "SELECT o.lineage FROM disks d JOIN volumes o ON o.id = d.id";
        let query = format!("{QUERY} WHERE l.id = ({disk} WHERE d.name = '{name}')");
        Self::of_row(root_key(state), &Catalogue::open(state).row(&query))
    }

    /// The keys of all disks, snapshots, images and backups that can still be read.
    ///
    /// # Panics
    /// As [`DiskKeys::of`].
    pub fn all(state: &Path, root: &[u8]) -> Vec<Self> {
        let rows = Catalogue::open(state).rows(QUERY);
        rows.iter().map(|row| Self::of_row(root.to_vec(), row)).collect()
    }

    fn of_row(root: Vec<u8>, row: &SqliteRow) -> Self {
        let get = |column: &str| row.get::<String, _>(column);
        let blob = |column: &str| row.get::<Vec<u8>, _>(column);
        let version = row.get::<i64, _>("key_version") as u32;
        let place = |object: u8, lineage: &str| {
            place(
                object,
                version,
                [&get("region"), &get("account"), &get("key"), lineage],
            )
        };
        let lineage_id = get("lineage");
        let master = open(&root, &blob("master"), &place(2, ""));
        let data = open(&master, &blob("data"), &place(3, &get("data_place")));
        let salt = open(&master, &blob("salt"), &place(4, &lineage_id));
        let lineage = expand(Hkdf::<Sha256>::new(Some(&salt), &data), b"sealblk lineage v1", 32);
        let xts = Hkdf::<Sha256>::from_prk(&lineage).expect("32 bytes are a key");
        let xts = expand(xts, &[&b"sealblk xts v1"[..], &0u64.to_le_bytes()].concat(), 64);
        DiskKeys {
            root,
            master,
            data,
            salt,
            lineage_id,
            lineage,
            xts,
        }
    }
}

/// Everything that a wrapped key's place can be made of.
const MATERIAL: &str = "SELECT m.region, k.account, k.id AS key, v.version, v.wrapped FROM key_material v
    JOIN keys k ON k.id = v.key, meta m";

impl DiskKeys {
    /// Tries to open the data key of a lineage with every master key that is left, in every place that it could have:
    /// whoever has a copy of the state directory can do that.
    ///
    /// # Panics
    /// If the state directory is not as documented.
    pub fn open_with_any(state: &Path, lineage: &str) -> Option<Vec<u8>> {
        let root = root_key(state);
        let mut catalogue = Catalogue::open(state);
        let query = format!("SELECT key, key_version, wrapped_key FROM lineages WHERE id = '{lineage}'");
        let row = catalogue.row(&query);
        let (own_key, own_version) = (
            row.get::<String, _>("key"),
            row.get::<i64, _>("key_version") as u32,
        );
        let wrapped = row.get::<Vec<u8>, _>("wrapped_key");
        catalogue.rows(MATERIAL).iter().find_map(|row| {
            let get = |column: &str| row.get::<String, _>(column);
            let version = row.get::<i64, _>("version") as u32;
            let (region, account, key) = (get("region"), get("account"), get("key"));
            let master = master(&root, row);
            let places = [(&key, version), (&own_key, own_version)];
            places.into_iter().find_map(|(key, version)| {
                let place = self::place(3, version, [&region, &account, key, lineage]);
                try_open(&master, &wrapped, &place)
            })
        })
    }
}

/// All versions of all master keys.
///
/// # Panics
/// As [`DiskKeys::of`].
pub fn masters(state: &Path, root: &[u8]) -> Vec<Vec<u8>> {
    let rows = Catalogue::open(state).rows(MATERIAL);
    rows.iter().map(|row| master(root, row)).collect()
}

fn master(root: &[u8], row: &SqliteRow) -> Vec<u8> {
    let get = |column: &str| row.get::<String, _>(column);
    let version = row.get::<i64, _>("version") as u32;
    let place = place(2, version, [&get("region"), &get("account"), &get("key"), ""]);
    open(root, &row.get::<Vec<u8>, _>("wrapped"), &place)
}

/// The root key, where that is a file.
///
/// # Panics
/// As [`DiskKeys::of`].
pub fn root_key(state: &Path) -> Vec<u8> {
    let text = fs::read_to_string(state.join("root.key")).expect("the root key");
    hex::decode(text.trim_end()).expect("the root key is hexadecimal")
}

/// The key that comes of a passphrase, and the root key that it opens.
///
/// # Panics
/// As [`DiskKeys::of`].
pub fn sealed_root_key(state: &Path, passphrase: &str) -> [Vec<u8>; 2] {
    use argon2::{Algorithm, Argon2, Block, Params, Version};
    let text = fs::read_to_string(state.join("root.key.sealed")).expect("the sealed root key");
    let sealed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let number = |field: &str| sealed[field].as_u64().expect("a number") as u32;
    let bytes = |field: &str| hex::decode(sealed[field].as_str().expect("text")).expect("hexadecimal");
    let costs = Params::new(number("memory_kib"), number("passes"), number("lanes"), Some(32));
    let costs = costs.expect("costs");
    let mut blocks = vec![Block::new(); costs.block_count()];
    let mut key = vec![0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, costs)
        .hash_password_into_with_memory(passphrase.as_bytes(), &bytes("salt"), &mut key, &mut blocks)
        .expect("a key");
    let row = Catalogue::open(state).row("SELECT region, catalogue FROM meta");
    let place = place(5, 0, [&row.get::<String, _>(0), "", &row.get::<String, _>(1), ""]);
    let root = open(&key, &bytes("wrapped"), &place);
    [key, root]
}

fn place(object: u8, version: u32, texts: [&str; 4]) -> Vec<u8> {
    let mut place = vec![object, 1];
    place.extend(version.to_be_bytes());
    for text in texts {
        place.extend((text.len() as u32).to_be_bytes());
        place.extend(text.as_bytes());
    }
    place
}

/// Opens a wrapped key: format version (1) ‖ nonce (12) ‖ ciphertext ‖ tag (16).
fn open(key: &[u8], blob: &[u8], place: &[u8]) -> Vec<u8> {
    try_open(key, blob, place).expect("the wrapped key opens in its place")
}

fn try_open(key: &[u8], blob: &[u8], place: &[u8]) -> Option<Vec<u8>> {
    assert_eq!(
        (blob.len(), blob[0]),
        (61, 1),
        "a wrapped key has 61 bytes and version 1"
    );
    let nonce = Nonce::try_from(&blob[1..13]).expect("12 bytes");
    let payload = Payload {
        msg: &blob[13..],
        aad: place,
    };
    let cipher = Aes256Gcm::new_from_slice(key).expect("32 bytes");
    cipher.decrypt(&nonce, payload).ok()
}

fn expand(hkdf: Hkdf<Sha256>, info: &[u8], length: usize) -> Vec<u8> {
    let mut key = vec![0; length];
    hkdf.expand(info, &mut key).expect("a length that HKDF gives");
    key
}

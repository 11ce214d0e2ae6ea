//! The stores of a claim: their opening, and their keys.

use std::fs::File;

use sealblk::control::{ClaimedSource, expected, store_code};
use sealblk::copy::{Image, Input};
use sealblk::crypto::DiskCipher;
use sealblk::disk::Disk;
use sealblk::store::layered::{Expected, NewStore, ObjectId, Uuid};
use sealblk::store::{FilePair, LayeredFile, LockError, OpenError, RawStore, Store};
use sealblk::units::{ByteLen, Capacity, SECTOR_BYTES};
use sealblk_proto::causes::with_causes;
use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::{AttachmentConfig, Failure, FileFormat, StoreKind, code};

/// The keys of the disk: where it can grow, for all that it can become.
pub(crate) fn derive(
    store: StoreKind,
    size: u64,
    key: Option<LineageKey>,
) -> Result<Option<DiskCipher>, Failure> {
    let capacity = match store {
        StoreKind::Layered => Capacity::LARGEST,
        StoreKind::Raw => capacity_of(size)?,
    };
    key.map(|key| DiskCipher::derive(&key, capacity))
        .transpose()
        .map_err(|error| Failure::new(code::KEY_UNUSABLE, with_causes(&error)))
}

fn capacity_of(size: u64) -> Result<Capacity, Failure> {
    Capacity::new(ByteLen(size)).map_err(|error| Failure::new(code::STORE_UNUSABLE, error.to_string()))
}

/// Opens the store of a disk that is to be served, and says how large the disk is.
pub(crate) fn open_store(
    size: u64,
    data: File,
    metadata: Option<File>,
    bases: Vec<FilePair>,
    expected: &Expected,
    tell: &dyn Fn(),
) -> Result<(Store, Capacity), Failure> {
    let capacity = capacity_of(size)?;
    let Some(metadata) = metadata else {
        let store = RawStore::open(data, capacity).map_err(|error| store_failure(&error))?;
        return Ok((Store::Raw(store), capacity));
    };
    let store = LayeredFile::open(FilePair { data, metadata }, bases, expected, true, tell)
        .map_err(|error| store_failure(&error))?;
    // What the store says counts: the KMS may not have heard of the last change.
    let capacity = Capacity::new(ByteLen(store.layered().sectors() * SECTOR_BYTES as u64))
        .map_err(|error| Failure::new(code::STORE_DAMAGED, error.to_string()))?;
    Ok((Store::Layered(store), capacity))
}

/// As much of a disk as guests are to see.
pub(crate) fn shown_of(capacity: Capacity, guest_size: Option<u64>) -> Result<Capacity, Failure> {
    match guest_size {
        Some(size) => Ok(capacity.min(capacity_of(size)?)),
        None => Ok(capacity),
    }
}

/// Opens what is copied from, and says how large it is.
pub(crate) fn open_source(source: ClaimedSource, tell: &dyn Fn()) -> Result<(Input, Capacity), Failure> {
    let ClaimedSource {
        config,
        data,
        metadata,
        bases,
        key,
    } = source;
    let cipher = derive(config.store, config.size, key)?;
    let (store, capacity) = if config.foreign {
        let store = RawStore::foreign(data).map_err(|error| store_failure(&error))?;
        let capacity = capacity_of(config.size)?;
        if config.format == FileFormat::Qcow2 {
            let image = Image::open(store, config.size)
                .map_err(|error| Failure::new(code::STORE_UNUSABLE, with_causes(&error)))?;
            return Ok((Input::Image(Box::new(image)), capacity));
        }
        (Store::Raw(store), capacity)
    } else {
        let known = expected(config.disk.as_deref().unwrap_or_default(), &config.expected)?;
        open_store(config.size, data, metadata, bases, &known, tell)?
    };
    Ok(Input::of_disk(Disk::new(capacity, true, "", cipher, store)))
}

pub(crate) fn new_store(config: &AttachmentConfig, lineage: Option<&str>) -> Result<NewStore, Failure> {
    let capacity = Capacity::new(ByteLen(config.size))
        .map_err(|error| Failure::new(code::INVALID_SIZE, error.to_string()))?;
    let mut uuid = [0; 16];
    getrandom::fill(&mut uuid).map_err(|error| Failure::new("Randomness", error.to_string()))?;
    Ok(NewStore {
        uuid: Uuid(uuid),
        capacity,
        disk: object(&config.disk, "disk").or_else(|_| object(&config.disk, "bak"))?,
        lineage: lineage.map_or(Ok(ObjectId::NONE), |lineage| object(lineage, "lin"))?,
    })
}

pub(crate) fn object(id: &str, prefix: &str) -> Result<ObjectId, Failure> {
    ObjectId::parse(id, prefix)
        .ok_or_else(|| Failure::new("InvalidId", format!("{id:?} is not {prefix}- and 16 characters")))
}

pub(crate) fn store_failure(error: &OpenError) -> Failure {
    let code = match error {
        OpenError::Lock(LockError::InUse) => code::STORE_IN_USE,
        OpenError::Layered(error) => store_code(error),
        _ => code::STORE_UNUSABLE,
    };
    Failure::new(code, with_causes(error))
}

//! The custody of keys: what is made under the root key, and how it is opened. Only wrapped keys leave this module,
//! except for the lineage key of a disk that is being attached.

use std::sync::Arc;

use sealblk_proto::keys::{DataKey, LineageKey, MasterKey, RootKey};
use sqlx::SqliteConnection;

use crate::catalogue::keys::{self, KeyRow, LineageRow, NewLineage};
use crate::catalogue::meta::Meta;
use crate::envelope::{self, EnvelopeError, LineageSalt, Place, WrappedKey};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};

/// The root key, and the region that it serves.
#[derive(Clone)]
pub(crate) struct Custody {
    root: Arc<RootKey>,
    region: Arc<str>,
}

impl From<EnvelopeError> for Error {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::System(_) => {
                Error::because(Code::Internal, "a key cannot be made or opened", error)
            }
            _ => Error::because(
                Code::WrappedKeyInvalid,
                "a key in the catalogue does not open: restore the catalogue from a backup",
                error,
            ),
        }
    }
}

impl Custody {
    /// Takes a root key that was made for the catalogue.
    ///
    /// # Errors
    /// [`Code::RootKeyMismatch`] if it was not.
    pub(crate) fn new(root: RootKey, meta: &Meta) -> Result<Self> {
        Self::check(&root, meta)?;
        Ok(Custody {
            root: Arc::new(root),
            region: meta.region.as_str().into(),
        })
    }

    /// Whether a root key was made for the catalogue.
    ///
    /// # Errors
    /// [`Code::RootKeyMismatch`] if it was not.
    pub(crate) fn check(root: &RootKey, meta: &Meta) -> Result<()> {
        let check = WrappedKey::from_bytes(&meta.key_check)?;
        match envelope::check_root_key(root, &check, &catalogue_place(meta)) {
            Ok(()) => Ok(()),
            Err(EnvelopeError::Invalid) => Err(Error::new(
                Code::RootKeyMismatch,
                "root.key is not the root key of this catalogue: put the right one in its place",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Wraps the object by which [`Custody::new`] will know the root key again.
    ///
    /// # Errors
    /// [`Code::Internal`] without randomness or locked memory.
    pub(crate) fn key_check(root: &RootKey, meta: &Meta) -> Result<Vec<u8>> {
        Ok(envelope::wrap_root_key_check(root, &catalogue_place(meta))?
            .as_bytes()
            .to_vec())
    }

    /// The account's service key in this region; made at first use (rule K03).
    ///
    /// # Errors
    /// The catalogue's; [`Code::Internal`] without randomness or locked memory.
    pub(crate) async fn service_key(&self, db: &mut SqliteConnection, account: &str) -> Result<KeyRow> {
        if let Some(key) = keys::service_key(db, account, &self.region).await? {
            return Ok(key);
        }
        let id = id::new(Kind::Key)?;
        let place = self.place(account, &id, 1, "");
        let wrapped = envelope::wrap_master_key(&self.root, &generate_master()?, &place)?;
        keys::insert_service_key(db, account, &self.region, &id, wrapped.as_bytes()).await?;
        keys::service_key(db, account, &self.region)
            .await?
            .ok_or_else(|| Error::new(Code::Internal, "the service key is missing after it was made"))
    }

    /// Makes a lineage with a data key and salt of its own (rules K04 and K05), and gives its id.
    ///
    /// # Errors
    /// As [`Custody::service_key`]; [`Code::WrappedKeyInvalid`] if the master key does not open.
    pub(crate) async fn new_lineage(
        &self,
        db: &mut SqliteConnection,
        account: &str,
        key: &KeyRow,
    ) -> Result<String> {
        let id = id::new(Kind::Lineage)?;
        let wrapped_master = WrappedKey::from_bytes(&keys::wrapped_version(db, &key.id, key.version).await?)?;
        let (wrapped_key, wrapped_salt) = {
            let master = self.open_master(&wrapped_master, account, &key.id, key.version)?;
            let place = self.place(account, &key.id, key.version, &id);
            let system = EnvelopeError::from;
            (
                envelope::wrap_data_key(&master, &DataKey::generate().map_err(system)?, &place)?,
                envelope::wrap_lineage_salt(&master, &LineageSalt::generate().map_err(system)?, &place)?,
            )
        };
        let lineage = NewLineage {
            id: &id,
            account,
            key: &key.id,
            key_version: key.version,
            wrapped_key: wrapped_key.as_bytes(),
            wrapped_salt: wrapped_salt.as_bytes(),
        };
        keys::insert_lineage(db, &lineage).await?;
        Ok(id)
    }

    /// Derives the key of a lineage.
    ///
    /// # Errors
    /// [`Code::WrongRegion`] (rule K15); [`Code::WrappedKeyInvalid`] if a blob is damaged or from another place.
    pub(crate) fn lineage_key(&self, row: &LineageRow) -> Result<LineageKey> {
        if *row.region != *self.region {
            return Err(Error::new(
                Code::WrongRegion,
                format!(
                    "key {} is of region {}: a disk uses a key of its own region only",
                    row.key, row.region
                ),
            ));
        }
        let wrapped_master = WrappedKey::from_bytes(&row.wrapped_master)?;
        let master = self.open_master(&wrapped_master, &row.account, &row.key, row.key_version)?;
        let place = self.place(&row.account, &row.key, row.key_version, &row.id);
        let key = envelope::unwrap_data_key(&master, &WrappedKey::from_bytes(&row.wrapped_key)?, &place)?;
        let salt =
            envelope::unwrap_lineage_salt(&master, &WrappedKey::from_bytes(&row.wrapped_salt)?, &place)?;
        Ok(envelope::derive_lineage_key(&key, &salt).map_err(EnvelopeError::from)?)
    }

    fn open_master(&self, wrapped: &WrappedKey, account: &str, key: &str, version: u32) -> Result<MasterKey> {
        Ok(envelope::unwrap_master_key(
            &self.root,
            wrapped,
            &self.place(account, key, version, ""),
        )?)
    }

    fn place<'a>(&'a self, account: &'a str, key: &'a str, key_version: u32, lineage: &'a str) -> Place<'a> {
        Place {
            region: &self.region,
            account,
            key,
            key_version,
            lineage,
        }
    }
}

fn generate_master() -> Result<MasterKey> {
    Ok(MasterKey::generate().map_err(EnvelopeError::from)?)
}

fn catalogue_place(meta: &Meta) -> Place<'_> {
    Place {
        region: &meta.region,
        account: "",
        key: &meta.catalogue,
        key_version: 0,
        lineage: "",
    }
}

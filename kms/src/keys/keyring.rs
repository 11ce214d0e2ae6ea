//! The keyring of keys: what is made under the root key, and how it is opened. Only wrapped keys leave this module,
//! except for the lineage key of a disk that is being attached.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, RwLock};

use sealblk_proto::keys::{DataKey, LineageKey, MasterKey, RootKey};
use sqlx::SqliteConnection;

use crate::catalogue::audit_heads;
use crate::catalogue::key_state::KeyState;
use crate::catalogue::keys::{self, KeyRow, NewKey};
use crate::catalogue::kinds::KeyOrigin;
use crate::catalogue::lineages::{self, DataKeyRow, LineageRow, NewLineage, OutdatedRow};
use crate::catalogue::meta::{self, Meta};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::keys::envelope::{self, EnvelopeError, LineageSalt, Place, WrappedKey};
use crate::profile::KeyScope;

/// The root key, and the region that it serves. Clones share it.
#[derive(Clone)]
pub(crate) struct Keyring {
    /// The root key; around a rotation two of them. Which one wraps, a transaction's own view of the catalogue says; and
    /// who has read a row before the rotation may open it after.
    roots: Arc<RwLock<Vec<Root>>>,
    region: Arc<str>,
}

/// A root key.
pub(crate) type Root = Arc<RootKey>;

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

impl Keyring {
    /// Takes a root key that was made for the catalogue.
    ///
    /// # Errors
    /// [`Code::RootKeyMismatch`] if it was not.
    pub(crate) fn new(root: RootKey, meta: &Meta) -> Result<Self> {
        Self::check(&root, meta)?;
        Ok(Keyring {
            roots: Arc::new(RwLock::new(vec![Arc::new(root)])),
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

    /// Wraps the object by which [`Keyring::new`] will know the root key again.
    ///
    /// # Errors
    /// [`Code::Internal`] without randomness or locked memory.
    pub(crate) fn key_check(root: &RootKey, meta: &Meta) -> Result<Vec<u8>> {
        Ok(envelope::wrap_root_key_check(root, &catalogue_place(meta))?
            .as_bytes()
            .to_vec())
    }

    /// Seals what the catalogue says of itself.
    ///
    /// # Errors
    /// The catalogue's; [`Code::Internal`] without randomness or locked memory.
    pub(crate) async fn seal(&self, db: &mut SqliteConnection, statement: &str) -> Result<Vec<u8>> {
        let root = self.wrapping_root(db).await?;
        let meta = meta::load(db).await?;
        Ok(wrapped(envelope::seal_statement(
            &root,
            &statement_place(&meta, statement),
        )?))
    }

    /// Whether a statement was sealed under a root key of this catalogue.
    pub(crate) fn is_sealed(&self, meta: &Meta, statement: &str, seal: &[u8]) -> bool {
        let place = statement_place(meta, statement);
        WrappedKey::from_bytes(seal).is_ok_and(|seal| {
            let roots = self.roots();
            roots
                .iter()
                .any(|root| envelope::check_statement(root, &seal, &place).is_ok())
        })
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
        let key = NewKey {
            id: &id,
            account,
            region: &self.region,
            name: &format!("service-{}", self.region),
            origin: KeyOrigin::Service,
            state: KeyState::Enabled,
        };
        keys::insert(db, &key).await?;
        self.new_version(db, account, &id, 1).await?;
        keys::service_key(db, account, &self.region)
            .await?
            .ok_or_else(|| Error::new(Code::Internal, "the service key is missing after it was made"))
    }

    /// Makes this version of a master key.
    ///
    /// # Errors
    /// The catalogue's; [`Code::Internal`] without randomness or locked memory.
    pub(crate) async fn new_version(
        &self,
        db: &mut SqliteConnection,
        account: &str,
        key: &str,
        version: u32,
    ) -> Result<()> {
        let root = self.wrapping_root(db).await?;
        let wrapped = self.wrap_master(&root, &generate_master()?, account, key, version)?;
        Ok(keys::insert_version(db, key, version, wrapped.as_bytes()).await?)
    }

    /// Stores material that was made elsewhere as this version of a master key (rule K10).
    ///
    /// # Errors
    /// The catalogue's; [`Code::Internal`] without randomness or locked memory.
    pub(crate) async fn import_version(
        &self,
        db: &mut SqliteConnection,
        account: &str,
        key: &str,
        version: u32,
        material: &MasterKey,
    ) -> Result<()> {
        let root = self.wrapping_root(db).await?;
        let wrapped = self.wrap_master(&root, material, account, key, version)?;
        Ok(keys::insert_version(db, key, version, wrapped.as_bytes()).await?)
    }

    /// Whether the newest version of a key is this material.
    ///
    /// # Errors
    /// The catalogue's; [`Code::WrappedKeyInvalid`] if the master key does not open.
    pub(crate) async fn is_material(
        &self,
        db: &mut SqliteConnection,
        key: &KeyRow,
        material: &MasterKey,
    ) -> Result<bool> {
        let version = key.version.ok_or_else(|| no_material(&key.id))?;
        let wrapped = keys::material(db, &key.id, version).await?;
        let present = self.open_master(wrapped.as_deref(), &key.account, &key.id, version)?;
        // In constant time.
        let pairs = present.expose().iter().zip(material.expose());
        Ok(pairs.fold(0, |different, (one, other)| different | (one ^ other)) == 0)
    }

    /// Makes a lineage with a salt of its own, and with a data key of its own or the one that all lineages under the
    /// key share (rules K04 and K05), and gives its id.
    ///
    /// # Errors
    /// [`Code::KeyNotUsable`] (rule A05); the catalogue's; [`Code::Internal`] without randomness or locked memory;
    /// [`Code::WrappedKeyInvalid`] if the master key does not open.
    pub(crate) async fn new_lineage(
        &self,
        db: &mut SqliteConnection,
        account: &str,
        key: &KeyRow,
        scope: KeyScope,
    ) -> Result<String> {
        key.now().usable()?;
        let version = key.version.ok_or_else(|| no_material(&key.id))?;
        let id = id::new(Kind::Lineage)?;
        let wrapped_master = keys::material(db, &key.id, version).await?;
        let shared = match scope {
            KeyScope::Disk => None,
            KeyScope::Region => Some(self.shared_data_key(db, account, key, version).await?),
        };
        let (wrapped_key, wrapped_salt) = {
            let master = self.open_master(wrapped_master.as_deref(), account, &key.id, version)?;
            let place = self.place(account, &key.id, version, &id);
            let system = EnvelopeError::from;
            let wrapped_key = match shared {
                Some(_) => Vec::new(),
                None => wrapped(envelope::wrap_data_key(
                    &master,
                    &DataKey::generate().map_err(system)?,
                    &place,
                )?),
            };
            let salt = LineageSalt::generate().map_err(system)?;
            (
                wrapped_key,
                wrapped(envelope::wrap_lineage_salt(&master, &salt, &place)?),
            )
        };
        let lineage = NewLineage {
            id: &id,
            account,
            key: &key.id,
            key_version: version,
            wrapped_key: &wrapped_key,
            wrapped_salt: &wrapped_salt,
            data_key: shared.as_deref(),
        };
        lineages::insert(db, &lineage).await?;
        Ok(id)
    }

    /// The id of the data key that all lineages under the key share; made at first use.
    async fn shared_data_key(
        &self,
        db: &mut SqliteConnection,
        account: &str,
        key: &KeyRow,
        version: u32,
    ) -> Result<String> {
        if let Some(row) = lineages::data_key(db, &key.id).await? {
            return Ok(row.id);
        }
        let id = id::new(Kind::DataKey)?;
        let wrapped_master = keys::material(db, &key.id, version).await?;
        let wrapped_key = {
            let master = self.open_master(wrapped_master.as_deref(), account, &key.id, version)?;
            let place = self.place(account, &key.id, version, &id);
            wrapped(envelope::wrap_data_key(
                &master,
                &DataKey::generate().map_err(EnvelopeError::from)?,
                &place,
            )?)
        };
        let row = DataKeyRow {
            id,
            account: account.to_owned(),
            key: key.id.clone(),
            key_version: version,
            wrapped_key,
        };
        lineages::insert_data_key(db, &row).await?;
        Ok(row.id)
    }

    /// Derives the key of a lineage.
    ///
    /// # Errors
    /// [`Code::WrongRegion`] (rule K15); [`Code::KeyNotUsable`] if the master key has no material (any more);
    /// [`Code::WrappedKeyInvalid`] if a blob is damaged or from another place.
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
        row.key_now().serves()?;
        let place = self.place(&row.account, &row.key, row.key_version, &row.id);
        let master = self.open_master(
            row.wrapped_master.as_deref(),
            &row.account,
            &row.key,
            row.key_version,
        )?;
        let key = match &row.shared.data_key {
            None => envelope::unwrap_data_key(&master, &WrappedKey::from_bytes(&row.wrapped_key)?, &place)?,
            Some(id) => self.open_shared(row, id)?,
        };
        let salt =
            envelope::unwrap_lineage_salt(&master, &WrappedKey::from_bytes(&row.wrapped_salt)?, &place)?;
        Ok(envelope::derive_lineage_key(&key, &salt).map_err(EnvelopeError::from)?)
    }

    /// Opens the data key that the lineage shares.
    fn open_shared(&self, row: &LineageRow, id: &str) -> Result<DataKey> {
        let version = row.shared.shared_version.unwrap_or_default();
        let master = self.open_master(
            row.shared.shared_master.as_deref(),
            &row.account,
            &row.key,
            version,
        )?;
        let blob = WrappedKey::from_bytes(row.shared.shared_key.as_deref().unwrap_or_default())?;
        let place = self.place(&row.account, &row.key, version, id);
        Ok(envelope::unwrap_data_key(&master, &blob, &place)?)
    }

    /// Opens the newest version of a master key, to put under it what is under older ones (rule K12).
    ///
    /// # Errors
    /// The catalogue's; [`Code::WrappedKeyInvalid`] if the version does not open.
    pub(crate) async fn rewrapper<'a>(
        &'a self,
        db: &mut SqliteConnection,
        key: &'a KeyRow,
        newest: u32,
    ) -> Result<Rewrapper<'a>> {
        let newer = keys::material(db, &key.id, newest).await?;
        Ok(Rewrapper {
            keyring: self,
            key,
            newest,
            newer: self.open_master(newer.as_deref(), &key.account, &key.id, newest)?,
            older: HashMap::new(),
        })
    }

    /// Puts all master keys and the catalogue's known object under another root key, in this transaction.
    ///
    /// # Errors
    /// The catalogue's; [`Code::WrappedKeyInvalid`] if a master key does not open.
    pub(crate) async fn rewrap_masters(&self, db: &mut SqliteConnection, next: &Root) -> Result<()> {
        // From now on both open: what is read before the commit is under the one, what is read after, under the other.
        self.roots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(next));
        let meta = meta::load(db).await?;
        for row in keys::all_material(db).await? {
            let master = self.open_master(Some(&row.wrapped), &row.account, &row.key, row.version)?;
            let wrapped = self.wrap_master(next, &master, &row.account, &row.key, row.version)?;
            keys::set_material(db, &row.key, row.version, wrapped.as_bytes()).await?;
        }
        for mut head in audit_heads::all(db).await? {
            let statement = head.statement();
            // A head that was not sealed here gets no seal.
            if self.is_sealed(&meta, &statement, &head.seal) {
                head.seal = wrapped(envelope::seal_statement(
                    next,
                    &statement_place(&meta, &statement),
                )?);
                audit_heads::set(db, &head).await?;
            }
        }
        Ok(meta::set_key_check(db, &Self::key_check(next, &meta)?).await?)
    }

    /// Forgets the root keys that came before this one. Those after it stay: there may have been rotations since.
    pub(crate) fn forget_before(&self, root: &Root) {
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = roots.iter().position(|known| Arc::ptr_eq(known, root)) {
            roots.drain(..place);
        }
    }

    /// The root key that the catalogue is under, as this transaction sees it.
    async fn wrapping_root(&self, db: &mut SqliteConnection) -> Result<Root> {
        let meta = meta::load(db).await?;
        let fits = |root: &Root| Self::check(root, &meta).is_ok();
        let found = self.roots().iter().find(|root| fits(root)).cloned();
        found.ok_or_else(|| Error::new(Code::RootKeyMismatch, "the catalogue is under another root key"))
    }

    fn wrap_master(
        &self,
        root: &RootKey,
        master: &MasterKey,
        account: &str,
        key: &str,
        version: u32,
    ) -> Result<WrappedKey> {
        let place = self.place(account, key, version, "");
        Ok(envelope::wrap_master_key(root, master, &place)?)
    }

    fn open_master(
        &self,
        wrapped: Option<&[u8]>,
        account: &str,
        key: &str,
        version: u32,
    ) -> Result<MasterKey> {
        let blob = WrappedKey::from_bytes(wrapped.ok_or_else(|| no_material(key))?)?;
        let place = self.place(account, key, version, "");
        let mut opened = Err(EnvelopeError::Invalid);
        for root in self.roots() {
            opened = envelope::unwrap_master_key(&root, &blob, &place);
            if !matches!(opened, Err(EnvelopeError::Invalid)) {
                break;
            }
        }
        Ok(opened?)
    }

    fn roots(&self) -> Vec<Root> {
        self.roots.read().unwrap_or_else(PoisonError::into_inner).clone()
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

/// Puts data keys and salts under the newest version of their master key. Each version is opened once.
pub(crate) struct Rewrapper<'a> {
    keyring: &'a Keyring,
    key: &'a KeyRow,
    newest: u32,
    newer: MasterKey,
    older: HashMap<u32, MasterKey>,
}

impl Rewrapper<'_> {
    /// What is under an older version, under the newest.
    ///
    /// # Errors
    /// The catalogue's; [`Code::WrappedKeyInvalid`] if a blob is damaged or from another place.
    pub(crate) async fn rewrap(
        &mut self,
        db: &mut SqliteConnection,
        row: &OutdatedRow,
    ) -> Result<OutdatedRow> {
        let (keyring, key) = (self.keyring, self.key);
        let older = match self.older.entry(row.key_version) {
            Entry::Occupied(opened) => opened.into_mut(),
            Entry::Vacant(place) => {
                let older = keys::material(db, &key.id, row.key_version).await?;
                place.insert(keyring.open_master(older.as_deref(), &key.account, &key.id, row.key_version)?)
            }
        };
        let from = keyring.place(&row.account, &key.id, row.key_version, &row.id);
        let to = keyring.place(&row.account, &key.id, self.newest, &row.id);
        // Of a lineage that shares its data key, the salt is all that is under the master key itself.
        let wrapped_key = if row.wrapped_key.is_empty() {
            Vec::new()
        } else {
            let data = envelope::unwrap_data_key(older, &WrappedKey::from_bytes(&row.wrapped_key)?, &from)?;
            wrapped(envelope::wrap_data_key(&self.newer, &data, &to)?)
        };
        let wrapped_salt = match &row.wrapped_salt {
            None => None,
            Some(blob) => {
                let salt = envelope::unwrap_lineage_salt(older, &WrappedKey::from_bytes(blob)?, &from)?;
                Some(wrapped(envelope::wrap_lineage_salt(&self.newer, &salt, &to)?))
            }
        };
        Ok(OutdatedRow {
            wrapped_key,
            wrapped_salt,
            ..row.clone()
        })
    }
}

fn wrapped(blob: WrappedKey) -> Vec<u8> {
    blob.as_bytes().to_vec()
}

fn no_material(key: &str) -> Error {
    let text = format!("key {key} has no material (any more): what it protected cannot be read");
    Error::new(Code::KeyNotUsable, text)
}

fn generate_master() -> Result<MasterKey> {
    Ok(MasterKey::generate().map_err(EnvelopeError::from)?)
}

fn statement_place<'a>(meta: &'a Meta, statement: &'a str) -> Place<'a> {
    Place {
        lineage: statement,
        ..catalogue_place(meta)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_k12_a_rotation_forgets_no_root_key_of_a_later_one() {
        let roots: Vec<Root> = (0..3).map(|_| Arc::new(RootKey::generate().unwrap())).collect();
        let keyring = Keyring {
            roots: Arc::new(RwLock::new(roots.clone())),
            region: "eu-1".into(),
        };
        let known = || {
            let known = keyring.roots();
            let place = |root: &Root| roots.iter().position(|other| Arc::ptr_eq(root, other));
            known.iter().map(|root| place(root).unwrap()).collect::<Vec<_>>()
        };
        keyring.forget_before(&roots[1]);
        assert_eq!(known(), [1, 2]);
        keyring.forget_before(&roots[2]);
        assert_eq!(known(), [2]);
        keyring.forget_before(&roots[1]);
        assert_eq!(known(), [2]);
    }
}

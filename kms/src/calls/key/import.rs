//! `POST /v1/keys/{key}/import-params` and `/import` (rule K10).

use base64ct::{Base64, Encoding};
use sealblk_proto::keys::MasterKey;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::key_state::{Event, KeyState};
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::kinds::KeyOrigin;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside::off_runtime;
use crate::keys::change;
use crate::keys::envelope::{TransportError, TransportKey};
use crate::views;
use crate::{clock, limits};
use sealblk_api::{self, ImportParams, Key};

/// Gives what is needed to wrap a key's material for its import.
pub(crate) struct AskImport {
    /// Id, name or alias.
    pub(crate) key: String,
}

/// Imports a key's material.
pub(crate) struct Import {
    /// Id, name or alias.
    pub(crate) key: String,
    /// The call's body.
    pub(crate) options: sealblk_api::Import,
    /// The id of the token's key, and what has been unwrapped.
    pub(crate) opened: Option<(String, MasterKey)>,
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        let code = match error {
            TransportError::Length(_) | TransportError::Invalid => Code::ImportInvalid,
            TransportError::Generation(_)
            | TransportError::Encoding(_)
            | TransportError::Decoding(_)
            | TransportError::Unusable(_)
            | TransportError::Pem(_)
            | TransportError::System(_) => Code::Internal,
        };
        Error::because(code, "the material is not imported", error)
    }
}

impl Operation for AskImport {
    const CALL: &'static str = "key.import-params";
    type Decided = KeyRow;
    type Answer = ImportParams;

    fn object(&self) -> &str {
        &self.key
    }

    async fn decide(&self, _: &Kms, caller: &Caller, tx: &mut Write) -> Result<KeyRow> {
        importable(caller, tx, &self.key).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, key: KeyRow) -> Result<ImportParams> {
        let _lock = kms.generating.take(&caller.account).await;
        kms.imports.check_room(&caller.account, &key.id)?;
        let transport = off_runtime(TransportKey::generate).await?;
        let public_key = transport.public_pem().to_owned();
        let hours = limits::IMPORT_TIME.as_secs().cast_signed() / 3600;
        Ok(ImportParams {
            import_token: kms.imports.expect(&caller.account, &key.id, transport)?,
            id: key.id,
            name: key.name,
            public_key,
            expires: clock::in_hours(hours),
        })
    }
}

impl Operation for Import {
    const CALL: &'static str = "key.import";
    type Decided = String;
    type Answer = Key;

    fn object(&self) -> &str {
        &self.key
    }

    async fn prepare(&mut self, kms: &Kms, caller: &Caller) -> Result<()> {
        let blob = Base64::decode_vec(&self.options.wrapped_material).map_err(|error| {
            Error::because(
                Code::ImportInvalid,
                "the wrapped material is not in base64",
                error,
            )
        })?;
        let (key, transport) = kms.imports.take(&caller.account, &self.options.import_token)?;
        let material = off_runtime(move || transport.open(&blob)).await?;
        self.opened = Some((key, material));
        Ok(())
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<String> {
        let key = importable(caller, tx, &self.key).await?;
        let Some((id, material)) = &self.opened else {
            return Err(Error::new(Code::Internal, "nothing was unwrapped"));
        };
        if *id != key.id {
            let text = format!("the import token is another key's, {id}: name that key");
            return Err(Error::new(Code::ImportTokenInvalid, text));
        }
        let state = key.now().after(Event::Import)?;
        if key.state == KeyState::PendingImport {
            kms.keyring
                .import_version(tx, &key.account, &key.id, 1, material)
                .await?;
            keys::set_state(tx, &key.id, state, None).await?;
        } else if !kms.keyring.is_material(tx, &key, material).await? {
            let text = format!(
                "key {} has other material, which what it protects needs: create another key for this one",
                key.id
            );
            return Err(Error::new(Code::ImportDiffers, text));
        }
        Ok(key.id)
    }

    async fn act(&self, kms: &Kms, caller: &Caller, id: String) -> Result<Key> {
        views::key::show(kms, caller, &id).await
    }
}

/// The caller's key, if material can be imported for it.
async fn importable(caller: &Caller, tx: &mut Write, wanted: &str) -> Result<KeyRow> {
    let key = change::find(caller, tx, wanted).await?;
    if key.origin != KeyOrigin::Imported {
        let text = format!(
            "the material of key {} was made here: create a key with --import for material of yours",
            key.id
        );
        return Err(Error::new(Code::KeyNotImported, text));
    }
    key.now().after(Event::Import)?;
    Ok(key)
}

//! What the host has remembered in the catalogue, and the keys that it is given.

use std::sync::Arc;

use sealblk_proto::keys::LineageKey;
use sealblk_proto::message::StoreState;
use sealblk_proto::token::TokenHash;

use crate::audit::sinks::Sinks;
use crate::audit::{self, Decision};
use crate::catalogue::key_state::KeyState;
use crate::catalogue::{Catalogue, lineages, services, store_states};
use crate::context::key_use;
use crate::context::machines::Machines;
use crate::context::retry_queue::RetryQueue;
use crate::error::{Code, Error, Result};
use crate::host::backends::process::Identity;
use crate::host::records::{Answer, KeyUse, Opened, Records, Volumes};
use crate::keys::keyring::Keyring;

/// The catalogue, and the keys under it.
pub(crate) struct CatalogueRecords {
    pub(crate) catalogue: Catalogue,
    pub(crate) keyring: Keyring,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) retries: Arc<RetryQueue>,
    pub(crate) machines: Arc<Machines>,
}

impl Records for CatalogueRecords {
    fn process<'a>(&'a self, service: &'a str, process: &'a Identity) -> Answer<'a, ()> {
        Box::pin(async move {
            let stored = async {
                let mut tx = self.catalogue.write().await?;
                let values = (process.pid, process.start, process.boot.as_str());
                services::set_backend(&mut tx, service, values).await?;
                tx.commit().await
            };
            let stored = stored.await;
            stored.map_err(|error| not_stored("the backend's process", error))?;
            self.machines.started(service);
            Ok(())
        })
    }

    fn next_token<'a>(&'a self, service: &'a str, token: TokenHash) -> Answer<'a, ()> {
        Box::pin(async move {
            let stored = async {
                let mut tx = self.catalogue.write().await?;
                services::set_next_token(&mut tx, service, &token.0).await?;
                tx.commit().await
            };
            stored.await.map_err(|error| not_stored("it", error))
        })
    }

    fn token<'a>(&'a self, service: &'a str, token: TokenHash) -> Answer<'a, ()> {
        Box::pin(async move {
            let stored = async {
                let mut tx = self.catalogue.write().await?;
                services::set_token(&mut tx, service, &token.0).await?;
                tx.commit().await
            };
            stored
                .await
                .map_err(|error| not_stored("the backend's token", error))
        })
    }

    fn lineage_key<'a>(&'a self, wanted: KeyUse<'a>) -> Answer<'a, LineageKey> {
        Box::pin(self.opened_key(wanted))
    }

    fn open<'a>(&'a self, volumes: Volumes<'a>) -> Answer<'a, (Opened, Opened)> {
        Box::pin(async move {
            let opened = self.opened(volumes).await;
            opened.map_err(|error| not_stored("who has the store", error))
        })
    }

    fn close_again<'a>(&'a self, volumes: &'a [&'a str]) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.catalogue.write().await?;
            for volume in volumes {
                store_states::close_again(&mut tx, volume).await?;
            }
            Ok(tx.commit().await?)
        })
    }

    fn serves<'a>(&'a self, volume: &'a str, state: Option<&'a StoreState>) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.catalogue.write().await?;
            store_states::accepted(&mut tx, volume).await?;
            if let Some(state) = state {
                store_states::note(&mut tx, volume, state, false).await?;
            }
            Ok(tx.commit().await?)
        })
    }

    fn closed<'a>(&'a self, stores: &'a [(&'a str, &'a StoreState)]) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.catalogue.write().await?;
            for (volume, state) in stores {
                store_states::note(&mut tx, volume, state, true).await?;
            }
            Ok(tx.commit().await?)
        })
    }
}

impl CatalogueRecords {
    async fn opened_key(&self, wanted: KeyUse<'_>) -> Result<LineageKey> {
        let (caller, waits) = key_use::caller_of(&mut *self.catalogue.read().await?, &wanted).await?;
        // Rule A06: no guest's disk waits for a sink, and none that was left in the middle of a call.
        let mut turn = match waits && self.retries.is_waited_for(&caller.request) {
            true => Some(self.sinks.turn(&self.catalogue).await?),
            false => None,
        };
        let mut tx = self.catalogue.write().await?;
        let row = lineages::get(&mut tx, wanted.lineage).await?;
        let opened = self.keyring.lineage_key(&row);
        let decision = opened
            .as_ref()
            .map_or_else(Decision::Refused, |_| Decision::Allowed);
        audit::append(&mut tx, &caller, "key.use", wanted.object, decision).await?;
        if row.key_state == KeyState::PendingDeletion {
            audit::alarm(&mut tx, &caller, &row.key, "an attached disk uses it").await?;
        }
        if let Some(turn) = &mut turn {
            turn.take(&mut tx).await?;
        }
        tx.commit().await?;
        if let Some(turn) = turn {
            turn.done();
        }
        self.sinks.wake();
        opened
    }

    async fn opened(&self, volumes: Volumes<'_>) -> std::result::Result<(Opened, Opened), sqlx::Error> {
        let mut tx = self.catalogue.write().await?;
        if volumes.is_new {
            // Another store was there, perhaps, that could not be made.
            store_states::forget(&mut tx, volumes.own).await?;
        }
        let own = store_states::open(&mut tx, volumes.own).await?;
        let source = match volumes.source {
            Some(source) => store_states::open(&mut tx, source).await?,
            None => store_states::Opened::default(),
        };
        tx.commit().await?;
        Ok((own.into(), source.into()))
    }
}

impl From<store_states::Opened> for Opened {
    fn from(opened: store_states::Opened) -> Self {
        Opened {
            expected: opened.expected,
            was_closed: opened.was_closed,
        }
    }
}

fn not_stored(what: &str, error: sqlx::Error) -> Error {
    Error::because(Code::CatalogueFailed, format!("{what} cannot be stored"), error)
}

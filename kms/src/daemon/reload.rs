//! What a running daemon reads again: the accounts file, by SIGHUP or `systemctl reload`.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use sealblk_proto::process::notify;

use super::accounts_file;
use crate::context::Kms;
use crate::error::Result;
use crate::http::shares::Shares;

/// For whom, and from where.
pub(super) struct Reload {
    pub(super) kms: Arc<Kms>,
    pub(super) shares: Arc<Shares>,
    pub(super) accounts: Option<PathBuf>,
}

impl Reload {
    /// Reads it; what is wrong changes nothing, and the log says so.
    pub(super) async fn run(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        // Nobody else listens, so a failure is none.
        let _ = notify(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
        match self.read().await {
            Ok(true) => log::info!("the accounts file has been read again"),
            Ok(false) => log::info!("there is no accounts file to be read again: see serve --accounts"),
            Err(error) => log::error!("the accounts stay as they were: {}", error.full_message()),
        }
        let _ = notify("READY=1");
    }

    /// Whether there is a file.
    async fn read(&self) -> Result<bool> {
        let Some(path) = &self.accounts else {
            return Ok(false);
        };
        let allowed = accounts_file::apply(&self.kms.catalogue, Some(path)).await?;
        self.kms.quotas.replace(allowed.quotas);
        self.kms.paths.permit(allowed.paths);
        self.shares.renew(&self.kms.catalogue).await?;
        Ok(true)
    }
}

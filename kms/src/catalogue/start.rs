//! Opening the catalogue at the start of a daemon.

use std::path::Path;

use super::database::Catalogue;
use super::kept;
use super::spare::give_up_piece;
use crate::error::Result;

/// Opens the catalogue as [`kept::open`] does. Where there is no room for that, the [`super::spare`] file is given up, a piece at a time: somebody else
/// may take the first ones.
///
/// # Errors
/// Those of [`kept::open`], when nothing is left of it.
pub(crate) async fn open(catalogue: &Path) -> Result<Catalogue> {
    loop {
        match kept::open(catalogue).await {
            Err(error) if give_up_piece(catalogue) => {
                log::warn!(
                    "room that was kept for a start is given up: {}",
                    error.full_message()
                );
            }
            opened => return opened,
        }
    }
}

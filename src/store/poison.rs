//! The end of a store that has failed.
//!
//! When a sync, or a write of metadata, has failed, nobody knows which data is lost, and the kernel tells it once only. So
//! nothing is tried again. Everyone who has a part in the store asks here first: queues, flushes, the store's own threads,
//! commands, the hand-over to a successor, and its closing. It stays so until the store is opened anew.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use sealblk_proto::causes::with_causes;

/// Whether a store has failed, and why it first did.
#[derive(Debug, Default)]
pub struct Poison(OnceLock<Poisoned>);

/// The store has failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store has failed and must be opened anew; it failed because {0}")]
pub struct Poisoned(Arc<str>);

impl Poison {
    /// Whether the store has failed.
    pub fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    /// To be asked before anything is done with the store, and again before success is told.
    ///
    /// # Errors
    /// [`Poisoned`], if the store has failed.
    pub fn check(&self) -> Result<(), Poisoned> {
        self.0.get().map_or(Ok(()), |poisoned| Err(poisoned.clone()))
    }

    /// Why the store has failed, a clause.
    pub fn cause(&self) -> Option<String> {
        self.0.get().map(|poisoned| poisoned.0.to_string())
    }

    /// The store fails: `what`, a clause, with its causes. Only the first failure counts, and is logged.
    pub fn set(&self, what: &str, error: &dyn Error) {
        let cause = format!("{what}: {}", with_causes(error));
        if self.0.set(Poisoned(cause.as_str().into())).is_ok() {
            log::error!("the store fails, all further I/O fails until it is opened anew: {cause}");
        }
    }
}

impl From<Poisoned> for std::io::Error {
    fn from(poisoned: Poisoned) -> Self {
        std::io::Error::other(poisoned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_stays() {
        let poison = Poison::default();
        assert!(poison.check().is_ok() && !poison.is_set());
        poison.set("a sync failed", &std::io::Error::from_raw_os_error(libc::EIO));
        poison.set("another failed", &std::io::Error::other("no"));
        assert!(poison.is_set());
        let cause = "a sync failed: Input/output error (os error 5)";
        assert_eq!(poison.cause().as_deref(), Some(cause));
        assert!(poison.check().unwrap_err().to_string().ends_with(cause));
    }
}

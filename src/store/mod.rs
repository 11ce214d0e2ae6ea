//! Where ciphertext lies. A store sees neither keys nor plaintext.

mod lock;
mod raw;

pub use lock::LockError;
pub use raw::{OpenError, RawStore};

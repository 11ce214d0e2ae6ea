//! Until which change of keys deleted ones have been overwritten.

use std::sync::atomic::{AtomicBool, AtomicI64};

/// How often keys had changed when deleted ones were overwritten last.
#[derive(Debug)]
pub(super) struct ErasureProgress {
    pub(super) in_log: AtomicI64,
    pub(super) in_copies: AtomicI64,
    /// The last attempt has left some, in the log, and in copies.
    pub(super) is_left_in_log: AtomicBool,
    /// See [`ErasureProgress::is_left_in_log`].
    pub(super) is_left_in_copies: AtomicBool,
}

impl Default for ErasureProgress {
    fn default() -> Self {
        const NEVER: i64 = -1;
        ErasureProgress {
            in_log: NEVER.into(),
            in_copies: NEVER.into(),
            is_left_in_log: false.into(),
            is_left_in_copies: false.into(),
        }
    }
}

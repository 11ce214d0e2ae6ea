//! A guest must not be able to fill the host's logs, not even by resetting its device or reconnecting in a loop.

use crate::rate_limit::RateLimit;

/// What a guest or frontend can provoke, each with a limit of its own for the whole process.
#[derive(Debug, Default)]
pub(super) struct EventLimits {
    pub chains: RateLimit,
    pub rings: RateLimit,
    pub records: RateLimit,
    pub store: RateLimit,
    pub messages: RateLimit,
    pub connects: RateLimit,
    pub disconnects: RateLimit,
}

//! What every hand-over needs.

use std::sync::Arc;

use super::child::Program;
use crate::host::records::Records;

/// Of all disks.
pub(crate) struct Shared {
    pub(crate) records: Arc<dyn Records>,
    pub(crate) program: Program,
    pub(crate) runtime: tokio::runtime::Handle,
}

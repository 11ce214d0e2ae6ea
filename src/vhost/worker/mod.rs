//! What a virtqueue's thread does: takes chains, moves data between guest and store, completes chains.
//!
//! A worker waits in one place, its io_uring, for the store, for the guest's kick and for orders. At most as many
//! requests are in flight as the queue has entries; their data passes through a fixed pool of private buffers, and
//! requests that find it empty wait their turn.

mod changes;
mod flush;
mod flushes;
mod handle;
mod held;
mod in_flight;
mod polling;
mod requests;
mod serve;
mod slab;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod transfers;
mod waiting;

pub(super) use handle::{StartError, WorkerHandle};
pub(super) use state::{WorkerSetup, tell_broken};

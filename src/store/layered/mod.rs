//! The layered store: one file or device with a thin disk and its snapshots. `docs/format.md` draws the bytes and says
//! why they survive any crash.
//!
//! - [`map`], [`table`], [`epoch`]: what queue workers read without locks.
//! - `read`, `write`, `discard`, `flush`: plans for the workers.
//! - `state`: everything else that the store knows, behind one lock that is never held during I/O, except for records of
//!   the journal, which go to the page cache.
//! - `checkpoint`: brings the state into pages, so that the journal can go on; `open`: brings it back.
//! - `operate`: changes by the operator; `delete`: frees what only deleted snapshots hold; `check`, `report`.
//! - `background`: the threads that do what workers must not wait for.

mod background;
mod check;
mod checkpoint;
mod create;
mod delete;
mod discard;
pub(crate) mod entry;
pub(crate) mod epoch;
mod error;
mod expected;
mod flush;
mod format;
mod journal;
mod layout;
mod lists;
mod live;
pub(crate) mod map;
mod medium;
mod open;
mod operate;
mod read;
mod report;
mod ring;
mod space;
mod state;
mod store;
mod superblocks;
mod sync;
pub(crate) mod table;
mod tree;
mod write;

#[cfg(test)]
mod epoch_tests;
#[cfg(test)]
mod full_tests;
#[cfg(test)]
mod gated;
#[cfg(test)]
mod gated_tests;
#[cfg(test)]
mod map_tests;
#[cfg(test)]
mod table_tests;

pub use self::background::Threads;
pub use self::check::Findings;
pub use self::create::{Base, NewStore};
pub use self::error::LayeredError;
pub use self::expected::{Expected, StoreState};
pub use self::format::page::PageDamage;
pub use self::format::superblock::SuperblockError;
pub use self::format::{ObjectId, Uuid};
pub use self::journal::JournalDamage;
pub use self::medium::{FileMedium, Medium};
pub use self::open::OpenLayered;
pub use self::operate::{Operation, OperationError};
pub use self::report::{Report, SnapshotReport};
pub use self::store::LayeredStore;

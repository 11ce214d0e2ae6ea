//! Kinds of stores, as options name them.

use clap::ValueEnum;

/// How a disk's bytes are stored.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Store {
    /// Flat: a sector of the disk is the same sector of the file or block device. No snapshots.
    Raw,
    /// Thin, with snapshots inside.
    Layered,
}

/// As the API has it.
pub(super) fn store_name(store: Store) -> String {
    match store {
        Store::Raw => "raw".to_owned(),
        Store::Layered => "layered".to_owned(),
    }
}

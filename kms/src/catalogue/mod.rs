//! The catalogue: one SQLite file in the state directory.
//!
//! Write-ahead log, `synchronous=FULL` (what is committed survives a power cut), foreign keys. Writes take the lock
//! when they begin, so a decision sees no change between its checks and its commit.
//!
//! `secure_delete` overwrites deleted rows in the file's pages; older images of these pages may still be in the
//! write-ahead log. So who deletes a wrapped key calls [`Catalogue::forget_deleted`] after the commit, or
//! [`Catalogue::forget_destroyed`]. Blocks that the file system or the medium keeps of either file are out of reach.

pub(crate) mod accounts;
pub(crate) mod attachments;
pub(crate) mod audit_heads;
pub(crate) mod audit_records;
pub(crate) mod audit_sinks;
pub(crate) mod backup_file;
pub(crate) mod backups;
#[cfg(test)]
pub(crate) mod behind;
pub(crate) mod bin;
pub(crate) mod clock;
mod connection;
pub(crate) mod copies;
mod copy_ends;
pub(crate) mod counts;
pub(crate) mod database;
pub(crate) mod database_file;
pub(crate) mod disks;
pub(crate) mod erasure;
mod erasure_progress;
mod failure;
pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod instances;
pub(crate) mod intents;
pub(crate) mod kept;
pub(crate) mod key_changes;
pub(crate) mod key_names;
pub(crate) mod key_state;
pub(crate) mod keys;
pub(crate) mod kinds;
pub(crate) mod lineages;
pub(crate) mod meta;
pub(crate) mod named;
pub(crate) mod page;
#[cfg(test)]
mod plan_tests;
pub(crate) mod reserve;
pub(crate) mod root_key_kind;
pub(crate) mod schedules;
pub(crate) mod schema;
pub(crate) mod services;
pub(crate) mod snapshots;
pub(crate) mod spare;
pub(crate) mod start;
mod statement;
pub(crate) mod states;
pub(crate) mod store_states;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
pub(crate) mod usage;
pub(crate) mod volumes;
mod work;

pub(crate) use database::{Catalogue, Write};
pub(crate) use page::Page;
use page::{Listed, several};
/// A connection to a catalogue.
pub(crate) use sqlx::SqliteConnection as Db;
use statement::{changed, execute, find_row, find_value, row, rows, value, values};

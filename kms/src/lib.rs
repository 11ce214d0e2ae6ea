//! sealblk-kms: keys, catalogue, rules and control of encrypted disks.
//!
//! ```text
//!  api ──► operation ──► catalogue (SQLite): rows, intents, charges, audit
//!                  │ ├──► custody ──► envelope ──► root key
//!                  │ ├──► store: the disks' files and devices, made and removed
//!                  │ └──► machine: what a running virtual machine can write to
//!                  └────► supervisor: one backend an attachment, and the hand-over of its key
//! ```
//!
//! A request comes in through [`api`], becomes an operation, and is decided in one transaction of the catalogue. The
//! supervisor starts the disk's serving process (sealblk) and hands it the open store and the key of its lineage, and
//! nothing else; guest data never comes here.

mod accounts_file;
mod audit;
mod calls;
mod catalogue;
pub mod cli;
mod clock;
#[allow(
    dead_code,
    reason = "raised by what looks after the clock, the room and the files, one after another"
)]
mod conditions;
mod console;
mod context;
mod copies;
mod daemon;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod host;
pub mod http;
mod id;
mod intents;
mod jobs;
mod keys;
mod limits;
mod offline;
mod rules;
mod state;
mod timekeeper;
mod views;
mod volumes;

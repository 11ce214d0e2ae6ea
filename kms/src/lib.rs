//! sealblk-kms: keys, catalogue, rules and control of encrypted disks.
//!
//! A request comes in through [`http`], becomes a call, and is decided in one transaction of the catalogue. The host's
//! part starts the disk's serving process (sealblk) and hands it the open store and the key of its lineage, and
//! nothing else; guest data never comes here. The picture of the rooms is in docs/architecture.md.

mod audit;
mod caller;
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
mod profile;
mod request;
mod rules;
mod state;
mod timekeeper;
mod views;
mod volumes;

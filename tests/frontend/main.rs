//! The vhost-user side of a disk, driven by a frontend that can do what no well-behaved guest does, and the real
//! process with a KMS of the tests' own.

mod blocking;
mod control;
mod driver;
mod full;
#[path = "../e2e/src/fuse.rs"]
#[allow(dead_code, unreachable_pub)]
mod fuse;
mod inflight;
mod kills;
mod load;
mod process;
mod reconnect;
mod requests;
mod sessions;
mod shared;
mod stage;
mod status;
mod stores;
mod takeover;

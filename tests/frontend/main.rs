//! The vhost-user side of a disk, driven by a frontend that can do what no well-behaved guest does, and the real
//! process with a KMS of the tests' own.

mod driver;
mod kills;
mod process;
mod requests;
mod sessions;
mod stores;

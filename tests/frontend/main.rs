//! The vhost-user side of a disk, driven by a frontend that can do what no well-behaved guest does.

mod driver;
mod requests;
mod sessions;

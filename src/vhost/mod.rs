//! The vhost-user protocol, back-end side, for a block device.
//!
//! [`message`] frames messages, [`session`] is the state of one connection and what each message does to it,
//! [`worker`] serves one virtqueue, [`server`] accepts one connection after another.
//!
//! The framing and the session are our own on the message types of the `vhost` crate: its request handler keeps
//! the negotiated features to itself, which a successor process must be given, and ties errors of one message to
//! the whole process in places.
//!
//! Specification: <https://qemu.readthedocs.io/en/latest/interop/vhost-user.html>.

mod adoption;
mod backend_channel;
mod config_space;
mod features;
mod handover;
mod inflight;
mod memory;
mod memory_file;
mod message;
mod rate_limit;
mod server;
mod session;
mod sigbus;
mod status;
mod tuning;
mod vring;
mod worker;

pub use crate::io::{Crew, Rings};
pub use adoption::AdoptError;
pub use handover::{Adopted, ServerState, Suspended};
pub use memory_file::MemoryOn;
pub use server::{Server, StopError, SuspendError};
pub use tuning::{NoSuchProcessor, Tuning};
pub use vring::QueueContext;

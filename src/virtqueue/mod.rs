//! The guest's side: what it asks for, where its bytes are, and the answer that every request gets.

mod chain;
mod guest_buffers;
mod inflight;
mod memory;
mod request;
mod ring;

pub use chain::{BrokenChain, Chain};
pub use guest_buffers::{Cursor, GuestBuffers, GuestFault};
pub use inflight::{Inconsistent, InflightRecord};
pub use memory::GuestMemory;
pub use request::{ChainError, Device, Request, RequestType, Scratch, Status};
pub use ring::{Ring, RingBroken, RingSetup, Token};

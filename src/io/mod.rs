//! Asynchronous I/O for the queues' workers, and the threads that they run on.

mod buffers;
mod crew;
mod engine;
mod interrupter;
mod ring;
mod target;

pub(crate) use buffers::Buffer;
pub use crew::{Crew, Rings};
pub(crate) use crew::{Hired, lock};
pub(crate) use engine::{Completion, Engine, Event, FileIndex};
pub(crate) use interrupter::Interrupter;

//! Asynchronous I/O for one queue's worker.

mod buffers;
mod engine;
mod interrupter;
mod ring;
mod target;

pub(crate) use buffers::Buffer;
pub(crate) use engine::{Completion, Engine, Event, FileIndex};
pub(crate) use interrupter::Interrupter;

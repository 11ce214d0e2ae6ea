//! Asynchronous I/O for one queue's worker.

mod buffers;
mod engine;

pub(crate) use buffers::Buffer;
pub(crate) use engine::{Completion, Engine, Event};

//! Asynchronous I/O for one queue's worker.

mod buffers;
mod engine;

pub use buffers::Buffer;
pub use engine::{Completion, Engine, Event};

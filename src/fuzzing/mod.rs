//! What others can send or leave, as functions of arbitrary bytes: they do with it what the programs do, and panic where
//! these must never come. libFuzzer calls them (`fuzz/`, `scripts/fuzz`), and tests with the inputs in `fuzz/seeds`.

mod channel;
mod descriptors;
mod handover;
mod image;
mod input;
mod rings;
#[cfg(test)]
mod seeds;
mod session;
mod store;

pub use self::channel::channel;
pub use self::handover::handover;
pub use self::image::image;
pub use self::rings::rings;
pub use self::session::session;
pub use self::store::store;

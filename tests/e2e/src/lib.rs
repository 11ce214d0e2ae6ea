//! What the end-to-end tests share: the real daemons and commands, in a state directory of their own.
//!
//! The tests run the programs that `cargo build --workspace` has left beside the test executable. Every program is
//! ended by its id when its test ends.

mod aes_schedule;
pub mod api;
#[cfg(target_arch = "x86_64")]
pub mod attack;
pub mod binaries;
pub mod catalogue;
pub mod endurance;
pub mod frontend;
pub mod fuse;
pub mod import;
#[cfg(target_arch = "x86_64")]
pub mod inject;
pub mod keys;
pub mod kms;
pub mod locks;
pub mod memory;
pub mod outcome;
pub mod process;
pub mod search;
pub mod stage;

pub use kms::Kms;
pub use outcome::Outcome;

use std::time::{Duration, Instant};

/// Longest wait for anything that should happen soon. Long, so that a busy machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until there is something, and gives it back.
///
/// # Panics
/// If there is nothing for [`PATIENCE`]; then says that `what` was waited for.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! End-to-end tests: the real programs.
//!
//! One program, since each one links the whole daemon anew, which takes longer than to run its tests.

mod backup;
mod bad_input;
mod clock;
mod copies;
mod full;
mod groups;
mod hanging;
mod hanging_calls;
mod key_kinds;
mod layered;
mod leaks;
mod life;
mod passphrase;
mod qemu;
mod questions;
mod sandbox;
mod secrets;
mod store_damage;
mod store_states;
mod supervision;

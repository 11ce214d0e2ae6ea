//! Files and block devices that hold disks: made, opened for a backend, measured, given back. Read only to see that a
//! device is blank, and written only to zero a plain disk on a device.

pub(crate) mod error;
pub(crate) mod expected;
pub(crate) mod file;
pub(crate) mod foreign;
pub(crate) mod identity;
pub(crate) mod make;
pub(crate) mod release;
pub(crate) mod room;
#[cfg(test)]
mod tests;

pub(crate) use error::StoreError;
pub(crate) use expected::{Expected, open_again, open_base, open_for_service};
pub(crate) use file::lengthen;
pub(crate) use foreign::{Foreign, check_open, identity_of, look_at, look_at_open};
pub(crate) use identity::{Identity, medium, medium_of};
pub(crate) use make::{Fresh, blank_again, check_new, fill};
pub(crate) use release::release;
pub(crate) use room::{Room, allocated, room};

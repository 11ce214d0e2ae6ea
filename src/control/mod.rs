//! The connection to the KMS: claiming the attachment, and then commands.
//!
//! [`link`] dials and claims; [`commands`] answers what the KMS asks, dials again when the KMS has gone, and never
//! lets the guest notice.

mod commands;
mod link;

pub use commands::{Commander, Ended};
pub use link::{Claim, Claimed, LinkError};

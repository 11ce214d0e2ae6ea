//! The connection to the KMS: claiming the attachment, and then commands.
//!
//! [`link`] dials and claims; [`commands`] answers what the KMS asks, waits for it to dial when it has gone, and never
//! lets the guest notice; [`looks`] does what takes long meanwhile. [`maintain()`] answers for stores that are not attached, [`copying()`] for those that are copied.

mod aside;
mod commands;
mod copying;
mod layers;
mod link;
mod looks;
mod maintain;
mod measure;
mod sessions;
mod takeover;

pub use aside::Aside;
pub use commands::{Commander, Ended};
pub use copying::copying;
pub use layers::{expected, store_code};
pub use link::{Claim, Claimed, ClaimedSource, LinkError, Own};
pub use looks::Looks;
pub use maintain::maintain;
pub use sessions::Sessions;
pub use takeover::{Taken, TakenSession, take_over};

//! sealblk-kms.
pub mod api;

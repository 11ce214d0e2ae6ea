//! sealblk: a vhost-user-blk backend that encrypts every request.
pub mod crypto;
pub mod units;

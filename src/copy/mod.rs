//! Copying the data of one disk to another that nobody serves: through the cipher of the one, and of the other.
//!
//! A pass goes over the data in batches, each of which several threads do together. A batch of copying ends with a sync:
//! then its end is a position from which a later process can go on, whatever has happened. The second pass reads both
//! sides again and compares them. What is known to be zeros without being read is passed over (see [`holes`]). Between the
//! ciphers plaintext lies in locked memory and nowhere else.

mod batches;
mod file;
mod hand;
mod holes;
mod image;
mod input;

pub use self::batches::Copy;
pub use self::image::{Image, ImageError};
pub use self::input::Input;

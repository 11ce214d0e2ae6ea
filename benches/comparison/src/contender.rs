//! Those that are compared, each behind the same few lines.

mod aws_lc;
mod openssl;
mod sealblk;
mod xts_mode;

use ::sealblk::crypto::{Direction, KEY_BYTES, Kernel};
use ::sealblk::units::Sector;

/// Somebody's XTS-AES-256 under one key.
pub(crate) trait Contender {
    /// For tables.
    fn name(&self) -> String;

    /// Encrypts or decrypts whole sectors, each a data unit whose tweak is its number. The buffers are equally long.
    fn process(&mut self, direction: Direction, first: Sector, input: &[u8], output: &mut [u8]);
}

/// Everybody who runs on this processor.
pub(crate) fn all(key: &[u8; KEY_BYTES]) -> Vec<Box<dyn Contender>> {
    let available = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available());
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    for kernel in available {
        contenders.push(Box::new(sealblk::Ours::new(kernel, key)));
    }
    contenders.push(Box::new(aws_lc::AwsLc::new(key)));
    contenders.push(Box::new(openssl::OpenSsl::new(key)));
    contenders.push(Box::new(xts_mode::XtsMode::new(key)));
    contenders
}

/// The tweak of a sector: its number, little-endian.
fn tweak(sector: u64) -> [u8; 16] {
    u128::from(sector).to_le_bytes()
}

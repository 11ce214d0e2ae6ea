//! A kernel of sealblk. It takes all sectors in one call.

use aes::cipher::inout::InOutBuf;
use sealblk::crypto::{Direction, KEY_BYTES, Kernel, XtsAes256};
use sealblk::units::Sector;
use sealblk_proto::locked::Locked;

use super::Contender;

pub(super) struct Ours {
    kernel: Kernel,
    keys: Locked<XtsAes256>,
}

impl Ours {
    pub(super) fn new(kernel: Kernel, key: &[u8; KEY_BYTES]) -> Self {
        let keys = XtsAes256::with_kernel(kernel, key).expect("locked memory");
        Ours { kernel, keys }
    }
}

impl Contender for Ours {
    fn name(&self) -> String {
        format!("sealblk {}", self.kernel)
    }

    fn process(&mut self, direction: Direction, first: Sector, input: &[u8], output: &mut [u8]) {
        let data = InOutBuf::new(input, output).expect("equal lengths");
        let processed = self.keys.process_sectors(direction, first, data);
        processed.expect("whole sectors");
    }
}

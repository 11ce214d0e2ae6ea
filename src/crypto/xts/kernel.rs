//! Which instructions do the work, chosen once for each key.

use std::fmt;

use super::keys::{HalfKey, KernelKeys};
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86::{aes_ni::AesNi, vaes512::Vaes512};

/// An implementation of XTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// x86-64 with VAES, VPCLMULQDQ and AVX-512: a whole sector in eight registers.
    Vaes512,
    /// x86-64 with AES-NI: eight blocks at a time.
    AesNi,
    /// Any processor, by the `aes` crate.
    Portable,
}

impl Kernel {
    /// All there are, the fastest first.
    pub const ALL: [Kernel; 3] = [Kernel::Vaes512, Kernel::AesNi, Kernel::Portable];

    /// Whether this processor, under this operating system, can do it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vaes512 => Vaes512::is_available(),
            #[cfg(target_arch = "x86_64")]
            Kernel::AesNi => AesNi::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Kernel::Vaes512 | Kernel::AesNi => false,
            Kernel::Portable => true,
        }
    }

    /// The fastest that is available.
    pub fn fastest() -> Self {
        let available = Kernel::ALL.into_iter().find(|kernel| kernel.is_available());
        available.unwrap_or(Kernel::Portable)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernel::Vaes512 => "VAES-512",
            Kernel::AesNi => "AES-NI",
            Kernel::Portable => "portable",
        })
    }
}

/// A key, expanded for a kernel.
pub(super) enum Expanded {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    AesNi(AesNi),
    #[cfg(target_arch = "x86_64")]
    Vaes512(Vaes512),
}

impl Expanded {
    /// # Panics
    /// If the kernel is not available.
    pub(super) fn new(kernel: Kernel, data: &HalfKey, tweak: &HalfKey) -> Self {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vaes512 => Expanded::Vaes512(Vaes512::expand(data, tweak)),
            #[cfg(target_arch = "x86_64")]
            Kernel::AesNi => Expanded::AesNi(AesNi::expand(data, tweak)),
            #[cfg(not(target_arch = "x86_64"))]
            Kernel::Vaes512 | Kernel::AesNi => panic!("{kernel} is not available"),
            Kernel::Portable => Expanded::Portable(Portable::expand(data, tweak)),
        }
    }

    pub(super) fn kernel(&self) -> &dyn KernelKeys {
        match self {
            Expanded::Portable(keys) => keys,
            #[cfg(target_arch = "x86_64")]
            Expanded::AesNi(keys) => keys,
            #[cfg(target_arch = "x86_64")]
            Expanded::Vaes512(keys) => keys,
        }
    }
}

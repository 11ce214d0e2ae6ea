//! The kernels that tests force, one after the other.

use sealblk::crypto::Kernel;

/// All that this processor has. It says which it has not.
pub(crate) fn available() -> Vec<Kernel> {
    let (available, missing): (Vec<_>, Vec<_>) =
        Kernel::ALL.into_iter().partition(|kernel| kernel.is_available());
    for kernel in missing {
        eprintln!("SKIPPED: this processor has no {kernel} kernel");
    }
    assert!(available.contains(&Kernel::Portable));
    available
}

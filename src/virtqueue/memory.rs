//! Guest memory as this process sees it.

/// Guest memory as it is mapped here.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

//! Capabilities, and whatever could bring them back.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

/// Highest number that the kernel could know: capabilities are a set of 64 bits (capget(2)).
const CAPABILITIES: u32 = 64;

/// No capability is left, and none can be had by running another program.
pub(super) fn drop_all() -> Result<(), String> {
    set_no_new_privs(true).map_err(|errno| format!("no_new_privs cannot be set: {errno}"))?;
    leave_keyring();
    // Only with CAP_SETPCAP, which a user without a user namespace does not have.
    let bounded = empty_bounding_set();
    let _ = clear_ambient_capability_set();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|errno| format!("they cannot be given up: {errno}"))?;
    bounded.map_err(|errno| format!("the bounding set cannot be emptied: {errno}"))
}

/// Whether the process has this one now.
pub(super) fn has(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.permitted.contains(capability))
}

/// Keeps these and no others.
pub(super) fn keep(kept: CapabilitySet) -> Result<(), Errno> {
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

fn empty_bounding_set() -> Result<(), Errno> {
    use CapabilitiesSecureBits as Bits;
    for capability in 0..CAPABILITIES {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << capability)) {
            // The kernel knows no capability of a higher number.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    // User 0 is one as others are.
    set_capabilities_secure_bits(
        Bits::NO_ROOT
            | Bits::NO_ROOT_LOCKED
            | Bits::NO_SETUID_FIXUP
            | Bits::NO_SETUID_FIXUP_LOCKED
            | Bits::KEEP_CAPS_LOCKED
            | Bits::NO_CAP_AMBIENT_RAISE
            | Bits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
}

/// The session's keyring is that of the parent process. A new, empty one takes its place.
#[allow(unsafe_code)]
fn leave_keyring() {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING without a name takes no memory of ours.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0) };
    if joined < 0 {
        // Not built into this kernel, or forbidden in this container. No list of calls has keyctl.
        log::debug!("the session keyring stays: {}", std::io::Error::last_os_error());
    }
}

//! sealblk: a vhost-user-blk backend that encrypts every request on the host.
//!
//! The way of a write, and the modules in its order:
//!
//! 1. [`vhost`] accepts a frontend (QEMU, cloud-hypervisor) on a Unix socket, maps the guest's memory and runs a
//!    worker thread for each virtqueue.
//! 2. [`virtqueue`] takes a descriptor chain off the ring, copies its descriptors once and makes of them a request
//!    that cannot be wrong. It sees no keys.
//! 3. The worker takes a private buffer (`io`), since nothing is ever worked on in guest memory, which the guest could
//!    change meanwhile.
//! 4. [`disk`] enciphers the guest's data into the buffer with [`crypto`], in one pass that reads each of the guest's bytes
//!    once: XTS-AES-256 on 512-byte sectors.
//! 5. [`store`] says where the sectors lie, and `io` writes them through io_uring. A store sees neither keys nor
//!    plaintext.
//! 6. The worker writes the status byte, gives the chain back and interrupts the guest.
//!
//! [`control`] connects to the KMS, which gives configuration, store and key, and then commands. [`barrier`] brings
//! all workers to rest for those that need it, and [`turns`] keeps overlapping requests of several machines apart. [`copy`]
//! brings the data of one disk to another. [`sandbox`] takes from the process what it does not need, before any of this; what
//! must be asked by paths is in [`host`]. [`limits`] gathers what a guest or a frontend may not exceed.

pub mod barrier;
pub mod control;
pub mod copy;
pub mod crypto;
pub mod disk;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod host;
mod io;
pub mod limits;
pub mod logging;
mod rate_limit;
pub mod room;
pub mod sandbox;
pub mod socket;
pub mod store;
pub mod turns;
pub mod units;
pub mod vhost;
pub mod virtqueue;

// The unit tests use the integration tests' driver, which names this crate.
#[cfg(test)]
extern crate self as sealblk;
#[cfg(test)]
#[allow(
    dead_code,
    reason = "the integration tests' driver can do more than is needed here"
)]
#[path = "../tests/frontend/driver.rs"]
mod driver;

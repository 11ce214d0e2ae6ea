//! What is offered: only what works.

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// What every disk offers.
const ALWAYS: [(u32, &str); 9] = [
    (VIRTIO_BLK_F_SEG_MAX, "SEG_MAX"),
    (VIRTIO_BLK_F_BLK_SIZE, "BLK_SIZE"),
    (VIRTIO_BLK_F_FLUSH, "FLUSH"),
    (VIRTIO_BLK_F_TOPOLOGY, "TOPOLOGY"),
    (VIRTIO_BLK_F_MQ, "MQ"),
    (VIRTIO_RING_F_INDIRECT_DESC, "RING_INDIRECT_DESC"),
    (VIRTIO_RING_F_EVENT_IDX, "RING_EVENT_IDX"),
    (VIRTIO_F_VERSION_1, "VERSION_1"),
    // Addresses are as the platform has them, which without a vIOMMU are the guest's physical ones. QEMU does not acknowledge
    // it then, and offers a disk with `iommu_platform=on` only if it is here. With one, the queues are in no memory region.
    (VIRTIO_F_ACCESS_PLATFORM, "ACCESS_PLATFORM"),
];

/// What some offer.
const SOMETIMES: [(u32, &str); 3] = [
    (VIRTIO_BLK_F_RO, "RO"),
    (VIRTIO_BLK_F_DISCARD, "DISCARD"),
    (VIRTIO_BLK_F_WRITE_ZEROES, "WRITE_ZEROES"),
];

/// The names of virtio features, in the order of their bits.
pub(super) fn names(features: u64) -> Vec<String> {
    let mut known = [&ALWAYS[..], &SOMETIMES].concat();
    known.sort_unstable();
    let acknowledged = known.iter().filter(|(bit, _)| features >> bit & 1 == 1);
    acknowledged.map(|(_, name)| (*name).to_owned()).collect()
}

/// The names of vhost-user protocol features.
pub(super) fn protocol_names(features: u64) -> Vec<String> {
    let known = VhostUserProtocolFeatures::from_bits_truncate(features);
    known.iter_names().map(|(name, _)| name.to_owned()).collect()
}

/// Whether the driver uses the platform's addresses, which a vIOMMU may translate.
pub(super) fn has_platform_addresses(features: u64) -> bool {
    features >> VIRTIO_F_ACCESS_PLATFORM & 1 == 1
}

/// The virtio feature bits (virtio 1.2, sections 5.2.3 and 6), with vhost-user's own bit 30.
pub(super) fn virtio_features(read_only: bool, layered: bool) -> u64 {
    features(read_only, layered && !read_only)
}

fn features(read_only: bool, discard: bool) -> u64 {
    let mut bits = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    for (bit, _) in ALWAYS {
        bits |= 1 << bit;
    }
    if read_only {
        bits |= 1 << VIRTIO_BLK_F_RO;
    }
    if discard {
        bits |= 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
    }
    bits
}

/// The protocol features.
pub(super) fn protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
}

/// What the driver has acknowledged, as far as queues differ by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DriverFeatures {
    /// VIRTIO_F_EVENT_IDX
    pub event_idx: bool,
    /// VIRTIO_BLK_F_FLUSH. A driver without it cannot flush, so every write must be durable when it is answered
    /// (virtio 1.2, section 5.2.6.2).
    pub flush: bool,
    /// VIRTIO_BLK_F_DISCARD
    pub discard: bool,
    /// VIRTIO_BLK_F_WRITE_ZEROES
    pub write_zeroes: bool,
    /// Most segments of a DISCARD or WRITE_ZEROES, as far as the driver can know.
    pub segments: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_offered_that_is_not_implemented() {
        use virtio_bindings::virtio_blk::*;
        for bit in [
            VIRTIO_BLK_F_CONFIG_WCE,
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_DISCARD,
            VIRTIO_BLK_F_WRITE_ZEROES,
            VIRTIO_BLK_F_RO,
        ] {
            assert_eq!(features(false, false) >> bit & 1, 0, "bit {bit}");
        }
        assert_eq!(features(true, false) >> VIRTIO_BLK_F_RO & 1, 1);
        assert_eq!(features(false, true) >> VIRTIO_BLK_F_DISCARD & 3, 3);
    }
}

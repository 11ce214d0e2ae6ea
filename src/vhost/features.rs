//! What is offered: only what works.

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// The virtio feature bits (virtio 1.2, sections 5.2.3 and 6), with vhost-user's own bit 30.
pub(super) fn virtio_features(read_only: bool, thin: bool) -> u64 {
    features(read_only, thin && !read_only)
}

fn features(read_only: bool, discard: bool) -> u64 {
    let mut bits = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    for bit in [
        VIRTIO_F_VERSION_1,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_MQ,
    ] {
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

//! A vhost-user session with its memory and queues (vhost-user specification, "Starting and stopping rings").

use std::fs::File;
use std::path::Path;

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::queue::{Layout, Queue};
use super::{LoadError, Shape};

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const FLUSH: u64 = 1 << 9;
const MQ: u64 = 1 << 12;

/// A connection with its queues set up. Dropping it disconnects.
pub(crate) struct Session {
    /// Keeps the connection.
    _frontend: Frontend,
    queues: Vec<Queue>,
}

impl Session {
    /// Connects, and sets up queues for a shape.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(crate) fn connect(socket: &Path, shape: &Shape) -> Result<Self, LoadError> {
        let mut frontend = Frontend::connect(socket, u64::from(shape.queues))?;
        frontend.set_owner()?;
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        let offered = frontend.get_features()?;
        frontend.set_features(offered & (VERSION_1 | EVENT_IDX | FLUSH | MQ | protocol))?;
        let wanted = VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK;
        let offered = frontend.get_protocol_features()?;
        frontend.set_protocol_features(offered & wanted)?;
        let layout = Layout::new(shape);
        let memory = shared_memory(layout.bytes() * usize::from(shape.queues))?;
        let region = memory
            .iter()
            .next()
            .ok_or_else(|| LoadError::Memory("no region".to_owned()))?;
        let info = VhostUserMemoryRegionInfo::from_guest_region(region)?;
        let base = info.userspace_addr;
        frontend.set_mem_table(&[info])?;
        let mut queues = Vec::new();
        for index in 0..usize::from(shape.queues) {
            let at = (index * layout.bytes()) as u64;
            let (kick, call) = (EventFd::new(0)?, EventFd::new(0)?);
            frontend.set_vring_num(index, layout.size)?;
            let addresses = VringConfigData {
                queue_max_size: layout.size,
                queue_size: layout.size,
                flags: 0,
                desc_table_addr: base + at + Layout::DESCRIPTORS,
                used_ring_addr: base + at + Layout::USED,
                avail_ring_addr: base + at + Layout::AVAILABLE,
                log_addr: None,
            };
            frontend.set_vring_addr(index, &addresses)?;
            frontend.set_vring_base(index, 0)?;
            frontend.set_vring_call(index, &call)?;
            let guest_address = region.start_addr().0 + at;
            queues.push(Queue::new(
                memory.clone(),
                guest_address,
                layout,
                shape,
                index,
                kick,
                call,
            )?);
        }
        for (index, queue) in queues.iter().enumerate() {
            frontend.set_vring_kick(index, queue.kick())?;
            frontend.set_vring_enable(index, true)?;
        }
        Ok(Session {
            _frontend: frontend,
            queues,
        })
    }

    pub(super) fn queues(&mut self) -> &mut [Queue] {
        &mut self.queues
    }
}

fn shared_memory(bytes: usize) -> Result<GuestMemoryMmap, LoadError> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("guest", flags).map_err(std::io::Error::from)?);
    file.set_len(bytes as u64)?;
    let range = (GuestAddress(0), bytes, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).map_err(|error| LoadError::Memory(error.to_string()))
}

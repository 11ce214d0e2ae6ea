//! A small vhost-user-blk frontend: what a virtual machine does to read and write a disk, with one queue and one
//! request at a time.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::eventually;

const VERSION_1: u64 = 1 << 32;
const MEMORY_BYTES: usize = 2 << 20;
const QUEUE_SIZE: u16 = 8;

// Where things are in the memory.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADER: u64 = 0x3000;
const STATUS: u64 = 0x3100;
const DATA: u64 = 0x10_0000;
const DATA_BYTES: usize = MEMORY_BYTES - DATA as usize;

// virtio 1.2, sections 2.7.5 and 5.2.6.
const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;

/// A connected frontend. Dropping it disconnects.
pub struct Guest {
    /// Keeps the connection.
    _frontend: Frontend,
    memory: GuestMemoryMmap,
    kick: EventFd,
    _call: EventFd,
    requests: u16,
}

impl Guest {
    /// Connects to a vhost-user socket and sets one queue up.
    ///
    /// # Panics
    /// If the backend does not go along.
    pub fn connect(socket: &Path) -> Self {
        let mut frontend = negotiated(socket);
        let memory = map(memfd());
        let (kick, call) = (
            EventFd::new(0).expect("an eventfd"),
            EventFd::new(0).expect("an eventfd"),
        );
        set_up_queue(&mut frontend, &memory, &kick, &call);
        Guest {
            _frontend: frontend,
            memory,
            kick,
            _call: call,
            requests: 0,
        }
    }

    /// Connects as a machine does whose memory is this file, and disconnects.
    ///
    /// # Panics
    /// If the backend does not go along so far.
    pub fn offer_memory(socket: &Path, memory: File) {
        let frontend = negotiated(socket);
        let memory = map(memory);
        // It may be gone by the time that this is sent.
        let _ = frontend.set_mem_table(&[region(&memory)]);
    }

    /// Connects as a machine does whose memory is not shared, and disconnects.
    ///
    /// # Panics
    /// If the backend does not go along so far.
    pub fn connect_without_memory(socket: &Path) {
        let frontend = negotiated(socket);
        frontend.set_vring_num(0, QUEUE_SIZE).expect("SET_VRING_NUM");
        let ring = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: DESCRIPTORS,
            used_ring_addr: USED,
            avail_ring_addr: AVAILABLE,
            log_addr: None,
        };
        // It may be gone by the time that this is sent.
        let _ = frontend.set_vring_addr(0, &ring);
    }

    /// Writes whole sectors.
    ///
    /// # Panics
    /// If the backend answers with an error.
    pub fn write(&mut self, sector: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(DATA))
            .expect("room in the memory");
        assert_eq!(
            self.request(TYPE_OUT, sector, bytes.len(), false),
            0,
            "status of a write"
        );
    }

    /// Reads whole sectors.
    ///
    /// # Panics
    /// If the backend answers with an error.
    pub fn read(&mut self, sector: u64, length: usize) -> Vec<u8> {
        assert_eq!(self.request(TYPE_IN, sector, length, true), 0, "status of a read");
        self.data(length)
    }

    /// Makes everything durable.
    ///
    /// # Panics
    /// If the backend answers with an error.
    pub fn flush(&mut self) {
        assert_eq!(self.request(TYPE_FLUSH, 0, 0, false), 0, "status of a flush");
    }

    /// The serial number.
    ///
    /// # Panics
    /// If the backend answers with an error.
    pub fn serial(&mut self) -> String {
        assert_eq!(self.request(TYPE_GET_ID, 0, 20, true), 0, "status of GET_ID");
        let serial = self.data(20);
        String::from_utf8_lossy(&serial).trim_end_matches('\0').to_owned()
    }

    /// Tries to write one sector, and gives back the status byte.
    pub fn write_status(&mut self, sector: u64) -> u8 {
        self.request(TYPE_OUT, sector, 512, false)
    }

    /// Tries to write whole sectors, and gives back the status byte.
    ///
    /// # Panics
    /// If the memory has no room for them.
    pub fn try_write(&mut self, sector: u64, bytes: &[u8]) -> u8 {
        self.begin_write(sector, bytes);
        self.finish()
    }

    /// Begins to write whole sectors, and does not wait for the end.
    ///
    /// # Panics
    /// If the memory has no room for them.
    pub fn begin_write(&mut self, sector: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(DATA))
            .expect("room in the memory");
        self.submit(TYPE_OUT, sector, bytes.len(), false);
    }

    /// Waits for the end of what was begun, and gives back the status byte.
    pub fn finish(&mut self) -> u8 {
        eventually("the completion of a request", || {
            (self.used_index() == self.requests).then_some(())
        });
        self.memory
            .read_obj(GuestAddress(STATUS))
            .expect("within the memory")
    }

    fn data(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(DATA))
            .expect("within the memory");
        bytes
    }

    /// One request, to its end; gives back the status byte.
    fn request(&mut self, kind: u32, sector: u64, length: usize, from_device: bool) -> u8 {
        self.submit(kind, sector, length, from_device);
        self.finish()
    }

    fn submit(&mut self, kind: u32, sector: u64, length: usize, from_device: bool) {
        assert!(length <= DATA_BYTES);
        self.store(HEADER, kind);
        self.store(HEADER + 4, 0u32);
        self.store(HEADER + 8, sector);
        self.store(STATUS, 0xffu8);
        let direction = if from_device { DESC_WRITE } else { 0 };
        let status = if length > 0 { 2 } else { 1 };
        self.descriptor(0, HEADER, 16, DESC_NEXT, 1);
        self.descriptor(1, DATA, length as u32, DESC_NEXT | direction, 2);
        self.descriptor(status, STATUS, 1, DESC_WRITE, 0);
        self.store(AVAILABLE + 4 + 2 * u64::from(self.requests % QUEUE_SIZE), 0u16);
        self.requests = self.requests.wrapping_add(1);
        fence(Ordering::SeqCst);
        self.store(AVAILABLE + 2, self.requests);
        fence(Ordering::SeqCst);
        self.kick.write(1).expect("a kick");
    }

    fn used_index(&self) -> u16 {
        self.memory
            .load(GuestAddress(USED + 2), Ordering::Acquire)
            .expect("within the memory")
    }

    fn descriptor(&self, index: u64, address: u64, length: u32, flags: u16, next: u16) {
        let at = DESCRIPTORS + 16 * index;
        self.store(at, address);
        self.store(at + 8, length);
        self.store(at + 12, flags);
        self.store(at + 14, next);
    }

    fn store<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory
            .write_obj(value, GuestAddress(at))
            .expect("within the memory");
    }
}

/// A connection with features negotiated.
fn negotiated(socket: &Path) -> Frontend {
    let mut frontend = Frontend::connect(socket, 1).expect("the vhost-user socket");
    frontend.set_owner().expect("SET_OWNER");
    let offered = frontend.get_features().expect("GET_FEATURES");
    let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    assert_eq!(
        offered & (VERSION_1 | protocol),
        VERSION_1 | protocol,
        "features offered"
    );
    frontend
        .set_features(offered & (VERSION_1 | protocol))
        .expect("SET_FEATURES");
    let offered = frontend.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
    let wanted = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ;
    frontend
        .set_protocol_features(offered & wanted)
        .expect("SET_PROTOCOL_FEATURES");
    frontend
}

fn memfd() -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    File::from(rustix::fs::memfd_create("guest", flags).expect("a memfd"))
}

fn map(file: File) -> GuestMemoryMmap {
    file.set_len(MEMORY_BYTES as u64).expect("its length");
    let range = (GuestAddress(0), MEMORY_BYTES, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).expect("a mapping")
}

fn region(memory: &GuestMemoryMmap) -> VhostUserMemoryRegionInfo {
    let region = memory.iter().next().expect("one region");
    VhostUserMemoryRegionInfo::from_guest_region(region).expect("a region with a file")
}

fn set_up_queue(frontend: &mut Frontend, memory: &GuestMemoryMmap, kick: &EventFd, call: &EventFd) {
    let info = region(memory);
    let base = info.userspace_addr;
    frontend.set_mem_table(&[info]).expect("SET_MEM_TABLE");
    frontend.set_vring_num(0, QUEUE_SIZE).expect("SET_VRING_NUM");
    let addresses = VringConfigData {
        queue_max_size: QUEUE_SIZE,
        queue_size: QUEUE_SIZE,
        flags: 0,
        desc_table_addr: base + DESCRIPTORS,
        used_ring_addr: base + USED,
        avail_ring_addr: base + AVAILABLE,
        log_addr: None,
    };
    frontend.set_vring_addr(0, &addresses).expect("SET_VRING_ADDR");
    frontend.set_vring_base(0, 0).expect("SET_VRING_BASE");
    frontend.set_vring_call(0, call).expect("SET_VRING_CALL");
    frontend.set_vring_kick(0, kick).expect("SET_VRING_KICK");
    frontend.set_vring_enable(0, true).expect("SET_VRING_ENABLE");
}

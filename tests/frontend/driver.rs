//! A disk served in this process, and a driver that can do what no well-behaved guest does.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sealblk::barrier::Barrier;
use sealblk::crypto::DiskCipher;
use sealblk::disk::Disk;
use sealblk::store::{RawStore, Store};
use sealblk::units::{ByteLen, Capacity};
use sealblk::vhost::{Crew, QueueContext, Server, Tuning};
use sealblk_proto::keys::LineageKey;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

pub(crate) const SERIAL: &str = "disk-0123456789abcde";
const KEY: [u8; 32] = [0x5a; 32];

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A served disk.
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) disk: Arc<Disk>,
    pub(crate) barrier: Arc<Barrier>,
    pub(crate) file: File,
    pub(crate) socket: PathBuf,
    _directory: tempfile::TempDir,
}

#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) size: u64,
    pub(crate) encrypted: bool,
    pub(crate) read_only: bool,
    pub(crate) queues: u16,
    /// Longest time to look for work before sleeping.
    pub(crate) poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            size: 32 << 20,
            encrypted: true,
            read_only: false,
            queues: 2,
            poll: Duration::ZERO,
        }
    }
}

pub(crate) fn cipher(size: u64) -> DiskCipher {
    let key = LineageKey::new_with(|bytes| *bytes = KEY).unwrap();
    DiskCipher::derive(&key, Capacity::new(ByteLen(size)).unwrap()).unwrap()
}

impl Rig {
    pub(crate) fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        file.set_len(options.size).unwrap();
        Self::on(options, file, directory)
    }

    pub(crate) fn on(options: Options, file: File, directory: tempfile::TempDir) -> Self {
        let capacity = Capacity::new(ByteLen(options.size)).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let store = File::options().read(true).write(true).open(path).unwrap();
        let store = Store::Raw(RawStore::open(store, capacity).unwrap());
        let cipher = options.encrypted.then(|| cipher(options.size));
        let disk = Disk::new(capacity, options.read_only, SERIAL, cipher, store);
        Self::serve(options, disk, file, directory)
    }

    pub(crate) fn serve(options: Options, disk: Disk, file: File, directory: tempfile::TempDir) -> Self {
        let disk = Arc::new(disk);
        let barrier = Arc::new(Barrier::default());
        let socket = directory.path().join("vhost.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let tuning = Tuning {
            poll: options.poll,
            ..Tuning::default()
        };
        let crew = Crew::new(options.queues.into()).unwrap();
        let context = QueueContext::new(disk.clone(), barrier.clone(), tuning, crew);
        let server = Server::start(listener, context, options.queues).unwrap();
        Rig {
            server,
            disk,
            barrier,
            file,
            socket,
            _directory: directory,
        }
    }

    /// What lies in the store.
    pub(crate) fn stored(&self, sector: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes
    }
}

// vhost-user request numbers.
pub(crate) const GET_FEATURES: u32 = 1;
pub(crate) const SET_FEATURES: u32 = 2;
pub(crate) const SET_OWNER: u32 = 3;
pub(crate) const SET_MEM_TABLE: u32 = 5;
pub(crate) const SET_VRING_NUM: u32 = 8;
pub(crate) const SET_VRING_ADDR: u32 = 9;
pub(crate) const SET_VRING_BASE: u32 = 10;
pub(crate) const GET_VRING_BASE: u32 = 11;
pub(crate) const SET_VRING_KICK: u32 = 12;
pub(crate) const SET_VRING_CALL: u32 = 13;
pub(crate) const SET_VRING_ERR: u32 = 14;
pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
pub(crate) const GET_QUEUE_NUM: u32 = 17;
pub(crate) const SET_VRING_ENABLE: u32 = 18;
pub(crate) const SET_BACKEND_REQ_FD: u32 = 21;
pub(crate) const IOTLB_MSG: u32 = 22;
pub(crate) const GET_CONFIG: u32 = 24;
pub(crate) const SET_CONFIG: u32 = 25;
pub(crate) const GET_INFLIGHT_FD: u32 = 31;
pub(crate) const SET_INFLIGHT_FD: u32 = 32;
pub(crate) const RESET_DEVICE: u32 = 34;
pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
pub(crate) const ADD_MEM_REG: u32 = 37;
pub(crate) const REM_MEM_REG: u32 = 38;

pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;
pub(crate) const FLUSH: u64 = 1 << 9;
pub(crate) const DISCARD: u64 = 1 << 13;
pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;

// Descriptor flags.
pub(crate) const WRITE: u16 = 2;
pub(crate) const NEXT: u16 = 1;
pub(crate) const INDIRECT: u16 = 4;

// Request types and statuses.
pub(crate) const T_IN: u32 = 0;
pub(crate) const T_OUT: u32 = 1;
pub(crate) const T_FLUSH: u32 = 4;
pub(crate) const T_GET_ID: u32 = 8;
pub(crate) const T_DISCARD: u32 = 11;
pub(crate) const T_WRITE_ZEROES: u32 = 13;
pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;
pub(crate) const NO_STATUS: u8 = 0xee;

/// Guest physical layout: two regions that touch at 16 MiB, and one apart at 4 GiB.
pub(crate) const REGIONS: [(u64, u64); 3] = [(0, 16 << 20), (16 << 20, 16 << 20), (4 << 30, 1 << 20)];
/// The frontend's addresses are guest physical ones plus this.
pub(crate) const USER_OFFSET: u64 = 0x7f00_0000_0000;
/// Headers and statuses of the simple requests; each queue has a page.
const HEADERS: u64 = 0x10_0000;
/// Free for data.
pub(crate) const DATA: u64 = 0x20_0000;

pub(crate) struct Driver {
    pub(crate) stream: UnixStream,
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) memfds: Vec<File>,
    pub(crate) queues: Vec<Queue>,
    /// Body of SET_INFLIGHT_FD and the memory that belongs to it, which outlives the backend.
    pub(crate) inflight: Option<(Vec<u8>, File)>,
    features: u64,
}

pub(crate) struct Queue {
    pub(crate) index: u16,
    pub(crate) size: u16,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) error: EventFd,
    available: u16,
    used: u16,
    next_slot: u16,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
}

pub(crate) fn readable(address: u64, len: u32) -> Descriptor {
    Descriptor {
        address,
        len,
        flags: 0,
    }
}

pub(crate) fn writable(address: u64, len: u32) -> Descriptor {
    Descriptor {
        address,
        len,
        flags: WRITE,
    }
}

impl Driver {
    /// Only a connection.
    pub(crate) fn raw(rig: &Rig) -> Self {
        Self::connect(&rig.socket)
    }

    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let memfds = Self::raw_memory();
        let regions = REGIONS.iter().zip(&memfds).map(|((start, len), file)| {
            let offset = FileOffset::new(file.try_clone().unwrap(), 0);
            let mapping = MmapRegion::from_file(offset, *len as usize).unwrap();
            GuestRegionMmap::new(mapping, GuestAddress(*start)).unwrap()
        });
        let memory = GuestMemoryMmap::from_regions(regions.collect()).unwrap();
        Driver {
            stream,
            memory,
            memfds,
            queues: Vec::new(),
            inflight: None,
            features: 0,
        }
    }

    /// Memory for all regions.
    pub(crate) fn raw_memory() -> Vec<File> {
        let of = |(_, len): &(u64, u64)| {
            let file = tempfile::tempfile_in("/dev/shm").unwrap();
            file.set_len(*len).unwrap();
            file
        };
        REGIONS.iter().map(of).collect()
    }

    /// A connection with features negotiated and `queues` queues of `size` entries running.
    pub(crate) fn new(rig: &Rig, features: u64, queues: u16, size: u16) -> Self {
        Self::raw(rig).running(features, queues, size)
    }

    pub(crate) fn running(mut self, features: u64, queues: u16, size: u16) -> Self {
        self.negotiate(features);
        self.set_up(queues, size)
    }

    /// Memory, and queues that run.
    pub(crate) fn set_up(mut self, queues: u16, size: u16) -> Self {
        self.send_memory_table();
        for index in 0..queues {
            self.start_queue(index, size, 0);
        }
        self
    }

    pub(crate) fn simple(rig: &Rig) -> Self {
        Self::new(rig, VERSION_1 | PROTOCOL_FEATURES | FLUSH, 1, 128)
    }

    pub(crate) fn negotiate(&mut self, features: u64) {
        self.send(SET_OWNER, 1, &[], &[]);
        assert_eq!(self.get_u64(GET_FEATURES) & features, features);
        self.send(SET_FEATURES, 1, &features.to_ne_bytes(), &[]);
        self.features = features;
        if features & PROTOCOL_FEATURES != 0 {
            let offered = self.get_u64(GET_PROTOCOL_FEATURES);
            self.send(SET_PROTOCOL_FEATURES, 1, &offered.to_ne_bytes(), &[]);
        }
    }

    pub(crate) fn send(&mut self, code: u32, flags: u32, body: &[u8], fds: &[i32]) {
        let header = [code, flags, body.len() as u32];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(body);
        self.stream.send_with_fds(&[&bytes[..]], fds).unwrap();
    }

    pub(crate) fn reply(&mut self) -> (u32, Vec<u8>) {
        let mut header = [0; 12];
        self.stream.read_exact(&mut header).unwrap();
        let word = |i: usize| u32::from_ne_bytes(header[4 * i..][..4].try_into().unwrap());
        assert_eq!(word(1), 5, "version 1 and the reply flag");
        let mut body = vec![0; word(2) as usize];
        self.stream.read_exact(&mut body).unwrap();
        (word(0), body)
    }

    pub(crate) fn get_u64(&mut self, code: u32) -> u64 {
        self.send(code, 1, &[], &[]);
        let (replied, body) = self.reply();
        assert_eq!(replied, code);
        u64::from_ne_bytes(body.try_into().unwrap())
    }

    /// Sends with NEED_REPLY and returns the acknowledgement: 0 is good.
    pub(crate) fn acknowledged(&mut self, code: u32, body: &[u8], fds: &[i32]) -> u64 {
        self.send(code, 9, body, fds);
        let (replied, body) = self.reply();
        assert_eq!(replied, code);
        u64::from_ne_bytes(body.try_into().unwrap())
    }

    /// A socket on which the backend speaks first.
    pub(crate) fn open_backend_channel(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(
            self.acknowledged(SET_BACKEND_REQ_FD, &[], &[theirs.as_raw_fd()]),
            0
        );
        ours
    }

    /// Whether the backend has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => panic!("an unexpected reply"),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Bytes of the configuration space.
    pub(crate) fn config(&mut self, offset: u32, size: u32) -> Vec<u8> {
        let mut body: Vec<u8> = [offset, size, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        body.resize(12 + size as usize, 0);
        self.send(GET_CONFIG, 1, &body, &[]);
        let (code, reply) = self.reply();
        assert_eq!((code, reply.len()), (GET_CONFIG, body.len()));
        reply[12..].to_vec()
    }

    pub(crate) fn memory_table() -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&(REGIONS.len() as u32).to_ne_bytes());
        body.extend_from_slice(&0u32.to_ne_bytes());
        for (start, len) in REGIONS {
            for word in [start, len, start + USER_OFFSET, 0] {
                body.extend_from_slice(&word.to_ne_bytes());
            }
        }
        body
    }

    pub(crate) fn send_memory_table(&mut self) {
        let fds: Vec<i32> = self.memfds.iter().map(AsRawFd::as_raw_fd).collect();
        self.send(SET_MEM_TABLE, 1, &Self::memory_table(), &fds);
    }

    fn ring_address(index: u16) -> u64 {
        0x1000 + u64::from(index) * 0x10000
    }

    pub(crate) fn start_queue(&mut self, index: u16, size: u16, base: u16) {
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let queue = Queue {
            index,
            size,
            kick: eventfd(),
            call: eventfd(),
            error: eventfd(),
            available: base,
            used: base,
            next_slot: 0,
        };
        let start = Self::ring_address(index);
        for (offset, value) in [(0x8000, 0u16), (0x8002, base), (0xa000, 0), (0xa002, base)] {
            self.memory
                .write_obj(value, GuestAddress(start + offset))
                .unwrap();
        }
        self.queues.retain(|old| old.index != index);
        self.queues
            .insert(usize::from(index).min(self.queues.len()), queue);
        let position = self.queues.iter().position(|queue| queue.index == index);
        self.announce_queue(position.unwrap(), base);
    }

    /// Tells the backend of a queue; the ring's memory stays as it is.
    fn announce_queue(&mut self, position: usize, base: u16) {
        let queue = &self.queues[position];
        let (index, size) = (queue.index, queue.size);
        let [kick, call, error] = [&queue.kick, &queue.call, &queue.error].map(AsRawFd::as_raw_fd);
        let start = Self::ring_address(index);
        let pair = |num: u32| [u32::from(index).to_ne_bytes(), num.to_ne_bytes()].concat();
        self.send(SET_VRING_NUM, 1, &pair(size.into()), &[]);
        let mut addresses = pair(0);
        for address in [start, start + 0xa000, start + 0x8000, 0] {
            addresses.extend_from_slice(&(address + USER_OFFSET).to_ne_bytes());
        }
        self.send(SET_VRING_ADDR, 1, &addresses, &[]);
        self.send(SET_VRING_BASE, 1, &pair(base.into()), &[]);
        let number = u64::from(index).to_ne_bytes();
        self.send(SET_VRING_ERR, 1, &number, &[error]);
        self.send(SET_VRING_CALL, 1, &number, &[call]);
        self.send(SET_VRING_KICK, 1, &number, &[kick]);
        if self.features & PROTOCOL_FEATURES != 0 {
            self.send(SET_VRING_ENABLE, 1, &pair(1), &[]);
        }
    }

    /// Has the backend make memory for chains in flight, keeps it and gives it to the backend, as QEMU does.
    pub(crate) fn track_inflight(&mut self, queues: u16, size: u16) {
        let mut body = vec![0; 24];
        body[16..18].copy_from_slice(&queues.to_ne_bytes());
        body[18..20].copy_from_slice(&size.to_ne_bytes());
        self.send(GET_INFLIGHT_FD, 1, &body, &[]);
        let mut reply = [0; 12 + 24];
        let (received, file) = self.stream.recv_with_fd(&mut reply).unwrap();
        assert_eq!(received, reply.len());
        self.inflight = Some((reply[12..].to_vec(), file.unwrap()));
        self.send_inflight();
    }

    /// Gives the backend memory for chains in flight that another has made.
    pub(crate) fn bring_inflight(&mut self, body: Vec<u8>, memory: File) {
        self.inflight = Some((body, memory));
        self.send_inflight();
    }

    fn send_inflight(&mut self) {
        if let Some((body, file)) = self.inflight.take() {
            self.send(SET_INFLIGHT_FD, 1, &body, &[file.as_raw_fd()]);
            self.inflight = Some((body, file));
        }
    }

    /// Connects to the next backend and sets up what there was, as QEMU does: the memory for chains in flight first, and each
    /// queue with its used index as the base.
    pub(crate) fn reconnect(&mut self, socket: &Path) {
        self.connect_again(socket);
        self.send_inflight();
        self.send_memory_table();
        for position in 0..self.queues.len() {
            self.announce_queue(position, self.used_index(position));
        }
    }

    /// The same as cloud-hypervisor does: the memory for chains in flight after the guest's, and each queue with its available
    /// index as the base, as if the dead backend had taken all that was offered.
    pub(crate) fn reconnect_from_available(&mut self, socket: &Path) {
        self.connect_again(socket);
        self.send_memory_table();
        self.send_inflight();
        for position in 0..self.queues.len() {
            self.announce_queue(position, self.available_index(position));
        }
    }

    /// Returns the moment that the backend ends the connection.
    pub(crate) fn wait_for_the_end(&self) {
        self.stream.set_nonblocking(true).unwrap();
        let mut byte = [0];
        while (&self.stream)
            .read(&mut byte)
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        {
            std::hint::spin_loop();
        }
    }

    /// Connects as soon as there is a backend, and negotiates what there was.
    fn connect_again(&mut self, socket: &Path) {
        let deadline = Instant::now() + PATIENCE;
        self.stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.negotiate(self.features);
    }

    /// Puts a chain whose first descriptor is `head` into the table.
    pub(crate) fn chain_at(&self, queue: usize, head: u16, descriptors: &[Descriptor]) {
        let table = Self::ring_address(self.queues[queue].index);
        self.write_chain(table, head, descriptors);
    }

    /// Writes a chain into consecutive descriptors of a table.
    pub(crate) fn write_chain(&self, table: u64, first: u16, descriptors: &[Descriptor]) {
        for (slot, descriptor) in (first..).zip(descriptors) {
            let mut descriptor = *descriptor;
            if usize::from(slot - first) + 1 < descriptors.len() {
                descriptor.flags |= NEXT;
            }
            self.write_descriptor(table, slot, descriptor, slot + 1);
        }
    }

    /// Kicks if the backend wants to be (`avail_event`), as a driver with EVENT_IDX does after it has offered chains since
    /// the available index was `before`.
    pub(crate) fn kick_if_wanted(&self, queue: usize, before: u16) {
        let ring = &self.queues[queue];
        let at = Self::ring_address(ring.index) + 0xa004 + 8 * u64::from(ring.size);
        std::sync::atomic::fence(Ordering::SeqCst);
        let event: u16 = self.memory.load(GuestAddress(at), Ordering::SeqCst).unwrap();
        let now = ring.available;
        if now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before) {
            self.kick(queue);
        }
    }

    pub(crate) fn available_index(&self, queue: usize) -> u16 {
        self.queues[queue].available
    }

    /// The next completion, if there is one.
    pub(crate) fn try_completion(&mut self, queue: usize) -> Option<u16> {
        (self.used_index(queue) != self.queues[queue].used).then(|| self.completion(queue).0)
    }

    /// Asks for an interrupt at the next completion. Whether there is one already.
    pub(crate) fn arm(&self, queue: usize) -> bool {
        self.set_used_event(queue, self.queues[queue].used);
        std::sync::atomic::fence(Ordering::SeqCst);
        self.used_index(queue) != self.queues[queue].used
    }

    pub(crate) fn stop_queue(&mut self, index: u16) -> u16 {
        let body = [u32::from(index).to_ne_bytes(), 0u32.to_ne_bytes()].concat();
        self.send(GET_VRING_BASE, 1, &body, &[]);
        let (code, body) = self.reply();
        assert_eq!(code, GET_VRING_BASE);
        u16::try_from(u32::from_ne_bytes(body[4..8].try_into().unwrap())).unwrap()
    }

    pub(crate) fn write_descriptor(&self, table: u64, slot: u16, descriptor: Descriptor, next: u16) {
        let at = |offset: u64| GuestAddress(table + u64::from(slot) * 16 + offset);
        self.memory.write_obj(descriptor.address, at(0)).unwrap();
        self.memory.write_obj(descriptor.len, at(8)).unwrap();
        self.memory.write_obj(descriptor.flags, at(12)).unwrap();
        self.memory.write_obj(next, at(14)).unwrap();
    }

    /// Puts a chain into the table, and returns its head.
    pub(crate) fn chain(&mut self, queue: usize, descriptors: &[Descriptor]) -> u16 {
        let ring = &mut self.queues[queue];
        let first = ring.next_slot;
        let slot = |i: usize| (first + i as u16) % ring.size;
        let table = Self::ring_address(ring.index);
        ring.next_slot = slot(descriptors.len());
        let slots: Vec<u16> = (0..=descriptors.len()).map(slot).collect();
        for (i, descriptor) in descriptors.iter().enumerate() {
            let mut descriptor = *descriptor;
            if i + 1 < descriptors.len() {
                descriptor.flags |= NEXT;
            }
            self.write_descriptor(table, slots[i], descriptor, slots[i + 1]);
        }
        slots[0]
    }

    /// Puts a head into the available ring, without telling.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let ring = &mut self.queues[queue];
        let available = Self::ring_address(ring.index) + 0x8000;
        let entry = available + 4 + u64::from(ring.available % ring.size) * 2;
        self.memory.write_obj(head, GuestAddress(entry)).unwrap();
        ring.available = ring.available.wrapping_add(1);
        self.memory
            .store(ring.available, GuestAddress(available + 2), Ordering::SeqCst)
            .unwrap();
    }

    pub(crate) fn set_available_index(&self, queue: usize, index: u16) {
        let available = Self::ring_address(self.queues[queue].index) + 0x8000;
        self.memory
            .store(index, GuestAddress(available + 2), Ordering::SeqCst)
            .unwrap();
    }

    pub(crate) fn kick(&self, queue: usize) {
        self.queues[queue].kick.write(1).unwrap();
    }

    pub(crate) fn used_index(&self, queue: usize) -> u16 {
        let used = Self::ring_address(self.queues[queue].index) + 0xa000;
        self.memory
            .load(GuestAddress(used + 2), Ordering::SeqCst)
            .unwrap()
    }

    pub(crate) fn has_completion(&self, queue: usize) -> bool {
        self.used_index(queue) != self.queues[queue].used
    }

    /// Gives a chain back, as a backend does.
    pub(crate) fn put_used(&self, queue: usize, head: u16, len: u32) {
        let ring = &self.queues[queue];
        let start = Self::ring_address(ring.index) + 0xa000;
        let index = self.used_index(queue);
        let entry = start + 4 + u64::from(index % ring.size) * 8;
        self.memory
            .write_obj(u32::from(head), GuestAddress(entry))
            .unwrap();
        self.memory.write_obj(len, GuestAddress(entry + 4)).unwrap();
        self.memory
            .store(index.wrapping_add(1), GuestAddress(start + 2), Ordering::SeqCst)
            .unwrap();
    }

    /// The next completion: head and used length.
    pub(crate) fn completion(&mut self, queue: usize) -> (u16, u32) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_completion(queue) {
            assert!(Instant::now() < deadline, "no completion");
            std::thread::sleep(Duration::from_micros(50));
        }
        let ring = &mut self.queues[queue];
        let entry = Self::ring_address(ring.index) + 0xa004 + u64::from(ring.used % ring.size) * 8;
        ring.used = ring.used.wrapping_add(1);
        let id: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
        (u16::try_from(id).unwrap(), len)
    }

    /// The used index at which the driver wants an interrupt (`used_event`).
    pub(crate) fn set_used_event(&self, queue: usize, index: u16) {
        let ring = &self.queues[queue];
        let at = Self::ring_address(ring.index) + 0x8004 + 2 * u64::from(ring.size);
        self.memory
            .store(index, GuestAddress(at), Ordering::SeqCst)
            .unwrap();
    }

    /// Body of ADD_MEM_REG and REM_MEM_REG.
    pub(crate) fn region_body(index: usize) -> Vec<u8> {
        let (start, len) = REGIONS[index];
        Self::region_body_of(start, len, 0)
    }

    /// The same of a region that lies at `offset` in its file.
    pub(crate) fn region_body_of(start: u64, len: u64, offset: u64) -> Vec<u8> {
        [0, start, len, start + USER_OFFSET, offset]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }

    pub(crate) fn header(&self, address: u64, kind: u32, sector: u64) {
        self.memory.write_obj(kind, GuestAddress(address)).unwrap();
        self.memory.write_obj(0u32, GuestAddress(address + 4)).unwrap();
        self.memory.write_obj(sector, GuestAddress(address + 8)).unwrap();
    }

    /// One request with `data` between header and status; returns status and used length.
    pub(crate) fn request(&mut self, queue: usize, kind: u32, sector: u64, data: &[Descriptor]) -> (u8, u32) {
        let page = HEADERS + queue as u64 * 0x1000;
        self.header(page, kind, sector);
        self.memory.write_obj(NO_STATUS, GuestAddress(page + 16)).unwrap();
        let mut descriptors = vec![readable(page, 16)];
        descriptors.extend_from_slice(data);
        descriptors.push(writable(page + 16, 1));
        let head = self.chain(queue, &descriptors);
        self.offer(queue, head);
        self.kick(queue);
        let (completed, used_len) = self.completion(queue);
        assert_eq!(completed, head);
        (self.memory.read_obj(GuestAddress(page + 16)).unwrap(), used_len)
    }

    /// Begins a FLUSH, and returns when the backend has taken it, which is not when it has ended.
    pub(crate) fn begin_flush(&mut self) {
        let page = HEADERS + 0x800;
        self.header(page, T_FLUSH, 0);
        let head = self.chain(0, &[readable(page, 16), writable(page + 16, 1)]);
        self.offer(0, head);
        // Chains are taken in their order.
        let data = [writable(DATA, 20)];
        assert_eq!(self.request(0, T_GET_ID, 0, &data).0, OK);
    }

    pub(crate) fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.put(DATA, data);
        self.request(0, T_OUT, sector, &[readable(DATA, data.len() as u32)])
            .0
    }

    pub(crate) fn read(&mut self, sector: u64, len: usize) -> Vec<u8> {
        self.put(DATA, &vec![0xcd; len]);
        let (status, used_len) = self.request(0, T_IN, sector, &[writable(DATA, len as u32)]);
        assert_eq!((status, used_len), (OK, len as u32 + 1));
        self.get(DATA, len)
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        // The backend may close while we write.
        let _ = self.stream.write_all(bytes);
    }
}

/// Bytes that differ everywhere.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

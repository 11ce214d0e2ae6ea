//! A predecessor that hands over to this process: its words, and descriptors that once were a frontend's.

use std::net::Shutdown;

use sealblk_proto::channel::Channel;
use sealblk_proto::message::{AttachmentConfig, Mode, OnFull, StoreExpected, StoreKind};

use super::descriptors::{MOST, Sender, send};
use super::input::Input;
use super::session::{context, disk};
use crate::control::{Taken, take_over};
use crate::vhost::Server;

const GUEST_BYTES: u64 = 64 << 10;
/// Most packets: what is sent before anything is received fits the socket's buffer.
const PACKETS: usize = 24;
/// Longest packet.
const PACKET_BYTES: usize = 4096;

/// One hand-over, and what it hands over served until its connections end.
pub fn handover(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let layered = flags & 1 != 0;
    let config = AttachmentConfig {
        disk: "disk-fuzzing".to_owned(),
        serial: "disk-fuzzing".to_owned(),
        size: 1 << 20,
        encrypted: true,
        read_only: flags & 2 != 0,
        queues: 1 + u16::from(flags >> 2 & 1),
        store: if layered {
            StoreKind::Layered
        } else {
            StoreKind::Raw
        },
        bases: 0,
        shared: flags & 8 != 0,
        all_queues: 0,
        on_full: OnFull::Error,
        expected: StoreExpected::default(),
        guest_size: None,
        mode: Mode::TakeOver,
        socket: String::new(),
    };
    let mut sender = Sender::new(GUEST_BYTES);
    let (ours, theirs) = Channel::pair().expect("a pair of sockets");
    for _ in 0..PACKETS {
        let count = usize::from(input.byte()) % MOST;
        let descriptors: Vec<_> = (0..count).map(|_| sender.descriptor(input.byte())).collect();
        let length = usize::from(input.short()) % (PACKET_BYTES + 1);
        let text = input.bytes(length);
        if text.is_empty() || send(&theirs, text, &descriptors).is_err() {
            break;
        }
    }
    rustix::net::shutdown(&theirs, rustix::net::Shutdown::Write).expect("a connected socket");
    if let Ok(taken) = take_over(&ours, "att-fuzzing", &config) {
        serve(taken, &sender, layered);
    }
}

fn serve(taken: Taken, sender: &Sender, layered: bool) {
    let mut servers = Vec::new();
    for session in taken.sessions {
        let (queues, read_only) = (session.config.queues, session.config.read_only);
        let context = context(disk(layered, read_only));
        servers.push(Server::take_over(session.server, context, queues).expect("a server"));
    }
    sender.kick();
    for peer in &sender.peers {
        // The descriptor may be no connection.
        let _ = peer.shutdown(Shutdown::Write);
    }
    for server in &servers {
        server.detail();
        server.stop(true).expect("a forced end is not refused");
    }
}

//! What sealblk and sealblk-kms say to each other: either side takes the other's messages for hostile.

use std::fmt::Debug;
use std::os::fd::OwnedFd;

use sealblk_proto::channel::Channel;
use sealblk_proto::key_transfer::take_key;
use sealblk_proto::message::{CopySource, Hello, HelloAnswer, Readiness, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::descriptors::{MOST, Sender, send};
use super::input::Input;

/// One packet with descriptors, as each kind of message in turn that the first byte says.
pub fn channel(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let mut sender = Sender::new(32);
    let count = usize::from(input.byte()) % MOST;
    let descriptors: Vec<_> = (0..count).map(|_| sender.descriptor(input.byte())).collect();
    let text = input.bytes(usize::MAX);
    let taken = match kind % 6 {
        0 => receive::<Hello>(text, &descriptors),
        1 => receive::<HelloAnswer>(text, &descriptors),
        2 => receive::<CopySource>(text, &descriptors),
        3 => receive::<Readiness>(text, &descriptors),
        4 => receive::<Request>(text, &descriptors),
        _ => receive::<Reply>(text, &descriptors),
    };
    for descriptor in taken {
        // Most kinds hold no key.
        drop(take_key(descriptor));
    }
}

/// What is understood is said again in the same words, and understood again. Returns the descriptors.
fn receive<M: Serialize + DeserializeOwned + Debug>(text: &[u8], descriptors: &[OwnedFd]) -> Vec<OwnedFd> {
    let (ours, theirs) = Channel::pair().expect("a pair of sockets");
    if text.is_empty() || send(&theirs, text, descriptors).is_err() {
        return Vec::new();
    }
    let Ok((message, taken)) = ours.receive::<M>() else {
        return Vec::new();
    };
    assert_eq!(taken.len(), descriptors.len());
    let said = serde_json::to_string(&message).expect("a message can be said");
    let again: M = serde_json::from_str(&said).expect("what is said is understood");
    assert_eq!(
        serde_json::to_string(&again).expect("a message can be said"),
        said
    );
    taken
}

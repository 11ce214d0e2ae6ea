//! What is served to a frontend, as a successor process is given it: numbers in a message, and the descriptors.
//!
//! The numbers come from a process like this one, and the descriptors once came from a frontend: they are checked as if it
//! had sent them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use serde::{Deserialize, Serialize};

use super::adoption::{AdoptError, AdoptedSession, Files, SessionState};
use super::features::virtio_features;
use super::session::Session;

/// The numbers of a server at rest. The descriptors come in this order: the listening socket; of a session the
/// connection, the channel of the back-end, the memory for chains in flight, the memory regions, and those of each queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerState {
    session: Option<SessionState>,
}

/// A server at rest: nothing is in flight, and nothing is taken.
pub struct Suspended {
    pub(super) listener: UnixListener,
    pub(super) session: Option<(UnixStream, Session)>,
}

/// A predecessor's server, ready to go on.
pub struct Adopted {
    pub(super) listener: UnixListener,
    pub(super) session: Option<AdoptedSession>,
}

impl Suspended {
    /// The numbers, and duplicates of the descriptors.
    ///
    /// # Errors
    /// The kernel's.
    pub fn export(&self) -> io::Result<(ServerState, Vec<OwnedFd>)> {
        let mut files = vec![OwnedFd::from(self.listener.try_clone()?)];
        let session = match &self.session {
            None => None,
            Some((stream, session)) => {
                files.push(stream.try_clone()?.into());
                Some(session.export(&mut files)?)
            }
        };
        Ok((ServerState { session }, files))
    }
}

impl Adopted {
    /// Maps and checks everything. Nothing of the guest's is touched yet.
    ///
    /// # Errors
    /// [`AdoptError`].
    pub fn new(
        state: ServerState,
        files: Vec<OwnedFd>,
        queues: u16,
        read_only: bool,
        layered: bool,
    ) -> Result<Self, AdoptError> {
        let mut files = Files {
            got: files.len(),
            rest: files.into(),
        };
        let listener = UnixListener::from(files.next()?);
        let offered = virtio_features(read_only, layered);
        let session = state
            .session
            .map(|session| AdoptedSession::new(session, &mut files, queues, offered))
            .transpose()?;
        if files.rest.is_empty() {
            Ok(Adopted { listener, session })
        } else {
            Err(files.wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use sealblk_proto::channel::MAX_MESSAGE_BYTES;

    use super::*;
    use crate::limits::{MAX_MEMORY_REGIONS, MAX_QUEUES};
    use crate::vhost::memory::RegionState;

    /// Whatever addresses a frontend has chosen.
    #[test]
    fn the_numbers_of_the_largest_session_go_into_one_packet() {
        let largest = RegionState {
            guest_address: u64::MAX,
            user_address: u64::MAX,
            len: u64::MAX,
            offset: u64::MAX,
        };
        let vring = serde_json::json!({
            "size": 1024, "base": 65535, "enabled": false, "kick": false, "call": false, "error": false,
            "addresses": {"descriptors": u64::MAX, "available": u64::MAX, "used": u64::MAX},
        });
        let session = SessionState {
            features: u64::MAX,
            protocol: u64::MAX,
            backend_channel: false,
            inflight: None,
            regions: vec![largest; MAX_MEMORY_REGIONS],
            vrings: vec![serde_json::from_value(vring).unwrap(); MAX_QUEUES.into()],
        };
        let state = ServerState {
            session: Some(session),
        };
        let bytes = serde_json::to_vec(&state).unwrap().len();
        // With room for what is around it.
        assert!(bytes > 64 << 10 && bytes + 1024 < MAX_MESSAGE_BYTES, "{bytes}");
    }
}

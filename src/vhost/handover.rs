//! What is served to a frontend, as a successor process is given it: numbers in a message, and the descriptors.
//!
//! The numbers come from a process like this one, and the descriptors once came from a frontend: they are checked as if it
//! had sent them.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserProtocolFeatures};

use super::features::{protocol_features, virtio_features};
use super::inflight::{InflightError, InflightLayout, InflightTable};
use super::memory::{MemoryError, MemoryTable};
use super::session::Session;
use super::vring::{Vring, VringState};

/// What a successor cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Numbers and descriptors do not fit together.
    #[error("{got} descriptors came, and not as many as the session needs")]
    Descriptors {
        /// Received.
        got: usize,
    },
    /// This version does not offer what the guest uses.
    #[error("features {0:#x} are in use and not offered by this version")]
    Features(u64),
    /// Another number of queues.
    #[error("{got} queues are served, not {need}")]
    Queues {
        /// Those of the session.
        got: usize,
        /// Those of the attachment.
        need: u16,
    },
    /// Guest memory cannot be mapped.
    #[error("guest memory cannot be mapped: {0}")]
    Memory(String),
    /// A descriptor cannot be used.
    #[error("a descriptor cannot be used")]
    Io(#[from] io::Error),
}

impl From<MemoryError> for AdoptError {
    fn from(error: MemoryError) -> Self {
        AdoptError::Memory(error.to_string())
    }
}

impl From<InflightError> for AdoptError {
    fn from(error: InflightError) -> Self {
        AdoptError::Memory(error.to_string())
    }
}

/// The numbers of a server at rest. The descriptors come in this order: the listening socket; of a session the
/// connection, the channel of the back-end, the memory for chains in flight, the memory regions, and those of each queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerState {
    session: Option<SessionState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionState {
    features: u64,
    protocol: u64,
    backend_channel: bool,
    inflight: Option<InflightLayout>,
    regions: Vec<RegionState>,
    vrings: Vec<VringState>,
}

/// A memory region, as the frontend has described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegionState {
    pub guest_address: u64,
    pub user_address: u64,
    pub len: u64,
    pub offset: u64,
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

pub(super) struct AdoptedSession {
    pub stream: UnixStream,
    pub features: u64,
    pub protocol: VhostUserProtocolFeatures,
    pub channel: Option<File>,
    pub inflight: Option<Arc<InflightTable>>,
    pub memory: MemoryTable,
    pub vrings: Vec<Vring>,
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

impl Session {
    fn export(&self, files: &mut Vec<OwnedFd>) -> io::Result<SessionState> {
        let channel = self.channel.duplicate()?;
        let backend_channel = channel.is_some();
        files.extend(channel);
        let inflight = match &self.inflight {
            None => None,
            Some(table) => {
                let (layout, file) = table.export()?;
                files.push(file.into());
                Some(layout)
            }
        };
        Ok(SessionState {
            features: self.features,
            protocol: self.protocol.bits(),
            backend_channel,
            inflight,
            regions: self.memory.export(files)?,
            vrings: self
                .vrings
                .iter()
                .map(|vring| vring.export(files))
                .collect::<io::Result<_>>()?,
        })
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
        thin: bool,
    ) -> Result<Self, AdoptError> {
        let mut files = Files {
            got: files.len(),
            rest: files.into(),
        };
        let listener = UnixListener::from(files.next()?);
        let offered = virtio_features(read_only, thin);
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

impl AdoptedSession {
    fn new(state: SessionState, files: &mut Files, queues: u16, offered: u64) -> Result<Self, AdoptError> {
        if state.features & !offered != 0 {
            return Err(AdoptError::Features(state.features & !offered));
        }
        let protocol = VhostUserProtocolFeatures::from_bits(state.protocol)
            .filter(|features| protocol_features().contains(*features))
            .ok_or(AdoptError::Features(state.protocol))?;
        if state.vrings.len() != usize::from(queues) {
            return Err(AdoptError::Queues {
                got: state.vrings.len(),
                need: queues,
            });
        }
        let stream = UnixStream::from(files.next()?);
        let channel = files.next_if(state.backend_channel)?;
        let inflight = match state.inflight {
            None => None,
            Some(layout) => Some(Arc::new(layout.map(queues, files.next()?.into())?)),
        };
        let mut memory = MemoryTable::default();
        for region in state.regions {
            let region = VhostUserMemoryRegion::new(
                region.guest_address,
                region.len,
                region.user_address,
                region.offset,
            );
            memory.add(&region, files.next()?.into())?;
        }
        let mut vrings = Vec::with_capacity(state.vrings.len());
        for vring in state.vrings {
            let mut next = |there| files.next_if(there);
            let descriptors = [next(vring.kick)?, next(vring.call)?, next(vring.error)?];
            vrings.push(Vring::adopt(&vring, descriptors)?);
        }
        Ok(AdoptedSession {
            stream,
            features: state.features,
            protocol,
            channel,
            inflight,
            memory,
            vrings,
        })
    }
}

/// Descriptors, to be taken in their order.
struct Files {
    rest: VecDeque<OwnedFd>,
    got: usize,
}

impl Files {
    fn next(&mut self) -> Result<OwnedFd, AdoptError> {
        self.rest.pop_front().ok_or_else(|| self.wrong())
    }

    fn next_if(&mut self, there: bool) -> Result<Option<File>, AdoptError> {
        there.then(|| self.next().map(File::from)).transpose()
    }

    fn wrong(&self) -> AdoptError {
        AdoptError::Descriptors { got: self.got }
    }
}

#[cfg(test)]
mod tests {
    use sealblk_proto::channel::MAX_MESSAGE_BYTES;

    use super::*;
    use crate::limits::{MAX_MEMORY_REGIONS, MAX_QUEUES};

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

//! A session as a successor process is given it: numbers, and descriptors in their order.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserProtocolFeatures};

use super::features::protocol_features;
use super::inflight::{InflightError, InflightLayout, InflightTable};
use super::memory::{MemoryError, MemoryTable, RegionState};
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
    /// The guest uses features that this version does not offer.
    #[error("features {0:#x} are in use and not offered by this version")]
    Features(u64),
    /// Another number of queues.
    #[error("{got} queues are served, not {need}")]
    Queues {
        /// Queues of the session.
        got: usize,
        /// Queues of the attachment.
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

/// The numbers of a session at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionState {
    pub features: u64,
    pub protocol: u64,
    pub backend_channel: bool,
    pub inflight: Option<InflightLayout>,
    pub regions: Vec<RegionState>,
    pub vrings: Vec<VringState>,
}

/// A predecessor's session, mapped and checked.
pub(super) struct AdoptedSession {
    pub stream: UnixStream,
    pub features: u64,
    pub protocol: VhostUserProtocolFeatures,
    pub channel: Option<File>,
    pub inflight: Option<Arc<InflightTable>>,
    pub memory: MemoryTable,
    pub vrings: Vec<Vring>,
}

impl AdoptedSession {
    pub(super) fn new(
        state: SessionState,
        files: &mut Files,
        queues: u16,
        offered: u64,
    ) -> Result<Self, AdoptError> {
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
pub(super) struct Files {
    pub rest: VecDeque<OwnedFd>,
    pub got: usize,
}

impl Files {
    pub(super) fn next(&mut self) -> Result<OwnedFd, AdoptError> {
        self.rest.pop_front().ok_or_else(|| self.wrong())
    }

    fn next_if(&mut self, there: bool) -> Result<Option<File>, AdoptError> {
        there.then(|| self.next().map(File::from)).transpose()
    }

    pub(super) fn wrong(&self) -> AdoptError {
        AdoptError::Descriptors { got: self.got }
    }
}

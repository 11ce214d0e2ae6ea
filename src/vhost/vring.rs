//! What the frontend has said of one virtqueue, and the worker that serves it when all has been said.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::features::DriverFeatures;
use super::inflight::InflightTable;
use super::memory::MemoryTable;
use super::rate_limit::EventLimits;
use super::status::{QueueHealth, QueueView};
use super::tuning::Tuning;
use super::worker::{StartError, WorkerHandle, WorkerSetup, tell_broken};
use crate::barrier::Barrier;
use crate::disk::Disk;
use crate::io::Crew;
use crate::virtqueue::{RingBroken, RingSetup};

/// Addresses of a virtqueue's parts, in the frontend's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserAddresses {
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl UserAddresses {
    /// Whether each is in a region.
    pub(super) fn are_in(&self, memory: &MemoryTable) -> bool {
        let parts = [self.descriptors, self.available, self.used];
        parts.iter().all(|part| memory.translate(*part).is_some())
    }
}

/// What all queues of a session have in common; and, but for the rights, all sessions of a disk.
#[derive(Clone)]
pub struct QueueContext {
    pub(crate) disk: Arc<Disk>,
    pub(super) barrier: Arc<Barrier>,
    pub(super) limits: Arc<EventLimits>,
    pub(super) tuning: Arc<Tuning>,
    pub(super) crew: Arc<Crew>,
    read_only: bool,
    /// Queues of the sessions before: this one's go on with the processors where those end.
    queues_before: usize,
}

impl QueueContext {
    /// For sessions of `disk`, whose workers are of the `crew` and come to rest at `barrier`.
    pub fn new(disk: Arc<Disk>, barrier: Arc<Barrier>, tuning: Tuning, crew: Crew) -> Self {
        QueueContext {
            disk,
            barrier,
            limits: Arc::default(),
            tuning: Arc::new(tuning),
            crew: Arc::new(crew),
            read_only: false,
            queues_before: 0,
        }
    }

    /// The context of one session: whether it may only read, and how many queues the sessions before it have.
    pub fn of_session(&self, read_only: bool, queues_before: usize) -> Self {
        QueueContext {
            read_only,
            queues_before,
            ..self.clone()
        }
    }

    /// Queues that can be served at a time, of all sessions.
    pub fn queues(&self) -> usize {
        self.crew.size()
    }

    /// Whether the session's writes are refused.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only || self.disk.is_read_only()
    }
}

/// A queue cannot be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum VringError {
    #[error("the ring's addresses are in no memory that the frontend has shared")]
    Untranslatable,
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the kick descriptor cannot be used")]
    Kick(#[source] std::io::Error),
}

/// The numbers of a virtqueue at rest, and which descriptors it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VringState {
    size: u16,
    addresses: Option<UserAddresses>,
    base: u16,
    enabled: bool,
    pub kick: bool,
    pub call: bool,
    pub error: bool,
}

/// One virtqueue. It runs when it is enabled and has addresses, memory and a kick descriptor.
#[derive(Default)]
pub(super) struct Vring {
    pub size: u16,
    pub addresses: Option<UserAddresses>,
    /// Next entry of the available ring, while no worker runs.
    pub base: u16,
    pub enabled: bool,
    kick: Option<File>,
    call: Option<File>,
    error: Option<File>,
    worker: Option<WorkerHandle>,
    /// Of the worker, or of the attempt to start one.
    health: Arc<QueueHealth>,
}

impl Vring {
    /// For the operator.
    pub(super) fn view(&self, memory: &MemoryTable) -> QueueView {
        let is_due = self.worker.is_none() && self.enabled && self.kick.is_some();
        QueueView {
            is_set_up: self.addresses.is_some(),
            is_outside: is_due && self.addresses.is_some_and(|addresses| !addresses.are_in(memory)),
            is_running: self.worker.is_some(),
            health: self.health.clone(),
        }
    }

    pub(super) fn set_kick(&mut self, kick: Option<File>) {
        self.kick = kick;
    }

    pub(super) fn set_error(&mut self, error: Option<File>) {
        self.error = error;
    }

    /// Replaces the call descriptor, also under a running worker. What was signalled to the old one may be lost, so
    /// the new one is signalled at once.
    pub(super) fn set_call(&mut self, call: Option<File>) -> std::io::Result<()> {
        if let Some(worker) = &self.worker {
            worker.set_call(call.as_ref())?;
        }
        self.call = call;
        Ok(())
    }

    /// Lets the worker, if any, finish what is in flight, and ends it.
    pub(super) fn pause(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.base = worker.stop();
            self.health = Arc::default();
        }
    }

    /// Starts a worker if there is none and everything is known.
    pub(super) fn resume(
        &mut self,
        index: usize,
        context: &QueueContext,
        memory: &MemoryTable,
        inflight: Option<&Arc<InflightTable>>,
        driver: DriverFeatures,
    ) -> Result<(), VringError> {
        if self.worker.is_some() || !self.enabled {
            return Ok(());
        }
        let (Some(addresses), Some(kick), Some(mapped)) = (self.addresses, &self.kick, memory.mapped())
        else {
            return Ok(());
        };
        let translate = |address| memory.translate(address).ok_or(VringError::Untranslatable);
        let ring = RingSetup {
            size: self.size,
            descriptors: translate(addresses.descriptors)?,
            available: translate(addresses.available)?,
            used: translate(addresses.used)?,
            next_available: self.base,
            event_idx: driver.event_idx,
        };
        let error = self
            .error
            .as_ref()
            .map(File::try_clone)
            .transpose()
            .map_err(VringError::Kick)?;
        self.health = Arc::default();
        let setup = WorkerSetup {
            index,
            health: self.health.clone(),
            ring,
            memory: mapped,
            inflight: inflight.cloned(),
            kick: kick.try_clone().map_err(VringError::Kick)?,
            error,
            crew: context.crew.clone(),
            disk: context.disk.clone(),
            barrier: context.barrier.clone(),
            limits: context.limits.clone(),
            tuning: context.tuning.clone(),
            read_only: context.is_read_only(),
            place: context.queues_before + index,
            driver,
        };
        match WorkerHandle::start(setup, self.call.as_ref()) {
            Ok(worker) => self.worker = Some(worker),
            Err(StartError::Ring(broken @ RingBroken::Inflight)) => {
                // The driver's or the frontend's fault, as when a ring breaks later.
                self.health.note_broken(broken);
                tell_broken(index, broken, self.error.as_ref(), &context.limits, &context.crew);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What a successor goes on with; the descriptors are added to `files` in the order kick, call, error.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn export(&self, files: &mut Vec<OwnedFd>) -> io::Result<VringState> {
        for file in [&self.kick, &self.call, &self.error].into_iter().flatten() {
            files.push(file.try_clone()?.into());
        }
        Ok(VringState {
            size: self.size,
            addresses: self.addresses,
            base: self.base,
            enabled: self.enabled,
            kick: self.kick.is_some(),
            call: self.call.is_some(),
            error: self.error.is_some(),
        })
    }

    /// A predecessor's, at rest.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn adopt(state: &VringState, [kick, call, error]: [Option<File>; 3]) -> io::Result<Self> {
        let mut vring = Vring::default();
        vring.size = state.size;
        vring.addresses = state.addresses;
        vring.base = state.base;
        vring.enabled = state.enabled;
        vring.set_kick(kick);
        vring.set_error(error);
        vring.set_call(call)?;
        Ok(vring)
    }

    /// Stops the ring (GET_VRING_BASE): drained, and not to be started before new descriptors come.
    pub(super) fn stop(&mut self) -> u16 {
        self.pause();
        self.kick = None;
        self.call = None;
        self.base
    }

    /// Back to the initial state (RESET_DEVICE), except for the descriptors of call and error, which a frontend may
    /// give only once.
    pub(super) fn reset(&mut self) {
        self.pause();
        self.size = 0;
        self.addresses = None;
        self.base = 0;
        self.enabled = false;
        self.kick = None;
    }
}

impl Drop for Vring {
    fn drop(&mut self) {
        self.pause();
    }
}

//! How a worker is started, and ended.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use sealblk_proto::locked::lock_this_stack;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::state::{Worker, WorkerSetup, tell_unrecorded};
use crate::io::{Engine, Hired, lock};
use crate::limits::BUFFER_BYTES;
use crate::virtqueue::{Ring, RingBroken};

/// A queue cannot be served.
#[derive(Debug, thiserror::Error)]
pub(in crate::vhost) enum StartError {
    #[error("the queue is unusable")]
    Ring(#[from] RingBroken),
    #[error("all threads of the process have a queue")]
    NoThread,
    #[error("the queue's thread or io_uring cannot be set up")]
    Io(#[from] io::Error),
}

/// A running worker. It must be stopped before guest memory goes.
pub(in crate::vhost) struct WorkerHandle {
    thread: Hired,
    /// Tells the next entry of the available ring when the worker has ended.
    ended: Receiver<u16>,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
}

impl WorkerHandle {
    /// Sets everything up and gives it to a thread. Interrupts go to `call`.
    pub(in crate::vhost) fn start(mut setup: WorkerSetup, call: Option<&File>) -> Result<Self, StartError> {
        let thread = setup.crew.hire().ok_or(StartError::NoThread)?;
        lock(thread.interrupter()).set(call)?;
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let stop = Arc::new(AtomicBool::new(false));
        let record = setup
            .inflight
            .as_ref()
            .and_then(|table| table.record(setup.index));
        let ring = Ring::new(&setup.ring, setup.memory.guest(), record)?;
        if setup.inflight.as_ref().is_some_and(|table| table.has_faulted()) {
            return Err(RingBroken::Inflight.into());
        }
        if setup.inflight.is_some() && !ring.is_recorded() {
            setup.health.note_unrecorded();
            tell_unrecorded(setup.index, ring.size(), &setup.limits);
            setup.inflight = None;
        }
        let membership = setup.barrier.join(&wake)?;
        let interrupter = thread.interrupter().clone();
        let (stopped, woken) = (stop.clone(), wake.clone());
        let (begun, beginning) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        // Each receiver waits for just this.
        thread.give(move |mut engine| {
            if let Err(error) = setup.prepare_thread(&mut engine) {
                let _ = begun.send(Err(error));
                return engine;
            }
            let _ = begun.send(Ok(()));
            let worker = Worker::new(setup, ring, engine, interrupter, membership, stopped, woken);
            let (engine, next_available) = worker.run();
            let _ = end.send(next_available);
            engine
        });
        let handle = WorkerHandle {
            thread,
            ended,
            stop,
            wake,
        };
        match beginning.recv() {
            Ok(begun) => begun.map(|()| handle).map_err(StartError::Io),
            Err(_) => handle.panic(),
        }
    }

    /// Interrupts go to `call` from now on. There is one at once: the driver may have waited for it meanwhile.
    ///
    /// # Errors
    /// The kernel's; then there are none from now on.
    pub(in crate::vhost) fn set_call(&self, call: Option<&File>) -> io::Result<()> {
        let mut interrupter = lock(self.thread.interrupter());
        interrupter.set(call)?;
        interrupter.signal()
    }

    /// Lets the worker finish what it has taken, and ends it. Returns the next entry of the available ring.
    /// Afterwards nothing here touches guest memory.
    pub(in crate::vhost) fn stop(self) -> u16 {
        self.stop.store(true, Ordering::SeqCst);
        // Fails only when the counter is full, and then the worker is being woken already.
        let _ = self.wake.write(1);
        match self.ended.recv() {
            Ok(next_available) => next_available,
            Err(_) => self.panic(),
        }
    }

    /// The thread has ended without a word.
    fn panic(self) -> ! {
        match self.thread.panic() {
            Some(panic) => std::panic::resume_unwind(panic),
            None => unreachable!("a thread ends by a panic only while it has work"),
        }
    }
}

impl WorkerSetup {
    /// To be called by the thread that is to serve the queue.
    fn prepare_thread(&self, engine: &mut Engine) -> io::Result<()> {
        self.tuning.pin(self.place)?;
        lock_this_stack()?;
        engine.equip(BUFFER_BYTES, self.disk.store().files())
    }
}

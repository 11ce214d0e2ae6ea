//! The end of the process.

use std::sync::mpsc;

use nix::sys::signal::{SigSet, Signal};
use sealblk::control::Ended;
use sealblk::limits::END_PATIENCE;
use sealblk::logging;
use sealblk::sandbox::{Kind, narrow};
use sealblk_proto::message::Failure;

/// Why the process ends.
pub(crate) enum End {
    Terminated,
    Commander(Ended),
}

/// The signals that end the process.
pub(crate) const ENDING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

/// All threads inherit the block. SIGHUP is never waited for: the kernel sends it when the KMS ends while this process is
/// stopped (setpgid(2), orphaned groups).
pub(crate) fn block_signals(signals: &[Signal]) -> Result<(), Failure> {
    let signals: SigSet = signals.iter().copied().collect();
    signals
        .thread_block()
        .map_err(|error| Failure::new("Signals", error.to_string()))
}

/// What the process waits for once it serves, and what keeps its end from taking for ever.
pub(crate) struct Ending {
    sender: mpsc::Sender<End>,
    receiver: mpsc::Receiver<End>,
    /// Whoever sends on it has the process end in any case.
    begun: mpsc::Sender<()>,
}

impl Ending {
    /// From here on SIGTERM and SIGINT, which are blocked, end the process: in order if that is soon, and in any case. They are
    /// waited for by a thread of their own.
    pub(crate) fn watch() -> Result<Self, Failure> {
        let signals: SigSet = ENDING.into_iter().collect();
        let (sender, receiver) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        spawn("end", Kind::Waiter, move || {
            if begins.recv().is_ok() {
                end_in_any_case();
            }
        })?;
        let (told, begins) = (sender.clone(), begun.clone());
        spawn("signals", Kind::Waiter, move || {
            while let Err(error) = signals.wait() {
                log::warn!("waiting for signals: {error}");
            }
            let _ = begins.send(());
            // The receiver is gone only when the process is ending for another reason.
            let _ = told.send(End::Terminated);
        })?;
        Ok(Ending {
            sender,
            receiver,
            begun,
        })
    }

    /// Waits for a signal, or for the end of `command`, which has a thread of its own. From then on the process ends in any
    /// case, and already from when `command` calls what it is given: its service has ended, and what is left to be done may wait
    /// for the medium.
    pub(crate) fn wait(
        self,
        command: impl FnOnce(&dyn Fn()) -> Ended + Send + 'static,
    ) -> Result<End, Failure> {
        let Ending {
            sender,
            receiver,
            begun,
        } = self;
        spawn("control", Kind::Control, move || {
            let begins = || {
                // Once is enough.
                let _ = begun.send(());
            };
            let ended = command(&begins);
            begins();
            let _ = sender.send(End::Commander(ended));
        })?;
        receiver
            .recv()
            .map_err(|error| Failure::new("Threads", error.to_string()))
    }
}

fn spawn(name: &str, kind: Kind, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            narrow(kind);
            work();
        })
        .map(|_| ())
        .map_err(|error| Failure::new("Threads", error.to_string()))
}

/// Ends the process if it has not ended by itself after [`END_PATIENCE`]: its medium does not answer. That is as a kill is:
/// the next process takes up what is in flight, and what was written is in the page cache.
fn end_in_any_case() {
    std::thread::sleep(END_PATIENCE);
    log::error!(
        "requests in flight, or the last sync, do not end: the storage does not answer. Ending without them"
    );
    logging::flush();
    std::process::exit(1);
}

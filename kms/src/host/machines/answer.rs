//! What a virtual machine answers, and why it may not.

use std::io;

use crate::error::Error;
use crate::limits;

/// A block device of a virtual machine that it can write to, and that is not known to lie elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// The device's file or device on the host, as the machine names it; if it names none, what it calls the device.
    pub(crate) path: String,
    /// The vhost-user socket, if that is what it is.
    pub(crate) vhost_socket: Option<String>,
}

/// A disk as a virtual machine is given it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// What the machine calls it: the disk's id, as in the arguments for its command line.
    pub(crate) id: String,
    /// The vhost-user socket.
    pub(crate) socket: String,
    pub(crate) queues: u16,
}

/// Why a virtual machine's devices are not known, or not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("it cannot be reached")]
    Unreachable(#[source] io::Error),
    #[error("its socket is not looked at")]
    NotLookedAt(#[source] Error),
    #[error("it is no socket")]
    NotASocket,
    #[error("no answer within {} s; QMP serves one client at a time", limits::MACHINE_TIME.as_secs())]
    Silent,
    #[error("no answer within {} s", limits::MACHINE_VERSION_TIME.as_secs())]
    SilentOnVersion,
    #[error("the connection broke")]
    Connection(#[source] io::Error),
    #[error("the connection was ended in the middle")]
    Ended,
    #[error("no answer within {} s; QMP serves one client at a time", limits::MACHINE_CHANGE_TIME.as_secs())]
    SilentOnChange,
    #[error("no free pcie-root-port that takes devices while it runs: start it with more of them")]
    NoRoom,
    #[error("it has a device {0} already")]
    Taken(String),
    #[error("its guest has not let go of the device within {} s", limits::UNPLUG_TIME.as_secs())]
    GuestSilent,
    #[error("the answer has more than {} bytes", limits::MACHINE_ANSWER_BYTES)]
    TooLarge,
    #[error("this is neither QMP nor the API of cloud-hypervisor")]
    Foreign,
    #[error("QMP refused: {0:?}")]
    Qmp(String),
    #[error("the answer is not understood")]
    Json(#[from] serde_json::Error),
    #[error("this is no HTTP")]
    Http(#[from] hyper::Error),
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("HTTP status {0}: {1:?}")]
    Refused(u16, String),
}

impl MachineError {
    /// Whether the machine has said no, so that nothing is left to be found out.
    pub(crate) fn is_refusal(&self) -> bool {
        use MachineError::*;
        matches!(self, Qmp(_) | Refused(..) | NoRoom | Taken(_))
    }
}

/// A machine's words, cut to what fits in a message.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(limits::MACHINE_WORD_CHARACTERS).collect()
}

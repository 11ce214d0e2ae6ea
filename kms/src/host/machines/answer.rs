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

/// Why a virtual machine's devices are not known.
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
}

/// A machine's words, cut to what fits in a message.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(limits::MACHINE_WORD_CHARACTERS).collect()
}

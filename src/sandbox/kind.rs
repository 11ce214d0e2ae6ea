//! The kinds of threads.

/// What runs in a thread: each kind has a list of its own. Those of threads that start others have all that these have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first thread.
    Main,
    /// Talks to the KMS.
    Control,
    /// Talks to a frontend.
    Session,
    /// Serves a queue.
    Queue,
    /// Works on a store beside the queues.
    Store,
    /// Copies.
    Copy,
    /// Waits, and tells others.
    Waiter,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] = [
        Kind::Main,
        Kind::Control,
        Kind::Session,
        Kind::Queue,
        Kind::Store,
        Kind::Copy,
        Kind::Waiter,
    ];
}

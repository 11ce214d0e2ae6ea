//! Who makes a call.

/// Who asks, as the kernel saw it, and for which account.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    /// Id of the request.
    pub(crate) request: String,
}

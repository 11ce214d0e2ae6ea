pub(crate) mod restart;
pub(crate) mod start;

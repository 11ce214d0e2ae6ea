pub(crate) mod register;
pub(crate) mod remove;
pub(crate) mod set;

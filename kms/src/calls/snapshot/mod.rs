pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod set;

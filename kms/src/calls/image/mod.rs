pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod set;
pub(crate) mod share;

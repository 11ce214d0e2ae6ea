pub(crate) mod create;
pub(crate) mod deletion;
pub(crate) mod enable;
pub(crate) mod import;
pub(crate) mod rewrap;
pub(crate) mod rotate;
pub(crate) mod set;

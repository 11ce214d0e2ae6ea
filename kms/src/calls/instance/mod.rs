pub(crate) mod register;
pub(crate) mod remove;
pub(crate) mod set;
pub(crate) mod system_disk;

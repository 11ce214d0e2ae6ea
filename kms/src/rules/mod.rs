pub(crate) mod available;
pub(crate) mod disk_kind;
pub(crate) mod gate;
pub(crate) mod profile;
pub(crate) mod source;

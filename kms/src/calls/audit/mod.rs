pub(crate) mod archive;
pub(crate) mod verify;

pub(crate) mod backup;
pub(crate) mod init;
pub(crate) mod restore;

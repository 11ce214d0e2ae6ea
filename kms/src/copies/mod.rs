pub(crate) mod chosen_file;
pub(crate) mod fresh;
pub(crate) mod image;
pub(crate) mod import_file;
pub(crate) mod job;

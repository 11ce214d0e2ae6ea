pub(crate) mod begin;
pub(crate) mod chosen_file;
pub(crate) mod export_file;
pub(crate) mod fresh;
pub(crate) mod import_file;
pub(crate) mod job;
pub(crate) mod process;
pub(crate) mod snapshot;

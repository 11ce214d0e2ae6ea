pub(crate) mod archive;

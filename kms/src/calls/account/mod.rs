pub(crate) mod credit;

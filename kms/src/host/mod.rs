pub(crate) mod aside;
pub(crate) mod backends;
pub(crate) mod foreign_format;
pub(crate) mod machines;
pub(crate) mod passed;
pub(crate) mod paths;
pub(crate) mod received;
pub(crate) mod store;

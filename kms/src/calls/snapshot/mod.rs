pub(crate) mod by_schedule;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod create_group;
pub(crate) mod delete;
pub(crate) mod schedule;
pub(crate) mod set;

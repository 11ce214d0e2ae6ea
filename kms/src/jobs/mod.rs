pub(crate) mod backup_to;
pub(crate) mod housekeeping;
pub(crate) mod key_work;

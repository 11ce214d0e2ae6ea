pub(crate) mod archived;
pub(crate) mod audit_passes;
pub(crate) mod audit_sinks;
pub(crate) mod backup_to;
pub(crate) mod bin;
pub(crate) mod housekeeping;
pub(crate) mod key_work;
pub(crate) mod rewrap;

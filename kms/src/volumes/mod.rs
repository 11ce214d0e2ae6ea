pub(crate) mod change;
pub(crate) mod commands;
pub(crate) mod machine_check;
pub(crate) mod on_full;
pub(crate) mod path;
pub(crate) mod reconcile;
pub(crate) mod report;
pub(crate) mod sweep;

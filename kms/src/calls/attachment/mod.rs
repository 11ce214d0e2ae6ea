pub(crate) mod attach;
pub(crate) mod detach;

pub(crate) mod attach;
pub(crate) mod detach;
pub(crate) mod socket_choice;

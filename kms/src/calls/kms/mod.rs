pub(crate) mod activate;
pub(crate) mod grant;
pub(crate) mod rotate_root;

//! The HTTP API: HTTP/1.1 with JSON over a Unix socket. Its objects are the crate `sealblk-api`.

mod admission;
mod body;
mod disk_routes;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod image_routes;
mod key_routes;
mod openapi;
pub mod passing;
mod request;
mod routes;
pub(crate) mod server;
pub(crate) mod shares;
mod snapshot_routes;

pub(crate) use sealblk_api as types;

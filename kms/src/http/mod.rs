//! The HTTP API: HTTP/1.1 with JSON over a Unix socket. Its objects are the crate `sealblk-api`.

pub(crate) mod admission;
pub(crate) mod body;
pub(crate) mod handler;
pub(crate) mod handlers;
pub(crate) mod openapi;
pub(crate) mod passing;
pub(crate) mod query;
pub(crate) mod routes;
pub(crate) mod server;
pub(crate) mod shares;

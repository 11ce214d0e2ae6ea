//! The HTTP API: HTTP/1.1 with JSON over a Unix socket.

mod body;
mod image_routes;
mod key_routes;
mod openapi;
mod routes;
pub(crate) mod server;
pub mod types;

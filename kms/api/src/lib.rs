//! The objects of the API: what the daemon sends and `sealctl -o json` prints.
//!
//! Field names are stable: other programs read them. Times are RFC 3339 in UTC; sizes are bytes.
//! [`calls`] lists the calls, and `docs/calls.md` has them as a table.
//!
//! `{key}`, `{disk}` … take an id or a name; `{snapshot}` an id, a name that only one disk's snapshot has, or
//! `DISK/NAME` (with `%2F`); `{image}` an id, a name, or `ACCOUNT/NAME` of one that is shared. Lists take
//! `?after=ID&limit=N` and give `next` where more follows.
//! `GET` of disks and attachments takes `?qemu_version=VERSION`, which QEMU the arguments are for.
//! `POST` on a list, which creates something, takes the header `Idempotency-Key`; `GET` of one disk, image, instance, key or
//! snapshot has an `ETag`, and their `PATCH` and `DELETE` take `If-Match`.
//! Any refusal or failure is an [`ApiError`] with a fitting status. Each answer to a request that can be read as HTTP has
//! its id in `X-Request-Id`.

#[cfg(feature = "arguments")]
pub mod arguments;
#[cfg(feature = "client")]
pub mod client;
pub mod limits;
#[cfg(feature = "client")]
pub mod passing;

mod account;
mod attachment;
mod audit;
mod backup;
pub mod call;
pub mod calls;
mod code;
mod disk;
mod frontend;
mod image;
mod instance;
mod key;
mod kms;
pub mod parameter;
mod role;
mod schedule;
mod snapshot;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use account::*;
pub use attachment::*;
pub use audit::*;
pub use backup::*;
pub use code::Code;
pub use disk::*;
pub use frontend::*;
pub use image::*;
pub use instance::*;
pub use key::*;
pub use kms::*;
pub use role::Role;
pub use schedule::*;
pub use snapshot::*;

/// An OpenAPI document.
pub type Document = serde_json::Value;

/// A refusal or failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// Stable, CamelCase: `LocalStorage`, `NotFound`, …
    pub code: String,
    /// Number of the rule that refused, such as `A03`; absent where no rule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A sentence that says what to do instead.
    pub message: String,
    /// Id of the request, as in the audit log and in the daemon's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

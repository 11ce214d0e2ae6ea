//! The processes that serve disks: started, given their store and key, kept serving. And the short-lived ones that do the
//! same work on disks that are not attached.

pub(crate) mod attend;
pub(crate) mod by_name;
pub(crate) mod child;
pub(crate) mod connection;
pub(crate) mod control_socket;
pub(crate) mod dial;
pub(crate) mod ending;
pub(crate) mod failures;
pub(crate) mod handover;
pub(crate) mod hold;
pub(crate) mod keeping;
pub(crate) mod listener;
pub(crate) mod maintained;
pub(crate) mod maintenance;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod sandbox;
pub(crate) mod served;
pub(crate) mod sessions;
pub(crate) mod shared;
pub(crate) mod states;
pub(crate) mod store_lock;
pub(crate) mod supervisor;
pub(crate) mod vhost_socket;
pub(crate) mod volume_lock;

pub(crate) use child::Program;
pub(crate) use connection::CommandError;
pub(crate) use failures::code_of;
pub(crate) use plan::{Disk, Plan, Service, SessionPlan, SourcePlan, StorePlace};
pub(crate) use served::{Phase, Tokens};
pub(crate) use shared::Shared;
pub(crate) use supervisor::{Status, Supervisor};
pub(crate) use volume_lock::{VolumeLock, VolumeLocks};

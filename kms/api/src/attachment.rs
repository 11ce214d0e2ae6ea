//! Attachments.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::frontend::{FrontendArguments, QemuVersion};

/// Attaches a disk to an instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Id or name.
    pub disk: String,
    /// Id or name.
    pub instance: String,
    /// Most virtqueues, 1 to 16; absent: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// The guest may only read.
    #[serde(default)]
    pub read_only: bool,
    /// Absolute path for the vhost-user socket; absent: one in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost_socket: Option<String>,
    /// `USER[:GROUP]`, names or numbers; absent: the daemon's default, or else the KMS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_owner: Option<String>,
    /// Octal text such as `0660`; absent: the daemon's default, or else `0600`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_mode: Option<String>,
    /// Absent: true. False: another supervisor starts sealblk, with [`Attachment::command`]. One process serves all
    /// attachments of a shared disk, so that the first decides.
    #[serde(default = "yes")]
    pub start: bool,
    /// Plugs the disk into the instance's virtual machine, which runs and whose socket is known. Refused where `start` is false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub plug: bool,
    /// Also if the store of a layered disk is older than it was, or was changed while the disk was detached: what is there now
    /// counts. After it was put back on purpose.
    #[serde(default, skip_serializing_if = "is_false")]
    pub accept_older: bool,
    /// The QEMU that the arguments in the answer are for, such as `7.2` or `10.0.13`. Absent: the one that runs, where the
    /// socket of the instance's virtual machine is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_version: Option<QemuVersion>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A disk's attachment to an instance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// `att-…`
    pub id: String,
    /// Same as the id.
    pub name: String,
    /// Same as the id.
    pub attachment: String,
    /// Id of the disk.
    pub disk: String,
    /// Its name.
    #[serde(default)]
    pub disk_name: String,
    /// What the guest reads as the disk's serial number, at whichever attachment.
    pub serial: String,
    /// Id of the instance.
    pub instance: String,
    /// Its name.
    #[serde(default)]
    pub instance_name: String,
    /// `starting`, `serving`, `waiting` (for another supervisor), `restarting`, or `error`: its process is ending, and waits for
    /// storage that does not answer.
    pub state: String,
    /// The vhost-user socket.
    pub socket: String,
    /// A path that leads to the socket of this disk at this instance, whatever the attachment. Null where the caller has chosen the
    /// socket's path, and where it would be too long or another attachment has it.
    #[serde(default)]
    pub named_socket: Option<String>,
    /// The serving process, if it runs.
    pub pid: Option<i32>,
    /// Most virtqueues.
    pub queues: u16,
    /// The guest may only read.
    pub read_only: bool,
    /// Whether it was plugged into a running virtual machine.
    #[serde(default)]
    pub plugged: bool,
    /// What its virtual machine needs. In lists no machine is asked for its version.
    #[serde(flatten)]
    pub arguments: FrontendArguments,
    /// The sealblk command for another supervisor, where `start` was false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// RFC 3339.
    pub created: String,
}

/// Attachments, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AttachmentList {
    /// The attachments.
    pub attachments: Vec<Attachment>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// All attachments of a disk, the oldest first: a shared disk has up to 16.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiskAttachments {
    /// The attachments.
    pub attachments: Vec<Attachment>,
}

/// Detaches a disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Id or name; if given, the disk must be attached to it. Of a shared disk that several have, it must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Also while a virtual machine is connected.
    #[serde(default)]
    pub force: bool,
    /// Takes the disk out of the instance's virtual machine first, if that runs and has it: its guest is asked, and waited for. A
    /// guest that does not answer keeps the disk, also with `force`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unplug: bool,
}

fn yes() -> bool {
    true
}

//! Instances.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::disk::{CreateDisk, Disk};

/// A registered instance (virtual machine).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// `ins-…`
    pub id: String,
    /// Unique in the account.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Declared to have local storage (rule A03).
    pub local_storage: bool,
    /// Declared to be bare metal (rule A04).
    pub bare_metal: bool,
    /// Socket of its virtual machine, which is asked at each attach of an encrypted disk (rule A03).
    pub vm_socket: Option<String>,
    /// The one device of its host that the virtual machine may write to.
    pub boot_disk: Option<String>,
    /// `UID[:GID]`: whose the vhost-user sockets of its disks are, where an attach does not say; null: as the daemon has it.
    #[serde(default)]
    pub socket_owner: Option<String>,
    /// Octal text: their mode, likewise.
    #[serde(default)]
    pub socket_mode: Option<String>,
    /// Id of the disk that came with it from an image and goes with it (rule I01).
    pub system_disk: Option<String>,
    /// Ids of the disks attached to it.
    pub disks: Vec<String>,
    /// Their names, in the same order.
    #[serde(default)]
    pub disk_names: Vec<String>,
    /// RFC 3339.
    pub created: String,
}

/// Instances, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InstanceList {
    /// The instances.
    pub instances: Vec<Instance>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Registers an instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterInstance {
    /// Unique in the account.
    pub name: String,
    /// Absent: the KMS's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// It has local storage.
    #[serde(default)]
    pub local_storage: bool,
    /// It is bare metal.
    #[serde(default)]
    pub bare_metal: bool,
    /// Absolute path of its virtual machine's socket: QMP, or the API of cloud-hypervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_socket: Option<String>,
    /// Absolute path of the file or device that the virtual machine boots from, on its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_disk: Option<String>,
    /// `USER[:GROUP]`, names or numbers: whose the vhost-user sockets of its disks are, where an attach does not say. Absent: as the
    /// daemon has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_owner: Option<String>,
    /// Octal text such as `0660`: their mode, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_mode: Option<String>,
    /// Disk to create with it from an image; it exists as long as the instance (rule I01).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_disk: Option<SystemDisk>,
    /// Disks to create with it, all or none (rule D11). Absent zones: the instance's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<CreateDisk>,
}

/// Changes an instance. What is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetInstance {
    /// Its new name, unique in the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it has local storage (rule A03).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_storage: Option<bool>,
    /// Whether it is bare metal (rule A04).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bare_metal: Option<bool>,
    /// Absolute path of its virtual machine's socket; null: none is known.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub vm_socket: Option<Option<String>>,
    /// Absolute path of its boot disk; null: it has none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub boot_disk: Option<Option<String>>,
    /// `USER[:GROUP]`: whose the sockets are of disks that are attached from now on; null: as the daemon has it.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub socket_owner: Option<Option<String>>,
    /// Octal text: their mode, likewise.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub socket_mode: Option<Option<String>>,
}

/// Tells null from what is not given.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The disk that an instance boots from. The profile says who decides whether it is encrypted: nobody, its image, or who asks
/// for it (rule I01).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemDisk {
    /// Id or name of the image that it begins as, `ACCOUNT/NAME` of one that is shared.
    pub image: String,
    /// Unique in the account; absent: the instance's with `-system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes; absent: the image's (rule I04).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Absent: as the image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Key to wrap its data key with; absent: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Absent: the image's; another one is refused unless the data is encrypted anew.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub disk_type: Option<String>,
}

/// A new instance, and the disks that were created with it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RegisteredInstance {
    /// The instance.
    #[serde(flatten)]
    pub instance: Instance,
    /// Its system disk, and its disks in the order in which they were asked for; none are attached yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_disks: Vec<Disk>,
}

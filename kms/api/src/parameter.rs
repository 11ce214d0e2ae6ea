//! Parameters in the query of a call.

use serde_json::{Value, json};
use utoipa::PartialSchema;

use crate::QemuVersion;
use crate::limits::{PAGE_DEFAULT, PAGE_MOST, RETENTION_DAYS_MOST};

/// A parameter in the query, which need not be given.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Before the `=`.
    pub name: &'static str,
    /// What it says.
    pub description: &'static str,
    /// JSON schema of its value.
    pub schema: fn() -> Value,
}

fn text() -> Value {
    json!({"type": "string"})
}

/// Where a list goes on.
pub const AFTER: Parameter = Parameter {
    name: "after",
    description: "`next` of the page before",
    schema: text,
};

/// Where the audit log goes on.
pub const AFTER_RECORD: Parameter = Parameter {
    name: "after",
    description: "Position of the record to go on after",
    schema: || json!({"type": "integer", "minimum": 0}),
};

/// Length of a page.
pub const LIMIT: Parameter = Parameter {
    name: "limit",
    description: "Most rows",
    schema: || json!({"type": "integer", "minimum": 1, "maximum": PAGE_MOST, "default": PAGE_DEFAULT}),
};

/// Which QEMU gets the arguments.
pub const QEMU_VERSION: Parameter = Parameter {
    name: "qemu_version",
    description: "The QEMU that the arguments in the answer are for",
    schema: || json!(QemuVersion::schema()),
};

/// Of which disk.
pub const DISK: Parameter = Parameter {
    name: "disk",
    description: "Id or name of the disk",
    schema: text,
};

/// Whether deleted disks are listed.
pub const DELETED: Parameter = Parameter {
    name: "deleted",
    description: "Lists the deleted disks that can be restored, and no others",
    schema: || json!({"type": "boolean", "default": false}),
};

/// How long a deleted disk is kept.
pub const RETENTION_DAYS: Parameter = Parameter {
    name: "retention_days",
    description: "Days for which the disk can be restored; 0: it goes at once, also out of the bin. Otherwise as the profile has it",
    schema: || json!({"type": "integer", "minimum": 0, "maximum": RETENTION_DAYS_MOST}),
};

/// Of which lineage.
pub const LINEAGE: Parameter = Parameter {
    name: "lineage",
    description: "Id of the lineage",
    schema: text,
};

/// What the audit log must go on from.
pub const HEAD: Parameter = Parameter {
    name: "head",
    description: "Head that was noted earlier, as `SEQ:HASH`",
    schema: || json!({"type": "string", "pattern": "^[0-9]{1,18}:[0-9a-f]{64}$"}),
};

/// Of which key.
pub const KEY: Parameter = Parameter {
    name: "key",
    description: "Id, name or alias of the key",
    schema: text,
};

/// Of which instance.
pub const INSTANCE: Parameter = Parameter {
    name: "instance",
    description: "Id or name of the instance",
    schema: text,
};

/// Of which request.
pub const REQUEST: Parameter = Parameter {
    name: "request",
    description: "Id of the request",
    schema: text,
};

/// Since when.
pub const SINCE: Parameter = Parameter {
    name: "since",
    description: "Time of the oldest record, RFC 3339",
    schema: || json!({"type": "string", "format": "date-time"}),
};

/// Until when.
pub const UNTIL: Parameter = Parameter {
    name: "until",
    description: "Time before which the newest record is, RFC 3339",
    schema: || json!({"type": "string", "format": "date-time"}),
};

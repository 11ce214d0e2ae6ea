//! THE list of calls. Router, role check, OpenAPI document, the table in `docs/calls.md`, idempotency, preconditions and meter are
//! made of it, and the daemon does not compile where a call's operation has another name in the audit log.
//!
//! A call is `Name(Body) -> Answer = SPEC;`, whose types are this crate's.

use crate::Role;
use crate::call::{Call, Spec, delete, get, patch, post};
use crate::parameter::{
    AFTER, AFTER_RECORD, DELETED, DISK, HEAD, INSTANCE, KEY, LIMIT, LINEAGE, QEMU_VERSION, REQUEST,
    RETENTION_DAYS, SINCE, UNTIL,
};

const SECURITY: &[Role] = &[Role::SecurityAdministrator];
const AUDITORS: &[Role] = &[Role::Auditor];
const ADMINS: &[Role] = &[Role::Admin];

/// A call of the list, with the names of its types.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Of the body's type; empty if there is none.
    pub body: &'static str,
    /// Of the answer's type.
    pub answer: &'static str,
    /// The rest.
    pub spec: Spec,
}

macro_rules! calls {
    ($dollar:tt $($name:ident($($body:ident)?) -> $answer:ident = $spec:expr;)*) => {
        $(
            #[doc = concat!("See [`Spec`]: `", stringify!($spec), "`.")]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl Call for $name {
                type Body = calls!(@body $($body)?);
                type Answer = crate::$answer;
                const SPEC: Spec = $spec;
            }
        )*

        /// Every call.
        pub const ALL: &[Listed] = &[$(Listed {
            body: concat!($(stringify!($body))?),
            answer: stringify!($answer),
            spec: $name::SPEC,
        }),*];

        /// Hands the names of all calls, each with a comma, to a macro.
        #[macro_export]
        macro_rules! for_each_call {
            ($dollar then:ident) => { $dollar then! { $($name,)* } };
        }
    };
    (@body) => { crate::call::Nothing };
    (@body $body:ident) => { crate::$body };
}

calls! { $
    ShowDocument() -> Document = get("/v1/openapi.json", "Gives this document");

    ShowKms() -> KmsStatus = get("/v1/kms", "Shows region, profile and state of the KMS");
    ActivateKms() -> KmsStatus =
        post("/v1/kms/activate", "Activates the KMS for the account", "kms.activate")
            .rules(&["K01"]).by(SECURITY);
    RotateRoot() -> KmsStatus =
        post("/v1/kms/rotate-root", "Puts all master keys under a new root key", "kms.rotate-root")
            .rules(&["K12"]).by(SECURITY);
    GrantKms() -> KmsStatus =
        post("/v1/kms/grant", "Grants the use of the keys to the disk service", "kms.grant")
            .rules(&["K02"]).by(SECURITY);
    RevokeKms() -> KmsStatus =
        post("/v1/kms/revoke", "Takes the grant back", "kms.revoke").rules(&["K02"]).by(SECURITY);
    ShowProfile() -> Profile = get("/v1/profile", "Shows the policy profile");

    ListAccounts() -> AccountList =
        get("/v1/accounts", "Lists accounts").by(&[Role::Admin, Role::Auditor]).paged();
    ShowAccount() -> Account =
        get("/v1/accounts/{account}", "Shows an account").by(&[Role::Admin, Role::Auditor]);
    CreditAccount(Credit) -> Account =
        post("/v1/accounts/{account}/credit", "Adds to an account's balance", "account.credit")
            .rules(&["M02"]).by(ADMINS);

    ListKeys() -> KeyList = get("/v1/keys", "Lists keys").paged();
    CreateKey(CreateKey) -> Key =
        post("/v1/keys", "Creates a key of the account's own", "key.create")
            .rules(&["K08"]).by(SECURITY).creates().idempotent();
    ShowKey() -> Key = get("/v1/keys/{key}", "Shows a key").tagged();
    SetKey(SetKey) -> Key =
        patch("/v1/keys/{key}", "Changes aliases and tags of a key", "key.set").rules(&["K08"]).by(SECURITY);
    EnableKey() -> Key =
        post("/v1/keys/{key}/enable", "Makes a key usable", "key.enable").rules(&["K11"]).by(SECURITY);
    DisableKey() -> Key =
        post("/v1/keys/{key}/disable", "Makes a key unusable", "key.disable").rules(&["K11"]).by(SECURITY);
    ScheduleDeletion(ScheduleDeletion) -> Key =
        post("/v1/keys/{key}/schedule-deletion", "Destroys a key after some days", "key.schedule-deletion")
            .rules(&["K11"]).by(SECURITY);
    CancelDeletion() -> Key =
        post(
            "/v1/keys/{key}/cancel-deletion",
            "Keeps a key that was going to be destroyed",
            "key.cancel-deletion",
        ).rules(&["K11"]).by(SECURITY);
    RotateKey() -> Key =
        post("/v1/keys/{key}/rotate", "Gives a key a new version", "key.rotate").rules(&["K12"]).by(SECURITY);
    ShowRewrapping() -> Rewrapping =
        get("/v1/keys/{key}/rewrap", "Shows how far the rewrapping is").rules(&["K12"]);
    RewrapKey() -> Rewrapping =
        post("/v1/keys/{key}/rewrap", "Goes on with the rewrapping", "key.rewrap")
            .rules(&["K12"]).by(SECURITY);
    AskImport() -> ImportParams =
        post(
            "/v1/keys/{key}/import-params",
            "Gives what is needed to wrap a key's material for its import",
            "key.import-params",
        ).rules(&["K10"]).by(SECURITY);
    ImportKey(Import) -> Key =
        post("/v1/keys/{key}/import", "Imports a key's material", "key.import")
            .rules(&["K10"]).by(SECURITY).hides(&["import_token", "wrapped_material"]);
    ListResources() -> KeyResources =
        get("/v1/keys/{key}/resources", "Lists what a key protects").rules(&["K11"]).paged();

    ListInstances() -> InstanceList = get("/v1/instances", "Lists instances").paged();
    RegisterInstance(RegisterInstance) -> RegisteredInstance =
        post("/v1/instances", "Registers an instance, and creates disks with it", "instance.register")
            .rules(&["D11"]).creates().idempotent();
    ShowInstance() -> Instance = get("/v1/instances/{instance}", "Shows an instance").tagged();
    SetInstance(SetInstance) -> Instance =
        patch(
            "/v1/instances/{instance}",
            "Renames an instance, or declares something else of it",
            "instance.set",
        );
    RemoveInstance() -> Instance =
        delete("/v1/instances/{instance}", "Removes an instance", "instance.remove").matched();

    ListDisks() -> DiskList =
        get("/v1/disks", "Lists disks").asks(&[AFTER, LIMIT, QEMU_VERSION, DELETED]);
    CreateDisk(CreateDisk) -> Disk =
        post("/v1/disks", "Creates a disk", "disk.create").creates().idempotent().metered("create");
    ShowDisk() -> Disk = get("/v1/disks/{disk}", "Shows a disk").tagged().for_qemu();
    SetDisk(SetDisk) -> Disk = patch("/v1/disks/{disk}", "Renames a disk", "disk.set");
    DeleteDisk() -> Disk =
        delete("/v1/disks/{disk}", "Deletes a disk, which can be restored for some days", "disk.delete")
            .rules(&["K14"]).asks(&[RETENTION_DAYS]).matched();
    RestoreDisk(RestoreDisk) -> Disk =
        post("/v1/disks/{disk}/restore", "Restores a deleted disk", "disk.restore").rules(&["K14"]);
    ListDiskAttachments() -> DiskAttachments =
        get("/v1/disks/{disk}/attachments", "Lists all attachments of a disk").for_qemu();
    DetachDisk(Detach) -> Disk =
        post("/v1/disks/{disk}/detach", "Detaches a disk", "detach").metered("detach");
    RestartBackend() -> Disk =
        post("/v1/disks/{disk}/restart", "Replaces the process that serves a disk", "backend.restart");
    StartBackend() -> Disk =
        post(
            "/v1/disks/{disk}/start",
            "Has an attached disk served that is not since the catalogue was restored",
            "backend.start",
        );
    RollBackDisk(Rollback) -> Disk =
        post("/v1/disks/{disk}/rollback", "Makes a disk what one of its snapshots holds", "rollback")
            .rules(&["S03"]).metered("rollback");
    ReinitialiseDisk(Reinitialise) -> Disk =
        post("/v1/disks/{disk}/reinit", "Makes a disk empty", "disk.reinit")
            .rules(&["D07"]).metered("reinit");
    ResizeDisk(Resize) -> Disk =
        post("/v1/disks/{disk}/resize", "Makes a disk larger", "disk.resize").rules(&["D06"]);
    CheckDisk(Check) -> DiskCheck =
        post("/v1/disks/{disk}/check", "Examines the metadata of a disk's store", "disk.check");
    CopyDisk(CopyDisk) -> Disk =
        post("/v1/disks/{disk}/copy", "Begins to copy the disk's data to another disk", "disk.copy")
            .rules(&["D04"]).begins();
    CancelCopy() -> Disk =
        post(
            "/v1/disks/{disk}/copy/cancel",
            "Ends the copy of which the disk is the destination",
            "disk.copy.cancel",
        );
    ExportDisk(ExportDisk) -> Disk =
        post("/v1/disks/{disk}/export", "Begins to write the disk's data to a raw image file", "disk.export")
            .begins();
    ImportDisk(ImportDisk) -> Disk =
        post("/v1/imports", "Begins to read a new disk's data from an image file", "disk.import").begins();

    ListAttachments() -> AttachmentList = get("/v1/attachments", "Lists attachments").paged_for_qemu();
    AttachDisk(Attach) -> Attachment =
        post("/v1/attachments", "Attaches a disk to an instance", "attach")
            .creates().idempotent().metered("attach");
    ShowAttachment() -> Attachment = get("/v1/attachments/{attachment}", "Shows an attachment").for_qemu();

    ListSnapshots() -> SnapshotList =
        get("/v1/snapshots", "Lists snapshots, of one disk or of all").asks(&[AFTER, LIMIT, DISK]);
    CreateSnapshot(CreateSnapshot) -> Snapshot =
        post("/v1/snapshots", "Takes a snapshot of a disk", "snapshot.create")
            .rules(&["S04"]).creates().idempotent().metered("snapshot");
    ShowSnapshot() -> Snapshot = get("/v1/snapshots/{snapshot}", "Shows a snapshot").tagged();
    SetSnapshot(SetSnapshot) -> Snapshot =
        patch("/v1/snapshots/{snapshot}", "Renames a snapshot", "snapshot.set");
    DeleteSnapshot() -> Snapshot =
        delete("/v1/snapshots/{snapshot}", "Deletes a snapshot", "snapshot.delete").matched();
    CopySnapshot(CopySnapshot) -> Snapshot =
        post(
            "/v1/snapshots/{snapshot}/copy",
            "Is refused: no other region's service is known",
            "snapshot.copy",
        ).rules(&["S06"]);

    CreateSnapshotGroup(CreateSnapshotGroup) -> SnapshotGroup =
        post(
            "/v1/instances/{instance}/snapshots",
            "Takes snapshots of all disks of an instance as of one moment, or none",
            "snapshot.create-group",
        ).rules(&["S04"]).creates();
    ListSchedules() -> ScheduleList =
        get("/v1/snapshot-schedules", "Lists the schedules by which snapshots are taken").paged();
    ScheduleSnapshots(ScheduleSnapshots) -> Schedule =
        post(
            "/v1/disks/{disk}/snapshot-schedule",
            "Has snapshots of a disk taken at intervals, and the oldest of these deleted",
            "snapshot.schedule",
        ).rules(&["S04"]);
    UnscheduleSnapshots() -> Schedule =
        delete("/v1/disks/{disk}/snapshot-schedule", "Ends a disk's schedule of snapshots", "snapshot.unschedule");

    ListImages() -> ImageList =
        get("/v1/images", "Lists images: the account's, and those shared with it")
            .asks(&[AFTER, LIMIT, LINEAGE]);
    CreateImage(CreateImage) -> Image =
        post("/v1/images", "Makes an image of a snapshot or of a disk", "image.create")
            .creates().idempotent();
    ShowImage() -> Image = get("/v1/images/{image}", "Shows an image").tagged();
    SetImage(SetImage) -> Image =
        patch("/v1/images/{image}", "Renames an image", "image.set").rules(&["I02"]);
    DeleteImage() -> Image =
        delete("/v1/images/{image}", "Deletes an image", "image.delete").rules(&["S07"]).matched();
    ShareImage(ShareImage) -> Image =
        post("/v1/images/{image}/share", "Shares a plain image with an account", "image.share")
            .rules(&["I05"]);
    UnshareImage(ShareImage) -> Image =
        post("/v1/images/{image}/unshare", "Ends the sharing with an account", "image.unshare");
    CopyImage(CopyImage) -> Image =
        post(
            "/v1/images/{image}/copy",
            "Copies a plain image as an encrypted one; to another region it is refused",
            "image.copy",
        ).rules(&["I01", "I06"]).creates();
    ExportImage(ExportImage) -> Image =
        post(
            "/v1/images/{image}/export",
            "Begins to write an image to a raw image file, which is refused if it is encrypted",
            "image.export",
        ).rules(&["I07"]).begins();
    CancelExport() -> Image =
        post(
            "/v1/images/{image}/export/cancel",
            "Ends the writing of an image to a file",
            "image.export.cancel",
        );
    ImportImage(ImportImage) -> Image =
        post(
            "/v1/imports/images",
            "Begins to make an image of an image file, encrypted or not",
            "image.import",
        ).rules(&["I01"]).begins();

    ListBackups() -> BackupList = get("/v1/backups", "Lists backups of disks").paged();
    CreateBackup(CreateBackup) -> Backup =
        post("/v1/backups", "Begins to make a backup of a disk or of a snapshot", "backup.create")
            .rules(&["I03"]).begins();
    ShowBackup() -> Backup = get("/v1/backups/{backup}", "Shows a backup");
    DeleteBackup() -> Backup =
        delete("/v1/backups/{backup}", "Deletes a backup", "backup.delete").rules(&["K14"]);
    RestoreBackup(RestoreBackup) -> Disk =
        post(
            "/v1/backups/{backup}/restore",
            "Begins to restore a backup to a new disk, encrypted or not",
            "backup.restore",
        ).rules(&["I03", "I04", "D10"]).begins();

    ShowUsage() -> Usage = get("/v1/usage", "Shows metered calls, by month, and the balance").rules(&["M01"]);
    ListRecords() -> AuditPage =
        get("/v1/audit", "Lists records of the audit log")
            .rules(&["M04"]).by(AUDITORS)
            .asks(&[AFTER_RECORD, LIMIT, DISK, KEY, INSTANCE, REQUEST, SINCE, UNTIL]);
    VerifyAudit() -> AuditHead =
        get("/v1/audit/verify", "Recomputes the audit log of all accounts")
            .rules(&["M04"]).by(AUDITORS).asks(&[HEAD]);
    ListRecordsOfAll() -> AuditPage =
        get("/v1/audit/archive", "Lists records of the audit log of all accounts, for an archive")
            .rules(&["M04"]).by(SECURITY).asks(&[AFTER_RECORD, LIMIT]);
    ArchiveAudit(ArchiveAudit) -> AuditHead =
        post(
            "/v1/audit/archive",
            "Removes the oldest records of the audit log, which were archived",
            "audit.archive",
        ).rules(&["M04"]).by(SECURITY);
}

/// As what the operation of this name in the audit log counts for an encrypted disk (rule M01), if it does.
#[must_use]
pub fn meter(audit: &str) -> Option<&'static str> {
    let call = ALL.iter().find(|call| call.spec.audit == Some(audit));
    call.and_then(|call| call.spec.meter)
}

#[cfg(test)]
mod tests;

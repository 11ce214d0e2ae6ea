//! What the daemon does for each call.

use super::handler::{creates, reads, runs};
use super::{openapi, types};
use crate::error::Error;
use crate::operation::account_credit::Credit;
use crate::operation::audit_archive::{self, Archive};
use crate::operation::backend_restart::RestartBackend;
use crate::operation::backend_start::StartBackend;
use crate::operation::backup_delete::DeleteBackup;
use crate::operation::backup_restore::RestoreBackup;
use crate::operation::chosen_file::Chosen;
use crate::operation::disk_copy::{CancelCopy, CopyDisk};
use crate::operation::disk_delete::DeleteDisk;
use crate::operation::disk_export::ExportDisk;
use crate::operation::disk_import::ImportDisk;
use crate::operation::image_copy::CopyImage;
use crate::operation::image_delete::DeleteImage;
use crate::operation::image_export::{CancelExport, ExportImage};
use crate::operation::image_import::ImportImage;
use crate::operation::image_set::SetImage;
use crate::operation::image_share::{ShareImage, UnshareImage};
use crate::operation::instance_remove::RemoveInstance;
use crate::operation::instance_set::SetInstance;
use crate::operation::key_deletion::{CancelDeletion, ScheduleDeletion};
use crate::operation::key_enable::{Disable, Enable};
use crate::operation::key_import::{AskImport, Import};
use crate::operation::key_rewrap::{self, Rewrap};
use crate::operation::key_rotate::Rotate;
use crate::operation::key_set::SetKey;
use crate::operation::kms_activate::Activate;
use crate::operation::kms_grant::{Grant, Revoke};
use crate::operation::root_rotate::RotateRoot;
use crate::operation::snapshot_copy::CopySnapshot;
use crate::operation::snapshot_delete::DeleteSnapshot;
use crate::operation::{
    account_show, attachment_show, audit_verify, backup_show, detach, disk_check, disk_reinit, disk_resize,
    disk_set, disk_show, image_show, instance_show, key_resources, key_show, kms_status, rollback,
    snapshot_set, snapshot_show, usage_show,
};

reads! {
    ShowDocument: |_, _| std::future::ready(Ok::<_, Error>(openapi::DOCUMENT.clone()));

    ShowKms: |to, _| kms_status::kms_status(&to.kms, &to.caller);
    ShowProfile: |to, _| std::future::ready(Ok::<_, Error>(types::Profile::from(to.kms.profile)));

    ListAccounts: |to, asked| account_show::list(&to.kms, &to.caller, &asked.query.page());
    ShowAccount: |to, asked| account_show::show(&to.kms, &to.caller, &asked.object);

    ListKeys: |to, asked| key_show::list(&to.kms, &to.caller, &asked.query.page());
    ShowKey: |to, asked| key_show::show(&to.kms, &to.caller, &asked.object);
    ShowRewrapping: |to, asked| key_rewrap::status(&to.kms, &to.caller, &asked.object);
    ListResources: |to, asked| key_resources::list(&to.kms, &to.caller, &asked.object, &asked.query.page());

    ListInstances: |to, asked| instance_show::list(&to.kms, &to.caller, &asked.query.page());
    ShowInstance: |to, asked| instance_show::show(&to.kms, &to.caller, &asked.object);

    ListDisks: |to, asked| disk_show::list(&to.kms, &to.caller, &asked.query.page(), asked.query.qemu_version);
    ShowDisk: |to, asked| disk_show::show(&to.kms, &to.caller, &asked.object, asked.query.qemu_version);

    ListAttachments: |to, asked| attachment_show::list(&to.kms, &to.caller, &asked.query.page(), asked.query.qemu_version);
    ShowAttachment: |to, asked| attachment_show::show(&to.kms, &to.caller, &asked.object, asked.query.qemu_version);

    ListSnapshots: |to, asked| snapshot_show::list(&to.kms, &to.caller, asked.query.text("disk"), &asked.query.page());
    ShowSnapshot: |to, asked| snapshot_show::show(&to.kms, &to.caller, &asked.object);

    ListImages: |to, asked| image_show::list(&to.kms, &to.caller, asked.query.text("lineage"), &asked.query.page());
    ShowImage: |to, asked| image_show::show(&to.kms, &to.caller, &asked.object);

    ListBackups: |to, asked| backup_show::list(&to.kms, &to.caller, &asked.query.page());
    ShowBackup: |to, asked| backup_show::show(&to.kms, &to.caller, &asked.object);

    ShowUsage: |to, _| usage_show::usage(&to.kms, &to.caller);
    ListRecords: |to, asked| usage_show::audit(&to.kms, &to.caller, asked.query.after_record()?, asked.query.limit);
    VerifyAudit: |to, asked| audit_verify::verify(&to.kms, asked.query.text("head"));
    ListRecordsOfAll: |to, asked| audit_archive::page(&to.kms, &to.caller, asked.query.after_record()?, asked.query.limit);
}

creates! {
    CreateKey,
    RegisterInstance,
    CreateDisk,
    AttachDisk,
    CreateSnapshot,
    CreateImage,
}

runs! {
    ActivateKms: |_| Activate;
    RotateRoot: |_| RotateRoot::default();
    GrantKms: |_| Grant;
    RevokeKms: |_| Revoke;

    CreditAccount: |asked| Credit { account: asked.object, options: asked.body };

    SetKey: |asked| SetKey { key: asked.object, options: asked.body };
    EnableKey: |asked| Enable { key: asked.object };
    DisableKey: |asked| Disable { key: asked.object };
    ScheduleDeletion: |asked| ScheduleDeletion { key: asked.object, options: asked.body };
    CancelDeletion: |asked| CancelDeletion { key: asked.object };
    RotateKey: |asked| Rotate { key: asked.object };
    RewrapKey: |asked| Rewrap { key: asked.object };
    AskImport: |asked| AskImport { key: asked.object };
    ImportKey: |asked| Import { key: asked.object, options: asked.body, opened: None };

    SetInstance: |asked| SetInstance { instance: asked.object, options: asked.body };
    RemoveInstance: |asked| RemoveInstance { instance: asked.object };

    SetDisk: |asked| disk_set::SetDisk { disk: asked.object, options: asked.body };
    DeleteDisk: |asked| DeleteDisk { disk: asked.object };
    DetachDisk: |asked| detach::Detach { disk: asked.object, options: asked.body };
    RestartBackend: |asked| RestartBackend { disk: asked.object };
    StartBackend: |asked| StartBackend { disk: asked.object };
    RollBackDisk: |asked| rollback::Rollback { disk: asked.object, options: asked.body };
    ReinitialiseDisk: |asked| disk_reinit::Reinitialise { disk: asked.object, options: asked.body };
    ResizeDisk: |asked| disk_resize::Resize { disk: asked.object, options: asked.body };
    CheckDisk: |asked| disk_check::Check { disk: asked.object, options: asked.body };
    CopyDisk: |asked| CopyDisk { disk: asked.object, options: asked.body };
    CancelCopy: |asked| CancelCopy { disk: asked.object };
    ExportDisk: |asked| {
        let to = Chosen::new(&asked.body.file, asked.body.descriptor, &asked.passed)?;
        ExportDisk::new(asked.object, asked.body, to)
    };
    ImportDisk: |asked| {
        let from = Chosen::new(&asked.body.file, asked.body.descriptor, &asked.passed)?;
        ImportDisk::new(asked.body, from)
    };

    SetSnapshot: |asked| snapshot_set::SetSnapshot { snapshot: asked.object, options: asked.body };
    DeleteSnapshot: |asked| DeleteSnapshot { snapshot: asked.object };
    CopySnapshot: |asked| CopySnapshot { snapshot: asked.object, options: asked.body };

    SetImage: |asked| SetImage { image: asked.object, options: asked.body };
    DeleteImage: |asked| DeleteImage { image: asked.object };
    ShareImage: |asked| ShareImage { image: asked.object, options: asked.body };
    UnshareImage: |asked| UnshareImage { image: asked.object, options: asked.body };
    CopyImage: |asked| CopyImage { image: asked.object, options: asked.body };
    ExportImage: |asked| {
        let to = Chosen::new(&asked.body.path, asked.body.descriptor, &asked.passed)?;
        ExportImage::new(asked.object, asked.body, to)
    };
    CancelExport: |asked| CancelExport { image: asked.object };
    ImportImage: |asked| {
        let from = Chosen::new(&asked.body.file, asked.body.descriptor, &asked.passed)?;
        ImportImage::new(asked.body, from)
    };

    CreateBackup: |asked| asked.body;
    RestoreBackup: |asked| RestoreBackup { backup: asked.object, disk: asked.body.disk };
    DeleteBackup: |asked| DeleteBackup { backup: asked.object };

    ArchiveAudit: |asked| Archive::new(&asked.body)?;
}

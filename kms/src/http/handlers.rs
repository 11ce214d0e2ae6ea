//! What the daemon does for each call.

use super::handler::{creates, reads, runs};
use super::openapi;
use crate::calls::account::credit::Credit;
use crate::calls::attachment::detach;
use crate::calls::audit;
use crate::calls::audit::archive::Archive;
use crate::calls::backend::restart::RestartBackend;
use crate::calls::backend::start::StartBackend;
use crate::calls::backup::delete::DeleteBackup;
use crate::calls::backup::restore::RestoreBackup;
use crate::calls::disk::copy::{CancelCopy, CopyDisk};
use crate::calls::disk::delete::DeleteDisk;
use crate::calls::disk::export::ExportDisk;
use crate::calls::disk::import::ImportDisk;
use crate::calls::disk::restore::RestoreDisk;
use crate::calls::disk::{self, rollback};
use crate::calls::image::copy::CopyImage;
use crate::calls::image::delete::DeleteImage;
use crate::calls::image::export::{CancelExport, ExportImage};
use crate::calls::image::import::ImportImage;
use crate::calls::image::set::SetImage;
use crate::calls::image::share::{ShareImage, UnshareImage};
use crate::calls::instance::remove::RemoveInstance;
use crate::calls::instance::set::SetInstance;
use crate::calls::key::deletion::{CancelDeletion, ScheduleDeletion};
use crate::calls::key::enable::{Disable, Enable};
use crate::calls::key::import::{AskImport, Import};
use crate::calls::key::rewrap::Rewrap;
use crate::calls::key::rotate::Rotate;
use crate::calls::key::set::SetKey;
use crate::calls::kms::activate::Activate;
use crate::calls::kms::grant::{Grant, Revoke};
use crate::calls::kms::rotate_root::RotateRoot;
use crate::calls::snapshot;
use crate::calls::snapshot::copy::CopySnapshot;
use crate::calls::snapshot::delete::DeleteSnapshot;
use crate::copies::chosen_file::Chosen;
use crate::error::Error;
use crate::jobs::audit_passes;
use crate::views::{self, key_resources};

reads! {
    ShowDocument: |_, _| std::future::ready(Ok::<_, Error>(openapi::DOCUMENT.clone()));

    ShowKms: |to, _| views::kms::kms_status(&to.kms, &to.caller);
    ShowProfile: |to, _| std::future::ready(Ok::<_, Error>(sealblk_api::Profile::from(to.kms.profile)));

    ListAccounts: |to, asked| views::account::list(&to.kms, &to.caller, &asked.query.page());
    ShowAccount: |to, asked| views::account::show(&to.kms, &to.caller, &asked.object);

    ListKeys: |to, asked| views::key::list(&to.kms, &to.caller, &asked.query.page());
    ShowKey: |to, asked| views::key::show(&to.kms, &to.caller, &asked.object);
    ShowRewrapping: |to, asked| views::key::rewrapping(&to.kms, &to.caller, &asked.object);
    ListResources: |to, asked| key_resources::list(&to.kms, &to.caller, &asked.object, &asked.query.page());

    ListInstances: |to, asked| views::instance::list(&to.kms, &to.caller, &asked.query.page());
    ShowInstance: |to, asked| views::instance::show(&to.kms, &to.caller, &asked.object);

    ListDisks: |to, asked| async {
        match asked.query.deleted()? {
            true => views::bin::list(&to.kms, &to.caller, &asked.query.page()).await,
            false => views::disk::list(&to.kms, &to.caller, &asked.query.page(), asked.query.qemu_version).await,
        }
    };
    ShowDisk: |to, asked| views::disk::show(&to.kms, &to.caller, &asked.object, asked.query.qemu_version);

    ListAttachments: |to, asked| views::attachment::list(&to.kms, &to.caller, &asked.query.page(), asked.query.qemu_version);
    ShowAttachment: |to, asked| views::attachment::show(&to.kms, &to.caller, &asked.object, asked.query.qemu_version);
    ListDiskAttachments: |to, asked| views::attachment::of_disk(&to.kms, &to.caller, &asked.object, asked.query.qemu_version);

    ListSnapshots: |to, asked| views::snapshot::list(&to.kms, &to.caller, asked.query.text("disk"), &asked.query.page());
    ShowSnapshot: |to, asked| views::snapshot::show(&to.kms, &to.caller, &asked.object);

    ListSchedules: |to, asked| views::schedule::list(&to.kms, &to.caller, &asked.query.page());

    ListImages: |to, asked| views::image::list(&to.kms, &to.caller, asked.query.text("lineage"), &asked.query.page());
    ShowImage: |to, asked| views::image::show(&to.kms, &to.caller, &asked.object);

    ListBackups: |to, asked| views::backup::list(&to.kms, &to.caller, &asked.query.page());
    ShowBackup: |to, asked| views::backup::show(&to.kms, &to.caller, &asked.object);

    ShowUsage: |to, _| views::usage::usage(&to.kms, &to.caller);
    ListRecords: |to, asked| views::usage::audit(&to.kms, &to.caller, asked.query.records()?);
    VerifyAudit: |to, asked| audit_passes::verify(&to.kms, &to.caller.account, asked.query.text("head"));
    ListRecordsOfAll: |to, asked| audit::archive::page(&to.kms, &to.caller, asked.query.after_record()?, asked.query.limit);
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

    SetDisk: |asked| disk::set::SetDisk { disk: asked.object, options: asked.body };
    DeleteDisk: |asked| DeleteDisk::new(asked.object, asked.query.retention_days()?);
    RestoreDisk: |asked| RestoreDisk { disk: asked.object, options: asked.body };
    DetachDisk: |asked| detach::Detach { disk: asked.object, options: asked.body };
    RestartBackend: |asked| RestartBackend { disk: asked.object };
    StartBackend: |asked| StartBackend { disk: asked.object };
    RollBackDisk: |asked| rollback::Rollback { disk: asked.object, options: asked.body };
    ReinitialiseDisk: |asked| disk::reinit::Reinitialise { disk: asked.object, options: asked.body };
    ResizeDisk: |asked| disk::resize::Resize { disk: asked.object, options: asked.body };
    CheckDisk: |asked| disk::check::Check { disk: asked.object, options: asked.body };
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

    SetSnapshot: |asked| snapshot::set::SetSnapshot { snapshot: asked.object, options: asked.body };
    DeleteSnapshot: |asked| DeleteSnapshot { snapshot: asked.object };
    CopySnapshot: |asked| CopySnapshot { snapshot: asked.object, options: asked.body };

    CreateSnapshotGroup: |asked| snapshot::create_group::CreateSnapshotGroup { instance: asked.object, options: asked.body };
    ScheduleSnapshots: |asked| snapshot::schedule::ScheduleSnapshots { disk: asked.object, options: asked.body };
    UnscheduleSnapshots: |asked| snapshot::schedule::UnscheduleSnapshots { disk: asked.object };

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

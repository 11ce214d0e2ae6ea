//! The calls on disks, their attachments and their backups.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};

use super::body;
use super::passing::Slot;
use super::request::{
    ForQemu, IfMatch, Kept, Nothing, Paging, PagingForQemu, Wanted, change, ok, run_body, tag, tagged,
};
use super::types::{self, Attach, Check, CreateDisk, Detach, Reinitialise, Resize, Rollback};
use crate::audit::Caller;
use crate::error::Result;
use crate::operation::backend_restart::RestartBackend;
use crate::operation::backend_start::StartBackend;
use crate::operation::backup_delete::DeleteBackup;
use crate::operation::backup_restore::RestoreBackup;
use crate::operation::chosen_file::Chosen;
use crate::operation::disk_copy::{CancelCopy, CopyDisk};
use crate::operation::disk_delete::DeleteDisk;
use crate::operation::disk_export::ExportDisk;
use crate::operation::disk_import::ImportDisk;
use crate::operation::matching::Tagged;
use crate::operation::{
    Kms, attachment_show, backup_show, detach, disk_check, disk_reinit, disk_resize, disk_set, disk_show,
    rollback, run,
};

/// Their routes.
pub(super) fn router() -> Router<Arc<Kms>> {
    Router::new()
        .route("/v1/disks", get(disks).post(create_disk))
        .route("/v1/disks/{disk}", get(disk).patch(set_disk).delete(delete_disk))
        .route("/v1/disks/{disk}/detach", post(detach_disk))
        .route("/v1/disks/{disk}/restart", post(restart_backend))
        .route("/v1/disks/{disk}/start", post(start_backend))
        .route("/v1/disks/{disk}/rollback", post(rollback_disk))
        .route("/v1/disks/{disk}/reinit", post(reinit_disk))
        .route("/v1/disks/{disk}/resize", post(resize_disk))
        .route("/v1/disks/{disk}/copy", post(copy_disk))
        .route("/v1/disks/{disk}/copy/cancel", post(cancel_copy))
        .route("/v1/disks/{disk}/export", post(export_disk))
        .route("/v1/imports", post(import_disk))
        .route("/v1/backups", get(backups).post(create_backup))
        .route("/v1/backups/{backup}", get(backup).delete(delete_backup))
        .route("/v1/backups/{backup}/restore", post(restore_backup))
        .route("/v1/disks/{disk}/check", post(check_disk))
        .route("/v1/attachments", get(attachments).post(attach))
        .route("/v1/attachments/{attachment}", get(attachment))
}

async fn disks(State(kms): Kept, caller: Caller, asked: PagingForQemu) -> Result<Response> {
    let PagingForQemu(paging, qemu) = asked;
    Ok(ok(&disk_show::list(&kms, &caller, &paging.into(), qemu).await?))
}

async fn disk(State(kms): Kept, caller: Caller, wanted: Wanted, ForQemu(qemu): ForQemu) -> Result<Response> {
    let tag = tag(&kms, &caller, Tagged::Disk, &wanted.0).await?;
    let disk = disk_show::show(&kms, &caller, &wanted.0, qemu).await?;
    Ok(tagged(&tag, &disk))
}

async fn create_disk(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<CreateDisk>(&kms, caller, request).await
}

async fn delete_disk(State(kms): Kept, caller: Caller, tags: IfMatch, wanted: Wanted) -> Result<Response> {
    let disk = wanted.0;
    change(&kms, caller, tags, DeleteDisk { disk }).await
}

async fn attach(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<Attach>(&kms, caller, request).await
}

async fn attachments(State(kms): Kept, caller: Caller, asked: PagingForQemu) -> Result<Response> {
    let PagingForQemu(paging, qemu) = asked;
    let list = attachment_show::list(&kms, &caller, &paging.into(), qemu).await?;
    Ok(ok(&list))
}

async fn attachment(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    ForQemu(qemu): ForQemu,
) -> Result<Response> {
    let attachment = attachment_show::show(&kms, &caller, &wanted.0, qemu).await?;
    Ok(ok(&attachment))
}

async fn detach_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Detach = body::read(request).await?;
    Ok(ok(&run(
        &kms,
        caller,
        detach::Detach {
            disk: wanted.0,
            options,
        },
    )
    .await?))
}

async fn restart_backend(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, RestartBackend { disk }).await?))
}

async fn start_backend(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, StartBackend { disk }).await?))
}

async fn rollback_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Rollback = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, rollback::Rollback { disk, options }).await?))
}

async fn reinit_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Reinitialise = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(
        &kms,
        caller,
        disk_reinit::Reinitialise { disk, options },
    )
    .await?))
}

async fn resize_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Resize = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(
        &run(&kms, caller, disk_resize::Resize { disk, options }).await?
    ))
}

async fn copy_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: types::CopyDisk = body::read(request).await?;
    let disk = wanted.0;
    let begun = run(&kms, caller, CopyDisk { disk, options }).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn export_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    came: Slot,
    request: Request<Body>,
) -> Result<Response> {
    let options: types::ExportDisk = body::read(request).await?;
    let to = Chosen::new(&options.file, options.descriptor, &came)?;
    let begun = run(&kms, caller, ExportDisk::new(wanted.0, options, to)).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn import_disk(
    State(kms): Kept,
    caller: Caller,
    came: Slot,
    request: Request<Body>,
) -> Result<Response> {
    let wanted: types::ImportDisk = body::read(request).await?;
    let from = Chosen::new(&wanted.file, wanted.descriptor, &came)?;
    let begun = run(&kms, caller, ImportDisk::new(wanted, from)).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn backups(State(kms): Kept, caller: Caller, paging: Paging) -> Result<Response> {
    Ok(ok(&backup_show::list(&kms, &caller, &paging.into()).await?))
}

async fn backup(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    Ok(ok(&backup_show::show(&kms, &caller, &wanted.0).await?))
}

async fn create_backup(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    let wanted: types::CreateBackup = body::read(request).await?;
    Ok(body::json(
        StatusCode::ACCEPTED,
        &run(&kms, caller, wanted).await?,
    ))
}

async fn restore_backup(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: types::RestoreBackup = body::read(request).await?;
    let backup = wanted.0;
    let begun = run(
        &kms,
        caller,
        RestoreBackup {
            backup,
            disk: options.disk,
        },
    )
    .await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn delete_backup(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    let backup = wanted.0;
    Ok(ok(&run(&kms, caller, DeleteBackup { backup }).await?))
}

async fn cancel_copy(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, CancelCopy { disk }).await?))
}

async fn check_disk(
    State(kms): Kept,
    caller: Caller,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options: Check = body::read(request).await?;
    let disk = wanted.0;
    Ok(ok(&run(&kms, caller, disk_check::Check { disk, options }).await?))
}

async fn set_disk(
    State(kms): Kept,
    caller: Caller,
    tags: IfMatch,
    wanted: Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    let disk = wanted.0;
    change(&kms, caller, tags, disk_set::SetDisk { disk, options }).await
}

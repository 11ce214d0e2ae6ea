//! Admission: which users may make a call at all.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sealblk_api::call::Spec;

use crate::audit::{Caller, Facts};
use crate::catalogue::{self, meta};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::jobs::housekeeping;
use crate::request;
use crate::timekeeper::boottime;

/// The header of every answer. What a request says there is not taken over: it would stand in the
/// audit log as if it were ours.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The other side of a connection, as the kernel saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) pid: i32,
}

/// Finds the caller's account by its uid (`SO_PEERCRED`), and refuses those who have none.
pub(super) async fn identify(
    State(kms): State<Arc<Kms>>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let id = match id::new(Kind::Request) {
        Ok(id) => id,
        Err(error) => return error.into_response(),
    };
    let peer = request.extensions().get::<Peer>().copied();
    let answer = async {
        match caller(&kms, peer, &id).await {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(error) => error.into_response(),
        }
    };
    let mut response = request::scope(id.clone(), answer).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Refuses callers who have none of the roles that the call needs.
///
/// # Errors
/// [`Code::NotAuthorized`], or [`Code::NotSecurityAdministrator`] (rule K02).
pub(super) async fn check_role(kms: &Kms, caller: &Caller, method: &Method, spec: &Spec) -> Result<()> {
    let held = {
        let mut db = kms.catalogue.read().await?;
        catalogue::accounts::roles(&mut db, caller.uid).await?
    };
    let names = spec.roles.iter().map(|role| role.name());
    if names.clone().any(|name| held.iter().any(|held| held == name)) {
        return Ok(());
    }
    let names = names.collect::<Vec<_>>().join(" or ");
    let text = format!(
        "uid {} of account {} needs the role {names}: ask somebody of the account who has it, or have the role added to \
         the accounts file",
        caller.uid, caller.account
    );
    let code = match spec.rules.contains(&"K02") {
        true => Code::NotSecurityAdministrator,
        false => Code::NotAuthorized,
    };
    let refusal = Error::new(code, text);
    let call = format!("{method} {}", spec.path);
    kms.record_refusal(caller, "api", &call, &refusal).await?;
    Err(refusal)
}

async fn caller(kms: &Kms, peer: Option<Peer>, request: &str) -> Result<Caller> {
    let peer = peer.ok_or_else(|| Error::new(Code::Internal, "the caller is not known"))?;
    let account = {
        let mut db = kms.catalogue.read().await?;
        meta::account_of(&mut db, peer.uid).await?
    };
    match account {
        Some(account) => Ok(Caller {
            account,
            uid: peer.uid,
            pid: peer.pid,
            request: request.to_owned(),
            facts: Facts::default(),
        }),
        None => Err(refuse_stranger(kms, peer).await),
    }
}

/// Counts that somebody without an account has come, which is recorded once a minute, and gives the answer.
pub(super) async fn refuse_stranger(kms: &Kms, peer: Peer) -> Error {
    if let Some(refused) = kms.strangers.refused(peer.uid, peer.pid, boottime())
        && let Err(error) = housekeeping::record_first(kms, refused).await
    {
        return error;
    }
    let text = format!(
        "uid {} belongs to no account: call as the user that ran `sealblk-kms init`, or have it add the uid to the \
         accounts file",
        peer.uid
    );
    Error::new(Code::NotAuthorized, text)
}

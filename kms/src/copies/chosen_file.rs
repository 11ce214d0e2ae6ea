//! The file of an import or export: at a path that the caller names, or one that it has opened and passed.

use std::path::{Path, PathBuf};

use crate::audit::Caller;
use crate::catalogue::copies::{CopiedFile, Destination};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::aside;
use crate::host::foreign_format::LOOK_BYTES;
use crate::host::passed::{Held, PASSED, Passed};
use crate::host::received::{Came, Slot};
use crate::host::store::{self, Foreign};
use crate::id::{self, Kind};
use crate::volumes::path::{self, check_medium, check_not_taken, named};

/// What a request says.
#[derive(Debug)]
pub(crate) enum Chosen {
    Path(String),
    Passed(Passed),
}

impl Chosen {
    /// Of a request's body, and what came with it.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`], [`Code::DescriptorUnusable`], [`Code::TooMany`].
    pub(crate) fn new(path: &str, descriptor: bool, came: &Slot) -> Result<Self> {
        if !descriptor {
            return Ok(Chosen::Path(path.to_owned()));
        }
        if !path.is_empty() {
            let text = "a file is named by its path or passed as a descriptor: leave one of them out";
            return Err(Error::new(Code::InvalidRequest, text));
        }
        match came.take() {
            Came::File(passed) => Ok(Chosen::Passed(passed)),
            Came::Lost => {
                let text = "the file that was passed could not be taken: too many are open, or their storage does not let go of \
                            them; try again when it does, or when a copy has ended";
                Err(Error::new(Code::TooMany, text))
            }
            Came::Nothing => {
                let text = "no descriptor came with the request: pass one with its bytes (SCM_RIGHTS), as `sealctl … -` does";
                Err(Error::new(Code::DescriptorUnusable, text))
            }
        }
    }
}

/// A file that was looked at.
#[derive(Debug)]
pub(crate) struct ChosenFile {
    /// Canonical; [`PASSED`] if there is none.
    pub(crate) path: String,
    held: Option<Held>,
}

impl ChosenFile {
    /// Id of the copy that is to be begun with it.
    ///
    /// # Errors
    /// [`Code::Internal`] if the operating system has no randomness to give.
    pub(crate) fn copy_id(&self) -> Result<String> {
        match &self.held {
            Some(held) => Ok(held.copy().to_owned()),
            None => id::new(Kind::Intent),
        }
    }

    /// Where so many bytes are copied to, of an image or not.
    pub(crate) fn destination(&self, bytes: i64, image: Option<String>) -> Destination {
        let file = CopiedFile {
            path: self.path.clone(),
            identity: None,
            size: bytes,
        };
        Destination::File { file, image }
    }

    /// The copy has been begun, which needs it from now on.
    pub(crate) fn begin(&self) {
        if let Some(held) = &self.held {
            held.begin();
        }
    }
}

/// What is to be read.
///
/// # Errors
/// [`Code::PathNotAllowed`], [`Code::InvalidPath`], [`Code::DescriptorUnusable`], [`Code::FileInUse`]; the file's.
pub(crate) async fn input(kms: &Kms, caller: &Caller, chosen: Chosen) -> Result<(ChosenFile, Foreign)> {
    let guard = kms.paths.guard(caller.uid);
    let passed = match chosen {
        Chosen::Passed(passed) => passed,
        Chosen::Path(path) => {
            let path = named(kms, caller, &path).await?.into_string();
            check_not_taken(kms, &path, false).await?;
            let look = move |path: &Path| store::look_at(path, LOOK_BYTES, &guard);
            let found = aside::named(path.as_ref(), look).await?;
            return Ok((ChosenFile { path, held: None }, found));
        }
    };
    let held = hold(kms, caller, passed)?;
    let file = held.file();
    let look = move |_: &Path| {
        file.check(false)?;
        let found = store::look_at_open(file.file(), LOOK_BYTES, &guard)?;
        Ok::<_, Error>((found, store::medium_of(file.file())))
    };
    let (found, medium) = aside::of_user(caller.uid, PASSED.as_ref(), look).await?;
    check_medium(kms, medium, PASSED).await?;
    Ok((ChosenFile::passed(held), found))
}

/// What is to be written.
///
/// # Errors
/// As [`input`]; [`Code::FileNotEmpty`].
pub(crate) async fn output(kms: &Kms, caller: &Caller, chosen: Chosen, size: u64) -> Result<ChosenFile> {
    let passed = match chosen {
        Chosen::Passed(passed) => passed,
        Chosen::Path(path) => {
            let path = path::choose(kms, caller, &path).await?;
            return Ok(ChosenFile { path, held: None });
        }
    };
    let held = hold(kms, caller, passed)?;
    let (file, guard) = (held.file(), kms.paths.guard(caller.uid));
    let look = move |_: &Path| {
        file.check(true)?;
        store::check_open(file.file(), size, &guard)?;
        Ok::<_, Error>(store::medium_of(file.file()))
    };
    let medium = aside::of_user(caller.uid, PASSED.as_ref(), look).await?;
    check_medium(kms, medium, PASSED).await?;
    Ok(ChosenFile::passed(held))
}

/// What has to be there when a call is decided on.
pub(crate) fn not_looked_at() -> Error {
    Error::new(Code::Internal, "the file has not been looked at")
}

/// Where the work at files is that a user has passed: whichever of them does not answer holds up that user's alone.
pub(crate) fn place(uid: u32) -> PathBuf {
    format!("passed by uid {uid}").into()
}

impl ChosenFile {
    fn passed(held: Held) -> Self {
        ChosenFile {
            path: PASSED.to_owned(),
            held: Some(held),
        }
    }
}

fn hold(kms: &Kms, caller: &Caller, passed: Passed) -> Result<Held> {
    let copy = id::new(Kind::Intent)?;
    kms.copies.passed.hold(&caller.account, copy, passed)
}

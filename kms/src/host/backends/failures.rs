//! What failures of backends are called in the API.

use sealblk_proto::message::{Failure, code};

use crate::error::{Code, Error};

/// A disk cannot be served.
pub(super) fn start_error(failure: &Failure) -> Error {
    let code = code_of(failure);
    let remedy = match code {
        Code::StoreRolledBack => {
            " (or attach the disk with --accept-older, if this was put there on purpose)"
        }
        _ => "",
    };
    let text = format!("the disk cannot be served: {}{remedy}", failure.message);
    Error::new(code, text)
}

/// What a backend's failure is called in the API.
pub(crate) fn code_of(failure: &Failure) -> Code {
    match failure.code.as_str() {
        code::FRONTEND_CONNECTED => Code::FrontendConnected,
        code::STORE_IN_USE => Code::StoreInUse,
        code::STORE_UNUSABLE => Code::StoreUnusable,
        code::STORE_DAMAGED => Code::StoreDamaged,
        code::STORE_VERSION => Code::StoreVersion,
        code::STORE_FOREIGN => Code::StoreForeign,
        code::STORE_ROLLED_BACK => Code::StoreRolledBack,
        code::NO_SPACE => Code::NoSpace,
        code::NO_SNAPSHOT => Code::SnapshotMissing,
        code::TOO_MANY => Code::TooMany,
        code::INVALID_SIZE => Code::InvalidSize,
        code::NOT_SUPPORTED => Code::NotSupported,
        code::NOT_SERVED => Code::NotServed,
        code::KEY_UNUSABLE => Code::KeyUnusable,
        code::COPY_DIFFERS => Code::CopyDiffers,
        code::SOCKET_UNUSABLE => Code::SocketUnusable,
        "WrappedKeyInvalid" => Code::WrappedKeyInvalid,
        "WrongRegion" => Code::WrongRegion,
        "AuditFailed" => Code::AuditFailed,
        "CatalogueFailed" => Code::CatalogueFailed,
        _ => Code::BackendFailed,
    }
}

//! Who makes a call, and what becomes known of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealblk_api::Details;
use serde_json::Value;

/// Who asks, as the kernel saw it, and for which account.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    /// Id of the request.
    pub(crate) request: String,
    /// What the call's records say besides.
    pub(crate) facts: Facts,
}

impl Caller {
    /// The same caller, for another record than the call's own.
    pub(crate) fn apart(&self) -> Self {
        Caller {
            facts: Facts::default(),
            ..self.clone()
        }
    }
}

/// What a call is about, as far as it is known: noted where it is found out, so that a refusal says as much as there is to say.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts(Arc<Mutex<Details>>);

impl Facts {
    /// Notes a fact; the newest of a name counts.
    pub(crate) fn note(&self, name: &str, value: impl Into<Value>) {
        self.lock().insert(name.to_owned(), value.into());
    }

    /// Notes a fact, or that there is none.
    pub(crate) fn note_if(&self, name: &str, value: Option<impl Into<Value>>) {
        match value {
            Some(value) => self.note(name, value),
            None => {
                self.lock().remove(name);
            }
        }
    }

    /// Notes what others have.
    pub(crate) fn take_over(&self, others: &Facts) {
        let others = others.all();
        self.lock().extend(others);
    }

    /// Everything that was noted.
    pub(crate) fn all(&self) -> Details {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Details> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

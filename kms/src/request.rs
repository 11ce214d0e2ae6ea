//! The request that the work at hand is for: it stands in log lines, and in what is answered.

use std::future::Future;

tokio::task_local! {
    static REQUEST: String;
}

/// Does work for the request of this id. A task that the work spawns is for none, unless it says so itself.
pub(crate) async fn scope<F: Future>(id: String, work: F) -> F::Output {
    REQUEST.scope(id, work).await
}

/// Id of the request that the caller works for, if there is one.
pub(crate) fn current() -> Option<String> {
    REQUEST.try_with(Clone::clone).ok()
}

//! Looks at files that may lie on a medium that does not answer: each in a thread of its own, which is left behind if the
//! look takes too long. At most one such thread a path stays behind for each look that was begun before that was known.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Paths at which a look was left behind and has not ended.
static HANGING: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// What `look` finds out about `path`; none if that takes longer than `time`. While one that took longer has not ended, no
/// other is begun.
pub(crate) async fn look<T: Send + 'static>(
    path: &Path,
    time: Duration,
    look: impl FnOnce(&Path) -> T + Send + 'static,
) -> Option<T> {
    if hanging().as_ref().is_some_and(|paths| paths.contains(path)) {
        return None;
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    let own = path.to_owned();
    let spawned = std::thread::Builder::new()
        .name("look".to_owned())
        .spawn(move || {
            let found = look(&own);
            if tell.send(found).is_err()
                && let Some(paths) = hanging().as_mut()
            {
                paths.remove(&own);
            }
        });
    if let Err(error) = spawned {
        log::error!("no thread to look at {}: {error}", path.display());
        return None;
    }
    let mut told = told;
    if let Ok(found) = tokio::time::timeout(time, &mut told).await {
        // An error: it has panicked.
        return found.ok();
    }
    // Noted before the receiver goes: whoever fails to tell it takes the note away.
    let mut paths = hanging();
    paths.get_or_insert_default().insert(path.to_owned());
    match told.try_recv() {
        Ok(found) => {
            paths.as_mut().map(|paths| paths.remove(path));
            Some(found)
        }
        Err(_) => {
            log::warn!("{} does not answer", path.display());
            drop(told);
            None
        }
    }
}

fn hanging() -> MutexGuard<'static, Option<HashSet<PathBuf>>> {
    HANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn one_that_does_not_answer_is_left_behind_and_not_asked_again() {
        let path = Path::new("/a/path/that/hangs");
        let (answer, hangs) = std::sync::mpsc::channel::<()>();
        assert_eq!(look(path, SOON, move |_| hangs.recv().is_ok()).await, None);
        assert_eq!(
            look(path, LONG, |_| panic!("it was asked again")).await,
            None::<()>
        );
        assert_eq!(look(Path::new("/another"), LONG, |_| 7).await, Some(7));
        drop(answer);
        while look(path, LONG, |_| 8).await != Some(8) {
            tokio::task::yield_now().await;
        }
    }
}

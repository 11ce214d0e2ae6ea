//! Looks and work at files that may lie on a medium that does not answer: each in a thread of its own, which is left behind
//! if it takes too long, and is lost until the kernel lets go of it. Few threads a medium are, so that one that hangs costs
//! those few, and whoever comes afterwards is told at once.
//!
//! A medium is a mount, known by the path's beginning, or a device; what its path leads to is not looked at here. What
//! callers name, what the KMS has, what takes long and the sockets of disks' processes have places of their own: so whoever
//! names paths, or has stores made there, cannot keep a disk's process from being restarted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Code, Error, Result};
use crate::limits;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// To look at what the KMS has.
    Look,
    /// To look at what a caller names.
    Named,
    /// To make, fill, empty or remove a store, or to write a backup of the catalogue.
    Work,
    /// To make the socket of a disk's process.
    Bind,
}

/// Places of each purpose on each medium that is in use; under no medium, all places of a purpose.
type PlacesOf = HashMap<(Purpose, String), Weak<Places>>;
static PLACES: Mutex<Option<PlacesOf>> = Mutex::new(None);

/// Threads of one purpose on one medium.
struct Places {
    medium: String,
    most: usize,
    free: Arc<Semaphore>,
    /// By number, the paths of those that run, and whether they are lost: nobody waits for them any more.
    running: Mutex<HashMap<u64, (PathBuf, bool)>>,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error("{0} does not answer")]
    Hangs(PathBuf),
    #[error("{0}: its medium, {1}, does not answer")]
    MediumHangs(PathBuf, String),
    #[error("{0}: all threads for files are waiting for media that do not answer")]
    AllHang(PathBuf),
    #[error("{0}: the thread that looked at it did not end as it should")]
    Broken(PathBuf),
    #[error("{0}: there is no thread for it")]
    NoThread(PathBuf, #[source] std::io::Error),
}

impl From<Untold> for Error {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::Broken(_) | Untold::NoThread(..) => {
                Error::because(Code::Internal, "a file operation was not ended", untold)
            }
            _ => {
                let text = format!("{untold}: try again when it does");
                Error::new(Code::StorageHangs, text)
            }
        }
    }
}

/// What `look` finds out about `path`, which the KMS has; none if that takes longer than `time`. While one that took longer
/// has not ended, no other is begun.
pub(crate) async fn look<T: Send + 'static>(
    path: &Path,
    time: Duration,
    look: impl FnOnce(&Path) -> T + Send + 'static,
) -> Option<T> {
    let found = run(Purpose::Look, path, time, look).await;
    found
        .inspect_err(|untold| log::debug!("not looked at: {untold}"))
        .ok()
}

/// What `look` finds out about `path`, which a caller names.
///
/// # Errors
/// Its own; [`Code::StorageHangs`] where it takes longer than [`limits::NAMED_PATH_TIME`]. `look` may end after that, so it
/// changes nothing.
pub(crate) async fn named<T, E>(
    path: &Path,
    look: impl FnOnce(&Path) -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    Ok(run(Purpose::Named, path, limits::NAMED_PATH_TIME, look).await??)
}

/// A look at a path where the user's own files, or links of its own, say what is looked at: the path's name does not tell which
/// medium that is on. Whichever medium does not answer holds up this user's looks alone.
///
/// # Errors
/// As [`named`].
pub(crate) async fn of_user<T, E>(
    uid: u32,
    path: &Path,
    look: impl FnOnce(&Path) -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    let medium = format!("what uid {uid} has named");
    Ok(run_on(medium, Purpose::Named, path, limits::NAMED_PATH_TIME, look).await??)
}

/// What comes of `work` at a store, or in the directory for backups.
///
/// # Errors
/// Its own; [`Code::StorageHangs`] where it takes longer than `time`. `work` may be done after that: what it gives is dropped
/// then, and no other work at this path is begun before.
pub(crate) async fn work<T, E>(
    path: &Path,
    time: Duration,
    work: impl FnOnce(&Path) -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    Ok(run(Purpose::Work, path, time, work).await??)
}

/// As [`work`], at the socket of a disk's process.
///
/// # Errors
/// As [`work`].
pub(crate) async fn bind<T, E>(
    path: &Path,
    work: impl FnOnce(&Path) -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    Ok(run(Purpose::Bind, path, limits::NAMED_PATH_TIME, work).await??)
}

/// Drops what has a file open there: whoever serves its file system may take his time to close it.
///
/// # Errors
/// [`Code::StorageHangs`].
pub(crate) async fn discard<T: Send + 'static>(path: &Path, opened: T) -> Result<()> {
    let discard = move |_: &Path| {
        drop(opened);
        Ok::<_, Error>(())
    };
    work(path, limits::STORE_TIME, discard).await
}

async fn run<T: Send + 'static>(
    purpose: Purpose,
    path: &Path,
    time: Duration,
    work: impl FnOnce(&Path) -> T + Send + 'static,
) -> std::result::Result<T, Untold> {
    run_on(medium(path), purpose, path, time, work).await
}

async fn run_on<T: Send + 'static>(
    medium: String,
    purpose: Purpose,
    path: &Path,
    time: Duration,
    work: impl FnOnce(&Path) -> T + Send + 'static,
) -> std::result::Result<T, Untold> {
    let places = Places::of(purpose, &medium);
    let place = places.take(path, time).await?;
    let all = Places::of(purpose, "");
    let Ok(place_of_all) = Arc::clone(&all.free).try_acquire_owned() else {
        return Err(Untold::AllHang(path.to_owned()));
    };
    let running = Running::begin(&places, path, (all, place, place_of_all));
    let (tell, told) = oneshot::channel();
    let waiting = Waiting {
        places,
        number: running.number,
        told: Some(told),
    };
    let own = path.to_owned();
    let spawned = std::thread::Builder::new()
        .name("aside".to_owned())
        .spawn(move || {
            let _running = running;
            // Nobody waits for it any more: dropped.
            drop(tell.send(work(&own)));
        });
    match spawned {
        Ok(_) => waiting.within(path, time).await,
        Err(error) => Err(Untold::NoThread(path.to_owned(), error)),
    }
}

/// A look or work that runs; dropped when its thread has ended, as it should or not.
struct Running {
    places: Arc<Places>,
    number: u64,
    /// Given back with it.
    _place: (Arc<Places>, OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Running {
    fn begin(
        places: &Arc<Places>,
        path: &Path,
        place: (Arc<Places>, OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        places.running().insert(number, (path.to_owned(), false));
        Running {
            places: Arc::clone(places),
            number,
            _place: place,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.places.running().remove(&self.number);
    }
}

/// The caller's side of a look or work that runs: if it is dropped before there is an answer, the thread is lost.
struct Waiting<T> {
    places: Arc<Places>,
    number: u64,
    told: Option<oneshot::Receiver<T>>,
}

impl<T> Waiting<T> {
    async fn within(mut self, path: &Path, time: Duration) -> std::result::Result<T, Untold> {
        let broken = || Untold::Broken(path.to_owned());
        let told = self.told.as_mut().ok_or_else(broken)?;
        if let Ok(told) = tokio::time::timeout(time, told).await {
            self.told = None;
            return told.map_err(|_| broken());
        }
        self.leave().ok_or_else(|| {
            log::warn!("{} does not answer", path.display());
            Untold::Hangs(path.to_owned())
        })
    }

    /// What it has told after all; none if it is lost, for as long as it runs.
    fn leave(&mut self) -> Option<T> {
        let mut told = self.told.take()?;
        told.close();
        if let Ok(found) = told.try_recv() {
            return Some(found);
        }
        if let Some((_, lost)) = self.places.running().get_mut(&self.number) {
            *lost = true;
        }
        None
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Places {
    fn of(purpose: Purpose, medium: &str) -> Arc<Self> {
        let mut all = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_default();
        all.retain(|_, places| places.strong_count() > 0);
        let key = (purpose, medium.to_owned());
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let most = match (medium, purpose) {
            ("", _) => limits::FILE_THREADS,
            (_, Purpose::Work) => limits::WORKS_OF_MEDIUM,
            (_, Purpose::Look | Purpose::Named | Purpose::Bind) => limits::LOOKS_OF_MEDIUM,
        };
        let places = Arc::new(Places {
            medium: medium.to_owned(),
            most,
            free: Arc::new(Semaphore::new(most)),
            running: Mutex::default(),
        });
        all.insert(key, Arc::downgrade(&places));
        places
    }

    async fn take(&self, path: &Path, time: Duration) -> std::result::Result<OwnedSemaphorePermit, Untold> {
        let hangs = || Untold::MediumHangs(path.to_owned(), self.medium.clone());
        {
            let running = self.running();
            let lost = || running.values().filter(|(_, lost)| *lost);
            if lost().any(|(other, _)| other == path) {
                return Err(Untold::Hangs(path.to_owned()));
            }
            if lost().count() >= self.most {
                return Err(hangs());
            }
        }
        let place = Arc::clone(&self.free).acquire_owned();
        match tokio::time::timeout(time.min(limits::PLACE_TIME), place).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(hangs()),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, (PathBuf, bool)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mount on which a path lies, by its name alone, or the path itself where each file is a medium of its own.
pub(crate) fn medium(path: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    medium_in(&mounts, path)
}

/// The medium of a path, by the contents of `mountinfo` (proc_pid_mountinfo(5)).
fn medium_in(mounts: &str, path: &Path) -> String {
    let mut found = (String::new(), 0, false);
    for line in mounts.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let kind = fields.iter().position(|field| *field == "-");
        let (Some(point), Some(kind)) = (fields.get(4), kind.and_then(|at| fields.get(at + 1))) else {
            continue;
        };
        let point = unescaped(point);
        // Of two at one place the later covers the other.
        if path.starts_with(&point) && point.len() >= found.1 {
            let length = point.len();
            found = (point, length, *kind == "devtmpfs");
        }
    }
    match found {
        (point, _, false) if !point.is_empty() => point,
        _ => path.to_string_lossy().into_owned(),
    }
}

/// Blank, tab, newline and backslash are written in octal.
fn unescaped(point: &str) -> String {
    let mut text = point.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escape, character);
    }
    text
}

/// Computes, or works on the KMS's own files, off the runtime. What lies at a path that a caller has named is looked at by
/// the other functions here, which may be left waiting.
///
/// # Errors
/// Those of `work`, as [`Error`]; [`Code::Internal`] where that takes longer than [`limits::OWN_WORK_TIME`].
pub(crate) async fn off_runtime<T, E>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    match tokio::time::timeout(limits::OWN_WORK_TIME, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => Ok(result?),
        Ok(Err(error)) => Err(Error::because(
            Code::Internal,
            "a file operation was not ended",
            error,
        )),
        Err(late) => Err(Error::because(
            Code::Internal,
            "a file operation was not ended in time",
            late,
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    /// A look that ends when the sender is dropped.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce(&Path) -> bool + Send + 'static) {
        let (answer, hangs) = mpsc::channel::<()>();
        (answer, move |_: &Path| hangs.recv().is_ok())
    }

    /// Media of a test's own: `mountinfo` has no mount at these.
    fn path(name: &str) -> PathBuf {
        Path::new("/dev").join(name)
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_left_behind_and_not_asked_again() {
        let path = path("one-that-hangs");
        let (answer, hangs) = hanging();
        assert_eq!(look(&path, SOON, hangs).await, None);
        assert_eq!(
            look(&path, LONG, |_| panic!("it was asked again")).await,
            None::<()>
        );
        assert_eq!(look(Path::new("/another"), LONG, |_| 7).await, Some(7));
        drop(answer);
        while look(&path, LONG, |_| 8).await != Some(8) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_medium_loses_few_threads_and_its_other_purposes_have_theirs() {
        let places = Places::of(Purpose::Named, "a medium");
        let mut running = Vec::new();
        for number in 0..limits::LOOKS_OF_MEDIUM {
            let path = PathBuf::from(format!("/file-{number}"));
            let all = Places::of(Purpose::Named, "");
            let place_of_all = Arc::clone(&all.free).try_acquire_owned().unwrap();
            let place = places.take(&path, LONG).await.unwrap();
            let one = Running::begin(&places, &path, (all, place, place_of_all));
            let (tell, told) = oneshot::channel::<()>();
            // The caller goes before the thread has told.
            drop(Waiting {
                places: Arc::clone(&places),
                number: one.number,
                told: Some(told),
            });
            running.push((one, tell));
        }
        let refused = places.take(Path::new("/file-new"), LONG).await.unwrap_err();
        assert!(matches!(refused, Untold::MediumHangs(..)), "{refused}");
        assert_eq!(Error::from(refused).code(), Code::StorageHangs);
        let other = Places::of(Purpose::Look, "a medium");
        drop(other.take(Path::new("/file-0"), LONG).await.unwrap());
        drop(running);
        drop(places.take(Path::new("/file-0"), LONG).await.unwrap());
    }

    #[tokio::test]
    async fn one_that_does_not_end_as_it_should_keeps_no_place() {
        let path = path("one-that-panics");
        for _ in 0..=limits::LOOKS_OF_MEDIUM {
            let broken: Result<()> = named(&path, |_| -> Result<()> { panic!("as it should not") }).await;
            assert_eq!(broken.unwrap_err().code(), Code::Internal);
        }
    }

    #[test]
    fn a_medium_is_the_mount_or_in_dev_the_device() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                      23 22 0:5 / /dev rw - devtmpfs udev rw\n\
                      24 22 0:40 / /srv/two\\040words rw shared:7 - nfs4 server:/ rw\n\
                      25 22 0:41 / /srv/two rw - fuse test rw\n";
        for (path, expected) in [
            ("/etc/passwd", "/"),
            ("/dev/vdb", "/dev/vdb"),
            ("/srv/two words/disk", "/srv/two words"),
            ("/srv/two/disk", "/srv/two"),
            ("/srv/twofold", "/"),
        ] {
            assert_eq!(medium_in(mounts, Path::new(path)), expected);
        }
        assert_eq!(medium_in("", Path::new("/a/path")), "/a/path");
    }
}

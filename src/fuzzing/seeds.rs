//! The inputs in `fuzz/seeds`, as tests: what the fuzzer begins with, and what it has found.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Far longer than any input takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target)
}

/// Calls the target with each of its inputs, which must end. A panic counts in whichever thread it is.
fn replay(name: &str, target: fn(&[u8])) {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let former = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        former(panic);
    }));
    let entries = std::fs::read_dir(directory(name)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let (ended, ends) = mpsc::channel();
    let inputs: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    std::thread::spawn(move || {
        for input in inputs {
            target(&input);
            ended.send(()).unwrap();
        }
    });
    for path in paths {
        let end = ends.recv_timeout(PATIENCE);
        let panics = PANICS.load(Ordering::SeqCst);
        assert!(end.is_ok() && panics == 0, "{}: {end:?}", path.display());
    }
}

#[test]
fn session() {
    replay("session", super::session);
}

#[test]
fn rings() {
    replay("rings", super::rings);
}

#[test]
fn store() {
    replay("store", super::store);
}

#[test]
fn image() {
    replay("image", super::image);
}

#[test]
fn channel() {
    replay("channel", super::channel);
}

#[test]
fn handover() {
    replay("handover", super::handover);
}

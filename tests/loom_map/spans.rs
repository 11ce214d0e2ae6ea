//! Where mappings lie, as a signal handler reads it while others come and go.

use loom::sync::Arc;
use loom::thread;

use super::explore;
use super::span::Span;
use super::sync::AtomicUsize;

/// Mappings that use the same slot one after another; the last lies where the first was.
const MAPPINGS: [(usize, usize); 3] = [(0x1000, 1), (0x2000, 2), (0x1000, 3)];

#[test]
fn a_start_is_read_with_its_own_length() {
    explore(3, || {
        let span = Arc::new(Span {
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
        });
        let (start, len) = MAPPINGS[0];
        span.set(start, len);
        let writer = {
            let span = span.clone();
            thread::spawn(move || {
                for (start, len) in &MAPPINGS[1..] {
                    span.clear();
                    span.set(*start, *len);
                }
            })
        };
        if let Some(read) = span.get() {
            assert!(MAPPINGS.contains(&read), "{read:x?}");
        }
        writer.join().unwrap();
        assert_eq!(span.get(), Some(MAPPINGS[2]));
    });
}

//! What others can send, as functions of arbitrary bytes: they do with it what the daemon does, and panic where it must never
//! come. libFuzzer calls them (`fuzz/`, `scripts/fuzz`), and tests with the inputs in `fuzz/seeds`.

mod http;

pub use self::http::api;
pub use crate::daemon::accounts_file::fuzzing::accounts;
pub use crate::keys::envelope::fuzzing::envelope;

#[cfg(test)]
mod seeds {
    fn replay(name: &str, target: fn(&[u8])) {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds");
        let entries = std::fs::read_dir(std::path::Path::new(directory).join(name)).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty());
        target(&[]);
        for path in paths {
            eprintln!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
        }
    }

    #[test]
    fn accounts() {
        replay("accounts", super::accounts);
    }

    #[test]
    fn api() {
        replay("api", super::api);
    }

    #[test]
    fn envelope() {
        replay("envelope", super::envelope);
    }
}

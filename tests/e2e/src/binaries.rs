//! Where the programs under test are.

use std::path::PathBuf;

/// Path of the program `name`: `target/PROFILE/NAME`, for a test executable in `target/PROFILE/deps`.
///
/// # Panics
/// If it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test executable has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("the test executable is in target/PROFILE/deps");
    let path = profile.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    path
}

//! Where the programs under test are.

use std::path::PathBuf;

/// Path of the program `name`: `target/PROFILE/NAME`, for a test executable in `target/PROFILE/deps` or a program beside it.
///
/// # Panics
/// If it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test executable has a path");
    let directory = test.parent().expect("an executable is in a directory");
    let profile = match directory.parent() {
        Some(parent) if directory.ends_with("deps") => parent,
        _ => directory,
    };
    let path = profile.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    path
}

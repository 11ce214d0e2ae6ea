//! A directory that is to be seen at another place, too.

use std::path::{Path, PathBuf};

/// Names a file or directory that is to be mounted elsewhere, and unmounts it again.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn new(from: &Path, to: PathBuf) -> Option<Self> {
        let mounted = std::process::Command::new("mount")
            .arg("--bind")
            .arg(from)
            .arg(&to)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("skipped: nothing can be mounted here");
            return None;
        }
        Some(Mounted(to))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

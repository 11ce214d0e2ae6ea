//! Which QEMU arguments are for.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use sealblk_api::client::with;
use sealblk_api::{FrontendArguments, QemuVersion};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long a QEMU may take to say its version.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most that is read of what it says, in bytes.
const ANSWER_BYTES: u64 = 4096;

/// For which QEMU the answer is.
#[derive(Args, Debug)]
pub(super) struct Qemu {
    /// Give arguments for this QEMU, such as 7.2 or 10.0.13 [default: the one that runs as the instance's virtual machine, if
    /// its socket is known, or the one in PATH].
    #[arg(long, value_name = "VERSION")]
    pub(super) qemu_version: Option<QemuVersion>,
}

impl Qemu {
    /// The path of a call, for this version.
    pub(super) fn asked(&self, path: &str) -> String {
        match self.qemu_version {
            Some(version) => with(path, "qemu_version", &version.to_string()),
            None => path.to_owned(),
        }
    }
}

/// Titles and arguments, of all that differ between versions.
pub(super) fn both(disk: &str, socket: &str, queues: u16) -> [(&'static str, FrontendArguments); 2] {
    let arguments = |version| FrontendArguments::new(disk, socket, queues, version);
    [
        (
            "Arguments for QEMU 9.2 and later (size= is the memory of the virtual machine):",
            arguments(Some(QemuVersion::MILLISECONDS)),
        ),
        (
            "Arguments for QEMU before 9.2 (likewise):",
            arguments(Some(QemuVersion { major: 9, minor: 1 })),
        ),
    ]
}

/// Makes the arguments of an attachment those for the QEMU in `PATH`, where the daemon did not know one.
pub(super) async fn complete(arguments: &mut FrontendArguments, disk: &str, socket: &str, queues: u16) {
    if arguments.qemu_version.is_some() {
        return;
    }
    let program = std::env::var_os("PATH").and_then(|path| installed(&path));
    if let Some(program) = program
        && let Some(version) = version(&program).await
    {
        *arguments = FrontendArguments::new(disk, socket, queues, Some(version));
    }
}

/// The first QEMU of this machine's architecture in the search path, or else the first of any. A relative directory counts for
/// nothing: what lies in it is not the operator's choice.
fn installed(path: &OsStr) -> Option<PathBuf> {
    let own = OsString::from(format!("qemu-system-{}", std::env::consts::ARCH));
    let directories = || std::env::split_paths(path).filter(|directory| directory.is_absolute());
    let exact = directories().map(|directory| directory.join(&own));
    let any = directories().filter_map(|directory| {
        let names = directory
            .read_dir()
            .ok()?
            .flatten()
            .map(|entry| entry.file_name());
        let qemus = names.filter(|name| name.as_encoded_bytes().starts_with(b"qemu-system-"));
        qemus
            .map(|name| directory.join(name))
            .filter(|file| is_program(file))
            .min()
    });
    exact.chain(any).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// What a QEMU says of itself; none if it says nothing of use in time.
async fn version(program: &Path) -> Option<QemuVersion> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let output = child.stdout.take()?;
    let mut said = Vec::new();
    let read = async move {
        output.take(ANSWER_BYTES).read_to_end(&mut said).await.ok()?;
        QemuVersion::said(&String::from_utf8_lossy(&said))
    };
    tokio::time::timeout(PATIENCE, read).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(directory: &Path, name: &str, script: &str) -> PathBuf {
        let file = directory.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn the_machines_own_qemu_in_an_absolute_directory_is_found() {
        let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let path = std::env::join_paths(["".as_ref(), ".".as_ref(), one.path(), two.path()]).unwrap();
        assert_eq!(installed(&path), None);
        std::fs::write(one.path().join("qemu-system-data"), "").unwrap();
        assert_eq!(installed(&path), None, "no program");
        let any = program(one.path(), "qemu-system-zzz", "");
        assert_eq!(installed(&path), Some(any));
        let own = program(two.path(), &format!("qemu-system-{}", std::env::consts::ARCH), "");
        assert_eq!(installed(&path), Some(own));
        assert_eq!(installed(OsStr::new("")), None);
    }

    #[tokio::test]
    async fn a_program_is_asked_within_limits() {
        let directory = tempfile::tempdir().unwrap();
        let script = |name: &str, script: &str| program(directory.path(), name, script);
        let qemu = script(
            "a",
            "test \"$*\" = --version && echo 'QEMU emulator version 7.2.22 (x)'",
        );
        assert_eq!(version(&qemu).await, Some(QemuVersion { major: 7, minor: 2 }));
        let endless = script("b", "while :; do echo no version of anything at all; done");
        assert_eq!(version(&endless).await, None);
        let silent = script("c", "exec sleep 1000");
        assert_eq!(version(&silent).await, None);
        assert_eq!(version(&script("d", "exit 1")).await, None);
        assert_eq!(version(&directory.path().join("missing")).await, None);
    }
}

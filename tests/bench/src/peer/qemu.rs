//! qemu-storage-daemon, QEMU's own vhost-user-blk backend, with plain and with LUKS images.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Peer;

const PASSPHRASE: &str = "benchmark";
/// At making an image.
const ATTEMPTS: u32 = 20;

/// A running daemon; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct StorageDaemon {
    daemon: Child,
}

impl StorageDaemon {
    /// Makes an image of `size` bytes below `directory` and serves it on `queues` queues; with `luks`, encrypted with
    /// AES-256-XTS. With `direct`, past the page cache.
    ///
    /// # Errors
    /// The kernel's, or that one of the programs is missing or fails.
    pub(crate) fn start(
        directory: &Path,
        size: u64,
        queues: u16,
        luks: bool,
        direct: bool,
    ) -> io::Result<(Self, Peer)> {
        let name = if luks { "qemu LUKS" } else { "qemu raw" };
        let stem = if luks { "luks" } else { "raw" };
        let image = directory.join(format!("qemu-{stem}.img"));
        let socket = directory.join(format!("qemu-{stem}.sock"));
        create(&image, size, luks)?;
        let (aio, cache) = if direct {
            ("io_uring", "on")
        } else {
            ("threads", "off")
        };
        let mut command = Command::new("qemu-storage-daemon");
        command.arg("--blockdev").arg(format!(
            "driver=file,node-name=file,filename={},aio={aio},cache.direct={cache}",
            image.display()
        ));
        if luks {
            command.args(["--object", &format!("secret,id=key,data={PASSPHRASE}")]);
            command.args([
                "--blockdev",
                "driver=luks,node-name=disk,file=file,key-secret=key",
            ]);
        } else {
            command.args(["--blockdev", "driver=raw,node-name=disk,file=file"]);
        }
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queues},addr.type=unix,addr.path={}",
            socket.display()
        ));
        let daemon = command.stdin(Stdio::null()).spawn()?;
        let pid = daemon.id() as i32;
        let storage_daemon = StorageDaemon { daemon };
        sealblk_e2e::eventually("qemu-storage-daemon listens", || socket.exists().then_some(()));
        Ok((storage_daemon, Peer { name, socket, pid }))
    }
}

impl Drop for StorageDaemon {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn create(image: &Path, size: u64, luks: bool) -> io::Result<()> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f"]);
    if luks {
        command.arg("luks");
        command.args(["--object", &format!("secret,id=key,data={PASSPHRASE}")]);
        command.args([
            "-o",
            "key-secret=key,cipher-alg=aes-256,cipher-mode=xts,iter-time=10",
        ]);
    } else {
        command.arg("raw");
    }
    command.arg(image).arg(size.to_string());
    // It measures how fast the key is derived, and gives up where the machine has something else to do meanwhile.
    for _ in 0..ATTEMPTS {
        if command.status()?.success() {
            return Ok(());
        }
    }
    Err(io::Error::other("qemu-img create does not succeed"))
}

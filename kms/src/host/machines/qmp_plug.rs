//! A disk comes to a QEMU that runs, and goes from it (rule A09): a socket (`chardev-add`) and its device (`device_add`), both of the
//! disk's id, as in the arguments for its command line.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::answer::{Disk, MachineError};
use super::qmp::Session;
use crate::limits;
use sealblk_api::QemuVersion;

/// Where the devices are that have ids.
const DEVICES: &str = "/machine/peripheral";

/// What has room for one device; the bus behind it is named like it.
const PORTS: [&str; 3] = [
    "child<pcie-root-port>",
    "child<ioh3420>",
    "child<xio3130-downstream>",
];

/// How QEMU refuses to ask a guest again that it is asking.
const ASKED: &str = "in the process of unplug";

/// An object or a property of one, in QEMU's tree of them.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Chardev {
    label: String,
}

impl Session {
    /// Whether there is a device of this id.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn has(&mut self, id: &str) -> Result<bool, MachineError> {
        Ok(self.list(DEVICES).await?.iter().any(|device| device.name == id))
    }

    /// The bus for one more device; none is the one that QEMU chooses, on a machine without ports.
    ///
    /// # Errors
    /// [`MachineError::NoRoom`] and others.
    pub(super) async fn room(&mut self) -> Result<Option<String>, MachineError> {
        let devices = self.list(DEVICES).await?;
        let mut ports = devices
            .into_iter()
            .filter(|device| PORTS.contains(&device.kind.as_str()))
            .peekable();
        if ports.peek().is_none() {
            return Ok(None);
        }
        for port in ports {
            let path = format!("{DEVICES}/{}", port.name);
            let asked = json!({"path": path, "property": "hotplug"});
            if self.execute("qom-get", asked).await? != Value::Bool(true) {
                continue;
            }
            let bus = self.list(&format!("{path}/{}", port.name)).await?;
            if !bus.iter().any(|child| child.name.starts_with("child[")) {
                return Ok(Some(port.name));
            }
        }
        Err(MachineError::NoRoom)
    }

    /// Plugs a disk in. After a refusal there is nothing of it.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn plug(&mut self, disk: &Disk) -> Result<(), MachineError> {
        let Disk { id, socket, queues } = disk;
        let bus = self.room().await?;
        let (reconnect, time) = match self.version().await? < QemuVersion::MILLISECONDS {
            true => ("reconnect", 1),
            false => ("reconnect-ms", 1000),
        };
        self.remove_chardev(id).await?;
        let address = json!({"type": "unix", "data": {"path": socket}});
        let socket = json!({"addr": address, "server": false, reconnect: time});
        let backend = json!({"type": "socket", "data": socket});
        self.execute("chardev-add", json!({"id": id, "backend": backend}))
            .await?;
        let mut device =
            json!({"driver": "vhost-user-blk-pci", "id": id, "chardev": id, "num-queues": queues});
        if let Some(bus) = bus {
            device["bus"] = bus.into();
        }
        let added = self.execute("device_add", device).await;
        if matches!(added, Err(MachineError::Qmp(_))) {
            self.remove_chardev(id).await?;
        }
        added.map(drop)
    }

    /// Asks the guest to let go of a disk, until it has; then nothing of it is left. One that is not there has gone.
    ///
    /// # Errors
    /// [`MachineError::GuestSilent`] and others.
    pub(super) async fn unplug(&mut self, id: &str) -> Result<(), MachineError> {
        let deadline = Instant::now() + limits::UNPLUG_TIME;
        let mut ask_again = Instant::now();
        while self.has(id).await? {
            let now = Instant::now();
            if now >= deadline {
                return Err(MachineError::GuestSilent);
            }
            if now >= ask_again {
                // A guest that has just been started may not have heard.
                ask_again = now + limits::UNPLUG_AGAIN_TIME;
                match self.execute("device_del", json!({"id": id})).await {
                    Err(MachineError::Qmp(words)) if words.contains(ASKED) || !self.has(id).await? => {}
                    asked => drop(asked?),
                }
            }
            sleep(limits::MACHINE_LOOK_TIME).await;
        }
        if let Err(error) = self.remove_chardev(id).await {
            // Nobody uses it, and the next device of this id removes it.
            log::warn!("the chardev {id} stays: {error}");
        }
        Ok(())
    }

    /// Removes a socket that has no device any more. QEMU lets go of it a moment after the guest has of the device.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(super) async fn remove_chardev(&mut self, id: &str) -> Result<(), MachineError> {
        let mut tries = 20;
        loop {
            let chardevs: Vec<Chardev> = self.command("query-chardev", json!({})).await?;
            if !chardevs.iter().any(|chardev| chardev.label == id) {
                return Ok(());
            }
            match self.execute("chardev-remove", json!({"id": id})).await {
                Err(MachineError::Qmp(_)) if tries > 0 => sleep(Duration::from_millis(100)).await,
                removed => return removed.map(drop),
            }
            tries -= 1;
        }
    }

    async fn list(&mut self, path: &str) -> Result<Vec<Listed>, MachineError> {
        self.command("qom-list", json!({"path": path})).await
    }
}

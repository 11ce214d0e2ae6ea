//! What a virtual machine needs for an attachment.

mod libvirt;
mod qmp;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A release of QEMU, as far as its options depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QemuVersion {
    /// The first number.
    pub major: u16,
    /// The second one.
    pub minor: u16,
}

/// The text is no version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version of QEMU is one to four numbers, such as 9.2 or 10.0.13")]
pub struct InvalidQemuVersion;

impl QemuVersion {
    /// The first that knows `reconnect-ms`. `reconnect` has been obsolete since, and is gone in 10.2.
    pub const MILLISECONDS: QemuVersion = QemuVersion { major: 9, minor: 2 };

    /// The version of a program that says `QEMU emulator version 10.0.13 (…)`.
    pub fn said(text: &str) -> Option<Self> {
        let (_, version) = text.split_once("QEMU emulator version ")?;
        let end = version.find(|c: char| !c.is_ascii_digit() && c != '.');
        version[..end.unwrap_or(version.len())].parse().ok()
    }
}

impl PartialSchema for QemuVersion {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A version of QEMU, such as `9.2` or `10.0.13`"))
            .pattern(Some(r"^[0-9]{1,4}(\.[0-9]{1,4}){0,3}$"))
            .into()
    }
}

impl ToSchema for QemuVersion {}

impl FromStr for QemuVersion {
    type Err = InvalidQemuVersion;

    fn from_str(text: &str) -> Result<Self, InvalidQemuVersion> {
        let is_number =
            |part: &str| matches!(part.len(), 1..=4) && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<_> = text.split('.').collect();
        if parts.len() > 4 || !parts.iter().all(|part| is_number(part)) {
            return Err(InvalidQemuVersion);
        }
        let number = |part: &str| part.parse().map_err(|_| InvalidQemuVersion);
        Ok(QemuVersion {
            major: number(parts[0])?,
            minor: parts.get(1).map_or(Ok(0), |part| number(part))?,
        })
    }
}

impl TryFrom<String> for QemuVersion {
    type Error = InvalidQemuVersion;

    fn try_from(text: String) -> Result<Self, InvalidQemuVersion> {
        text.parse()
    }
}

impl From<QemuVersion> for String {
    fn from(version: QemuVersion) -> String {
        version.to_string()
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What gives a virtual machine the disk. Arguments are for pasting into a shell: each path is quoted as that needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrontendArguments {
    /// The QEMU that its arguments are for: the one asked for, or else the one that runs as the instance's virtual
    /// machine. Null: not known, and they are for 9.2 and later.
    pub qemu_version: Option<QemuVersion>,
    /// Arguments to add to the command line of a QEMU with this one disk: `qemu_machine_args` and `qemu_disk_args`.
    pub qemu_args: String,
    /// Arguments that a QEMU needs once, however many disks it has. The size is that of its memory.
    pub qemu_machine_args: String,
    /// Arguments that a QEMU needs for this disk. Chardev and device have the disk's id.
    pub qemu_disk_args: String,
    /// The two commands that give a running QEMU the disk over QMP: `chardev-add` and `device_add`. Its memory must be shared
    /// since its start, as by `qemu_machine_args`.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub qmp: Vec<serde_json::Value>,
    /// The element that gives a domain of libvirt the disk, in its XML or by `virsh attach-device`.
    #[serde(default)]
    pub libvirt_xml: String,
    /// The element that a domain of libvirt needs once, however many disks it has: memory that is shared.
    #[serde(default)]
    pub libvirt_machine_xml: String,
    /// Arguments to add to a cloud-hypervisor command line.
    pub cloud_hypervisor_args: String,
}

impl FrontendArguments {
    /// For the disk that is served with so many queues on the socket.
    pub fn new(disk: &str, socket: &str, queues: u16, qemu_version: Option<QemuVersion>) -> Self {
        let machine =
            "-object memory-backend-memfd,id=mem0,size=4G,share=on -machine memory-backend=mem0".to_owned();
        // In an option's value QEMU takes two commas for one.
        let path = quoted(&socket.replace(',', ",,"));
        let (option, value) = reconnect(qemu_version);
        let reconnect = format!("{option}={value}");
        let disk_args = format!(
            "-chardev socket,id={disk},path={path},{reconnect} \
             -device vhost-user-blk-pci,id={disk},chardev={disk},num-queues={queues}"
        );
        FrontendArguments {
            qemu_version,
            qemu_args: format!("{machine} {disk_args}"),
            qemu_machine_args: machine,
            qemu_disk_args: disk_args,
            qmp: qmp::commands(disk, socket, queues, (option, value)),
            libvirt_xml: libvirt::disk(disk, socket, queues),
            libvirt_machine_xml: libvirt::MACHINE.to_owned(),
            cloud_hypervisor_args: cloud_hypervisor(disk, socket, queues),
        }
    }
}

/// The option by which a QEMU connects again after a second, and its value.
fn reconnect(qemu_version: Option<QemuVersion>) -> (&'static str, u32) {
    match qemu_version {
        Some(version) if version < QemuVersion::MILLISECONDS => ("reconnect", 1),
        _ => ("reconnect-ms", 1000),
    }
}

fn cloud_hypervisor(disk: &str, socket: &str, queues: u16) -> String {
    // cloud-hypervisor takes commas between quotation marks for a part of the value.
    let path = match socket.contains(',') {
        true => format!("\"{socket}\""),
        false => socket.to_owned(),
    };
    let path = quoted(&path);
    format!(
        "--memory size=4G,shared=on --disk vhost_user=on,socket={path},num_queues={queues},queue_size=128,id={disk}"
    )
}

/// A word as it is pasted into a shell.
pub fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-,+=:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> QemuVersion {
        text.parse().unwrap()
    }

    #[test]
    fn arguments_are_those_of_the_qemu_that_gets_them() {
        let machine = "-object memory-backend-memfd,id=mem0,size=4G,share=on -machine memory-backend=mem0";
        for (qemu, reconnect) in [
            (Some("2.12"), "reconnect=1"),
            (Some("7.2.22"), "reconnect=1"),
            (Some("9.1"), "reconnect=1"),
            (Some("9.2"), "reconnect-ms=1000"),
            (Some("10.0.13"), "reconnect-ms=1000"),
            (Some("11.1"), "reconnect-ms=1000"),
            (None, "reconnect-ms=1000"),
        ] {
            let qemu = qemu.map(version);
            let disk = format!(
                "-chardev socket,id=disk-1,path=/run/s,{reconnect} \
                 -device vhost-user-blk-pci,id=disk-1,chardev=disk-1,num-queues=2"
            );
            let arguments = FrontendArguments::new("disk-1", "/run/s", 2, qemu);
            assert_eq!(
                arguments,
                FrontendArguments {
                    qemu_version: qemu,
                    qemu_args: format!("{machine} {disk}"),
                    qemu_machine_args: machine.to_owned(),
                    qemu_disk_args: disk,
                    qmp: qmp::commands("disk-1", "/run/s", 2, super::reconnect(qemu)),
                    libvirt_xml: libvirt::disk("disk-1", "/run/s", 2),
                    libvirt_machine_xml: libvirt::MACHINE.to_owned(),
                    cloud_hypervisor_args:
                        "--memory size=4G,shared=on --disk vhost_user=on,socket=/run/s,num_queues=2,queue_size=128,id=disk-1"
                            .to_owned(),
                }
            );
        }
    }

    #[test]
    fn a_path_reaches_the_program_as_it_is() {
        let arguments = |socket| FrontendArguments::new("disk-1", socket, 1, None);
        for (socket, qemu, cloud_hypervisor) in [
            (
                "/run/a,b",
                "path=/run/a,,b,reconnect",
                r#"socket='"/run/a,b"',num"#,
            ),
            ("/run/a b", "path='/run/a b',reconnect", "socket='/run/a b',num"),
            (
                "/it's, $HOME",
                r"path='/it'\''s,, $HOME',reconnect",
                r#"socket='"/it'\''s, $HOME"',num"#,
            ),
            ("/a=b", "path=/a=b,reconnect", "socket=/a=b,num"),
            ("/ä", "path='/ä',reconnect", "socket='/ä',num"),
        ] {
            let found = arguments(socket);
            assert!(found.qemu_args.contains(qemu), "{}", found.qemu_args);
            assert!(found.qemu_disk_args.contains(qemu), "{}", found.qemu_disk_args);
            let found = found.cloud_hypervisor_args;
            assert!(found.contains(cloud_hypervisor), "{found}");
        }
        assert_eq!((quoted(""), quoted("~")), ("''".to_owned(), "'~'".to_owned()));
    }

    #[test]
    fn versions() {
        assert_eq!(version("10.0.13"), QemuVersion { major: 10, minor: 0 });
        assert_eq!(version("9"), QemuVersion { major: 9, minor: 0 });
        assert!(version("9.2") > version("9.1.50") && version("10.0") > version("9.2"));
        for bad in [
            "",
            "9.",
            ".2",
            "9.2 ",
            "-1",
            "+9.2",
            "v9.2",
            "12345",
            "9.2.0.0.0",
            "9.2-rc1",
        ] {
            assert_eq!(bad.parse::<QemuVersion>(), Err(InvalidQemuVersion), "{bad:?}");
        }
        for (said, expected) in [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright",
                Some("7.2"),
            ),
            ("QEMU emulator version 10.0.13", Some("10.0")),
            ("QEMU emulator version 9.1.93 (v9.2.0-rc3)", Some("9.1")),
            ("QEMU emulator version ", None),
            ("bash version 5.2", None),
        ] {
            assert_eq!(QemuVersion::said(said), expected.map(version), "{said}");
        }
    }
}

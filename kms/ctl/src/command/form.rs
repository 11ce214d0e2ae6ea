//! In which form attachments are printed.

use clap::{Args, ValueEnum};
use sealblk_api::FrontendArguments;

use super::qemu::Qemu;
use crate::output::Block;

/// For whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Name {
    /// For people.
    #[default]
    Text,
    /// QEMU's arguments, for a machine with this one disk.
    Qemu,
    /// QEMU's arguments for one disk more, without those that a machine needs once.
    QemuDisk,
    /// Commands for a running QEMU, one a line.
    Qmp,
    /// The <disk> element for libvirt's XML and for `virsh attach-device`.
    Libvirt,
    /// The <memoryBacking> element that a domain of libvirt needs once.
    LibvirtMachine,
    /// cloud-hypervisor's arguments.
    CloudHypervisor,
}

/// In which form.
#[derive(Args, Debug)]
pub(super) struct Form {
    /// Print what one kind of virtual machine needs, and nothing else; with -o json all of these are in the answer.
    #[arg(long = "format", value_name = "FORM", value_enum, default_value_t)]
    name: Name,
    /// Name of the disk's target in libvirt's XML, which each disk of a domain has its own of [default: vdb].
    #[arg(long, value_name = "DEV", value_parser = target)]
    target: Option<String>,
    #[command(flatten)]
    pub(super) qemu: Qemu,
}

impl Form {
    /// Whether it is one that only machines read.
    pub(super) fn is_chosen(&self) -> bool {
        self.name != Name::Text
    }

    /// What it is, as lines; none for people.
    pub(super) fn lines(&self, arguments: &FrontendArguments) -> Option<Vec<Block>> {
        let of = |text: &str| text.lines().map(|line| Block::Line(line.to_owned())).collect();
        Some(match self.name {
            Name::Text => return None,
            Name::Qemu => of(&arguments.qemu_args),
            Name::QemuDisk => of(&arguments.qemu_disk_args),
            Name::Qmp => arguments
                .qmp
                .iter()
                .map(|command| Block::Line(command.to_string()))
                .collect(),
            Name::Libvirt => of(&self.targeted(&arguments.libvirt_xml)),
            Name::LibvirtMachine => of(&arguments.libvirt_machine_xml),
            Name::CloudHypervisor => of(&arguments.cloud_hypervisor_args),
        })
    }
}

impl Form {
    fn targeted(&self, xml: &str) -> String {
        match &self.target {
            // In a path its quotation marks would be escaped.
            Some(target) => xml.replace("<target dev='vdb'", &format!("<target dev='{target}'")),
            None => xml.to_owned(),
        }
    }
}

fn target(text: &str) -> Result<String, &'static str> {
    let letters = text.strip_prefix("vd").unwrap_or_default();
    let is_name = !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase());
    is_name.then(|| text.to_owned()).ok_or("it is vda, vdb, …")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_what_it_is_for_and_nothing_else() {
        let arguments = FrontendArguments::new("disk-1", "/run/s", 2, None);
        let text = |name| {
            let form = Form {
                name,
                target: None,
                qemu: Qemu { qemu_version: None },
            };
            let lines = form.lines(&arguments)?.into_iter();
            let lines = lines.map(|line| match line {
                Block::Line(line) => line,
                other => panic!("{other:?}"),
            });
            Some(lines.collect::<Vec<_>>().join("\n"))
        };
        assert_eq!(text(Name::Text), None);
        assert_eq!(text(Name::Qemu).as_ref(), Some(&arguments.qemu_args));
        assert_eq!(text(Name::QemuDisk).as_ref(), Some(&arguments.qemu_disk_args));
        assert_eq!(text(Name::Libvirt).as_ref(), Some(&arguments.libvirt_xml));
        assert_eq!(
            text(Name::LibvirtMachine).as_ref(),
            Some(&arguments.libvirt_machine_xml)
        );
        assert_eq!(
            text(Name::CloudHypervisor).as_ref(),
            Some(&arguments.cloud_hypervisor_args)
        );
        let form = Form {
            name: Name::Libvirt,
            target: Some("vdc".to_owned()),
            qemu: Qemu { qemu_version: None },
        };
        assert!(
            form.targeted(&arguments.libvirt_xml)
                .contains("<target dev='vdc' bus")
        );
        assert!(
            target("vdaa").is_ok()
                && ["", "vd", "sda", "vd'", "vd1"]
                    .iter()
                    .all(|bad| target(bad).is_err())
        );
        let commands = text(Name::Qmp).unwrap();
        let commands: Vec<serde_json::Value> = commands
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(commands, arguments.qmp);
    }
}

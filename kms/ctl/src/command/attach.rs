//! `sealctl attach`.

use clap::Args;
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, Attachment};

use super::form::Form;
use super::qemu;
use crate::failure::Failure;
use crate::output::{Answer, Block, named, or_dash, yes_no};
use crate::values::{Format, object, path};

const HELP: &str = "\
Prints the vhost-user socket and the arguments to add to QEMU's or cloud-hypervisor's command line. The \
virtual machine's memory must be shared with other processes, as these arguments do.

--format prints what one kind of virtual machine needs, alone, for scripts, files and `virsh attach-device`; `sealctl disk \
attachments` has it, too, later. All name a path of the socket that stays the same when the disk is attached to the instance \
again, unless --vhost-socket names another.

QEMU's arguments are shown for each of its versions. With -o json and --format they are for the QEMU that runs, if the instance \
was registered with --vm-socket; for --qemu-version; or else for the qemu-system-… that is found in PATH.

With --no-start the answer has the sealblk command for another supervisor, such as systemd.

With --plug the disk is plugged into the virtual machine that runs, over the socket that the instance was registered with \
(--vm-socket), and nothing needs to be added anywhere. QEMU needs a pcie-root-port that is free, unless it is a machine \
without PCIe. The memory of the machine must be shared already.

A shared disk can be attached to up to 16 instances, each on a socket of its own; one process serves them all.

Examples:
  sealctl attach data web
  sealctl attach data web --plug
  sealctl attach data web --queues 2 --vhost-socket-owner libvirt-qemu:kvm --vhost-socket-mode 0660
  sealctl attach data web --format libvirt >data.xml && virsh attach-device web data.xml --live
  sealctl attach data web --read-only --vhost-socket /run/vm/data.sock
  sealctl attach data web --no-start";

/// Attaches a disk to an instance.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Attach {
    /// Id or name of the disk.
    #[arg(value_parser = object)]
    disk: String,
    /// Id or name of the instance.
    #[arg(value_parser = object)]
    instance: String,
    /// Most virtqueues that the guest may use, 1 to 16 [default: 4].
    #[arg(long, value_name = "N")]
    queues: Option<u16>,
    /// The guest may only read.
    #[arg(long)]
    read_only: bool,
    /// Path of the vhost-user socket [default: one in the state directory].
    #[arg(long, value_name = "PATH", value_parser = path)]
    vhost_socket: Option<String>,
    /// Owner of the vhost-user socket: who runs the virtual machine [default: that of `sealblk-kms serve`, or else the user that
    /// runs it].
    #[arg(
        long = "vhost-socket-owner",
        alias = "socket-owner",
        value_name = "USER[:GROUP]"
    )]
    socket_owner: Option<String>,
    /// Access mode of the vhost-user socket, octal, such as 0660 [default: that of `sealblk-kms serve`, or else 0600].
    #[arg(long = "vhost-socket-mode", alias = "socket-mode", value_name = "MODE")]
    socket_mode: Option<String>,
    /// Plug the disk into the instance's virtual machine, which runs. Refused, with nothing changed, if that does not take it.
    #[arg(long, conflicts_with = "no_start")]
    plug: bool,
    /// Take the store of a layered disk as it is now, although it is older than it was or was changed meanwhile: after you
    /// have put it back on purpose. Refused with StoreRolledBack otherwise.
    #[arg(long)]
    accept_older: bool,
    /// Do not start sealblk; print the command for another supervisor.
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    form: Form,
}

impl Attach {
    pub(crate) async fn run(self, client: &mut Client, format: Format) -> Result<Answer, Failure> {
        let path = route(&["attachments"]);
        let mut attachment: Attachment = client.post(&path, &self.body(), Patience::Endless).await?;
        if format == Format::Json || self.form.is_chosen() {
            complete(&mut attachment).await;
        }
        let lines = self.form.lines(&attachment.arguments);
        Answer::new(&attachment, lines.unwrap_or_else(|| text(&attachment)))
    }

    fn body(&self) -> api::Attach {
        api::Attach {
            disk: self.disk.clone(),
            instance: self.instance.clone(),
            queues: self.queues,
            read_only: self.read_only,
            vhost_socket: self.vhost_socket.clone(),
            socket_owner: self.socket_owner.clone(),
            socket_mode: self.socket_mode.clone(),
            start: !self.no_start,
            plug: self.plug,
            accept_older: self.accept_older,
            qemu_version: self.form.qemu.qemu_version,
        }
    }
}

/// Makes the arguments those for the QEMU in `PATH`, where the daemon did not know one.
pub(super) async fn complete(attachment: &mut Attachment) {
    let Attachment {
        disk,
        socket,
        named_socket,
        queues,
        arguments,
        ..
    } = attachment;
    let socket = named_socket.as_ref().unwrap_or(socket);
    qemu::complete(arguments, disk, socket, *queues).await;
}

fn text(attachment: &Attachment) -> Vec<Block> {
    let mut blocks = vec![Block::Fields(vec![
        ("attachment", attachment.id.clone()),
        ("disk", named(&attachment.disk_name, &attachment.disk)),
        ("serial", attachment.serial.clone()),
        ("instance", named(&attachment.instance_name, &attachment.instance)),
        ("state", attachment.state.clone()),
        ("socket", attachment.socket.clone()),
        ("socket by name", or_dash(&attachment.named_socket)),
        ("pid", or_dash(&attachment.pid)),
        ("queues", attachment.queues.to_string()),
        ("read-only", yes_no(attachment.read_only)),
        ("plugged", yes_no(attachment.plugged)),
    ])];
    if attachment.plugged {
        return blocks;
    }
    let mut paste = |title: &str, line: &str| {
        let lines = ["", title, line];
        blocks.extend(lines.map(|line| Block::Line(line.to_owned())));
    };
    if let Some(command) = &attachment.command {
        paste("Start it with:", command);
    }
    let socket = attachment.named_socket.as_ref().unwrap_or(&attachment.socket);
    let arguments = qemu::both(&attachment.disk, socket, attachment.queues);
    for (title, arguments) in &arguments {
        paste(title, &arguments.qemu_args);
    }
    let [(_, any), _] = &arguments;
    paste(
        "Arguments for cloud-hypervisor (likewise):",
        &any.cloud_hypervisor_args,
    );
    let further = "A QEMU with several such disks needs -object and -machine once, and -chardev and -device for each. For libvirt, QMP and \
         scripts: --format.";
    blocks.extend(["", further].map(|line| Block::Line(line.to_owned())));
    blocks
}

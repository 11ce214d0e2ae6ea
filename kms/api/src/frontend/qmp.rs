//! What a running QEMU is told.

use serde_json::{Value, json};

/// Gives it the disk; with the option by which it connects again.
pub(super) fn commands(disk: &str, socket: &str, queues: u16, (option, value): (&str, u32)) -> Vec<Value> {
    let address = json!({"type": "unix", "data": {"path": socket}});
    let backend = json!({"type": "socket", "data": {"addr": address, "server": false, option: value}});
    let device = json!({"driver": "vhost-user-blk-pci", "id": disk, "chardev": disk, "num-queues": queues});
    vec![
        json!({"execute": "chardev-add", "arguments": {"id": disk, "backend": backend}}),
        json!({"execute": "device_add", "arguments": device}),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_given_as_it_is_with_the_option_of_the_version() {
        let added = commands("disk-1", "/a,\"b", 2, ("reconnect", 1)).remove(0);
        let backend = &added["arguments"]["backend"]["data"];
        assert_eq!(backend["addr"]["data"]["path"], "/a,\"b");
        assert_eq!(
            (&backend["reconnect"], &backend["reconnect-ms"]),
            (&json!(1), &Value::Null)
        );
    }
}

//! What is in the XML of libvirt's domains.

/// What a domain needs once.
pub(super) const MACHINE: &str = "\
<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>";

/// The disk. A domain has each target once, and `vda` is what most boot from. Its alias becomes the id of QEMU's device.
pub(super) fn disk(disk: &str, socket: &str, queues: u16) -> String {
    let path = escaped(socket);
    format!(
        "\
<disk type='vhostuser' device='disk'>
  <driver name='qemu' type='raw' queues='{queues}'/>
  <source type='unix' path='{path}'>
    <reconnect enabled='yes' timeout='1'/>
  </source>
  <target dev='vdb' bus='virtio'/>
  <alias name='ua-{disk}'/>
</disk>"
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_no_attribute() {
        let xml = disk("disk-1", "/it's <a> & \"b\"", 2);
        assert!(
            xml.contains("<source type='unix' path='/it&apos;s &lt;a&gt; &amp; &quot;b&quot;'>"),
            "{xml}"
        );
        assert!(
            xml.contains("queues='2'") && xml.contains("<alias name='ua-disk-1'/>"),
            "{xml}"
        );
    }
}

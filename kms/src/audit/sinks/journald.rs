//! Records to journald, by its own protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): one datagram a record. It has taken
//! what its socket has; whether that becomes durable is its own affair.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sealblk_api::AuditRecord;
use serde_json::Value;

use super::deliver::{Deliver, line};

/// Of syslog(3).
const WARNING: &str = "4";
const NOTICE: &str = "5";
const INFO: &str = "6";

/// Sends to journald's socket.
pub(super) struct ToJournal {
    socket: PathBuf,
    from: Option<UnixDatagram>,
}

impl ToJournal {
    pub(super) fn new(socket: PathBuf) -> Self {
        ToJournal { socket, from: None }
    }
}

impl Deliver for ToJournal {
    fn deliver(&mut self, records: &[AuditRecord], deadline: Instant, taken: &mut usize) -> io::Result<()> {
        let from = match self.from.take() {
            Some(from) => from,
            None => UnixDatagram::unbound()?,
        };
        for record in records {
            let left = deadline.saturating_duration_since(Instant::now());
            from.set_write_timeout(Some(left.max(Duration::from_millis(1))))?;
            from.send_to(&datagram(record)?, &self.socket)?;
            *taken += 1;
        }
        self.from = Some(from);
        Ok(())
    }
}

/// The record's fields, and all of it in `SEALBLK_RECORD`.
fn datagram(record: &AuditRecord) -> io::Result<Vec<u8>> {
    let priority = match record.decision.as_str() {
        "allowed" => INFO,
        "refused" => NOTICE,
        _ => WARNING,
    };
    let code = record.code.as_deref().map(|code| format!(" ({code})"));
    let message = format!(
        "audit {}: {} {} {}{}",
        record.seq,
        record.call,
        record.object,
        record.decision,
        code.unwrap_or_default()
    );
    let mut fields = Vec::new();
    put(&mut fields, "MESSAGE", &message);
    put(&mut fields, "PRIORITY", priority);
    put(&mut fields, "SYSLOG_IDENTIFIER", "sealblk-kms");
    put(&mut fields, "SEALBLK_RECORD", line(record)?.trim_end());
    let Value::Object(mut whole) = serde_json::to_value(record)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if let Some(Value::Object(details)) = whole.remove("details") {
        whole.extend(details);
    }
    for (name, value) in whole {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            // Lists, and what was asked for, are in the whole.
            _ => continue,
        };
        put(&mut fields, &format!("SEALBLK_{}", name.to_uppercase()), &text);
    }
    Ok(fields)
}

/// A field, in the form that any text may have.
fn put(fields: &mut Vec<u8>, name: &str, text: &str) {
    fields.extend(name.as_bytes());
    fields.push(b'\n');
    fields.extend((text.len() as u64).to_le_bytes());
    fields.extend(text.as_bytes());
    fields.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sinks::tests::record;
    use std::collections::BTreeMap;

    /// As the protocol's description says.
    fn parse(mut bytes: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            bytes = &bytes[end + 1..];
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let text = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
            assert_eq!(bytes[8 + length], b'\n');
            bytes = &bytes[9 + length..];
            fields.insert(name, text);
        }
        fields
    }

    #[test]
    fn a_record_is_a_datagram_whose_fields_nobody_can_forge() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let mut sink = ToJournal::new(socket.clone());
        let mut sent = record(7);
        sent.object = "data\nPRIORITY=0".into();
        let soon = Instant::now() + Duration::from_secs(60);
        let mut taken = 0;
        sink.deliver(&[sent.clone()], soon, &mut taken).unwrap_err();
        assert_eq!(taken, 0);
        let journal = UnixDatagram::bind(&socket).unwrap();
        sink.deliver(&[sent.clone(), record(8)], soon, &mut taken)
            .unwrap();
        assert_eq!(taken, 2);
        let mut buffer = [0; 65536];
        let length = journal.recv(&mut buffer).unwrap();
        let fields = parse(&buffer[..length]);
        for (name, value) in [
            ("PRIORITY", "6"),
            ("SEALBLK_SEQ", "7"),
            ("SEALBLK_CALL", "attach"),
            ("SEALBLK_OBJECT", "data\nPRIORITY=0"),
            ("SEALBLK_DISK", "disk-1"),
            ("SEALBLK_UID", "0"),
            ("SYSLOG_IDENTIFIER", "sealblk-kms"),
        ] {
            assert_eq!(fields[name], value, "{name}");
        }
        let whole: AuditRecord = serde_json::from_str(&fields["SEALBLK_RECORD"]).unwrap();
        assert_eq!(whole.object, sent.object);
        let length = journal.recv(&mut buffer).unwrap();
        assert_eq!(parse(&buffer[..length])["SEALBLK_SEQ"], "8");
    }
}

//! A disk in one argument: `name=data,size=10GiB,encrypted=false`.

use sealblk_api::{CreateDisk, SystemDisk};

use crate::size;
use crate::values::path;

const FIELDS: [&str; 12] = [
    "name",
    "size",
    "encrypted",
    "type",
    "kind",
    "key",
    "store",
    "snapshot",
    "image",
    "zone",
    "shared",
    "path",
];
const SYSTEM_FIELDS: [&str; 6] = ["image", "name", "size", "encrypted", "key", "type"];

/// Parses it; the daemon judges the values.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn parse(text: &str) -> Result<CreateDisk, String> {
    let disk = fields(text, &FIELDS)?;
    match (
        disk.name.is_empty(),
        disk.size.is_none() && disk.snapshot.is_none() && disk.image.is_none(),
    ) {
        (true, _) => Err("a name is needed".to_owned()),
        (_, true) => Err("a size is needed, or a snapshot or an image".to_owned()),
        _ => Ok(disk),
    }
}

/// Parses an instance's system disk: `image=debian-12,size=20GiB`.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn parse_system(text: &str) -> Result<SystemDisk, String> {
    let disk = fields(text, &SYSTEM_FIELDS)?;
    Ok(SystemDisk {
        image: disk.image.ok_or("an image is needed")?,
        name: (!disk.name.is_empty()).then_some(disk.name),
        size: disk.size,
        encrypted: disk.encrypted,
        key: disk.key,
        disk_type: disk.disk_type,
    })
}

fn fields(text: &str, known: &[&str]) -> Result<CreateDisk, String> {
    let mut disk = CreateDisk::default();
    let mut seen = Vec::new();
    for pair in text.split(',') {
        let Some((field, value)) = pair.split_once('=') else {
            return Err(format!("{pair:?} is not FIELD=VALUE"));
        };
        if seen.contains(&field) {
            return Err(format!("{field} is given twice"));
        }
        seen.push(field);
        if !known.contains(&field) {
            return Err(format!("there is no field {field:?}: use {}", known.join(", ")));
        }
        let words = Some(value.to_owned());
        match field {
            "name" => disk.name = value.to_owned(),
            "size" => disk.size = Some(size::parse(value).map_err(|error| error.to_string())?),
            "encrypted" => disk.encrypted = Some(truth(field, value)?),
            "shared" => disk.shared = truth(field, value)?,
            "type" => disk.disk_type = words,
            "kind" => disk.kind = words,
            "key" => disk.key = words,
            "store" => disk.store = words,
            "snapshot" => disk.snapshot = words,
            "image" => disk.image = words,
            "zone" => disk.zone = words,
            _ => disk.path = Some(path(value)?),
        }
    }
    Ok(disk)
}

fn truth(field: &str, value: &str) -> Result<bool, String> {
    value
        .parse()
        .map_err(|_| format!("{field} is true or false, not {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let disk =
            parse("name=a,size=1KiB,encrypted=false,type=essd,kind=local,store=raw,zone=z,path=/f").unwrap();
        assert_eq!(
            (disk.name.as_str(), disk.size, disk.encrypted),
            ("a", Some(1024), Some(false))
        );
        assert_eq!(
            (
                disk.disk_type.as_deref(),
                disk.kind.as_deref(),
                disk.path.as_deref()
            ),
            (Some("essd"), Some("local"), Some("/f"))
        );
        let disk = parse("snapshot=d/s,name=a,key=k").unwrap();
        assert_eq!(
            (disk.snapshot.as_deref(), disk.key.as_deref()),
            (Some("d/s"), Some("k"))
        );
        assert_eq!(parse("image=i,name=a").unwrap().image.as_deref(), Some("i"));
        for wrong in [
            "image=i",
            "",
            "name",
            "name=a",
            "size=1G",
            "name=,size=1G",
            "name=a,size=1G,size=2G",
            "name=a,size=big",
            "name=a,size=1G,encrypted=maybe",
            "name=a,size=1G,colour=red",
            "name=a,size=1G,",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
    #[test]
    fn system_disks() {
        let disk = parse_system("image=a/i,size=1KiB,encrypted=true,key=k,type=ssd").unwrap();
        assert_eq!(
            (disk.image.as_str(), disk.name, disk.size, disk.encrypted),
            ("a/i", None, Some(1024), Some(true))
        );
        let disk = parse_system("name=n,image=i").unwrap();
        assert_eq!((disk.name.as_deref(), disk.size), (Some("n"), None));
        for wrong in [
            "",
            "name=n",
            "image=i,zone=z",
            "image=i,image=j",
            "image=i,path=/f",
        ] {
            assert!(parse_system(wrong).is_err(), "{wrong}");
        }
    }
}

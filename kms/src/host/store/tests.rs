use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::file::is_trusted;
use super::*;
use crate::error::{Code, Error};
use crate::host::paths::Guard;

fn open_new(path: &Path, least: u64, expected: &Expected) -> Result<(File, Identity), StoreError> {
    super::make::open_new(path, least, expected, &Guard::of_owner())
}

const SIZE: u64 = 1 << 20;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn code<T>(result: Result<T, StoreError>) -> Code {
    Error::from(result.err().unwrap()).code()
}

const GIVEN: Expected = Expected::Given(None);

fn known(identity: &Identity) -> Expected {
    Expected::Given(Some(identity.to_text().unwrap()))
}

/// As on a file system that keeps no time of birth.
fn without_birth(identity: &Identity) -> Identity {
    let Identity::File {
        device, inode, made, ..
    } = *identity
    else {
        panic!("no file");
    };
    Identity::File {
        device,
        inode,
        birth: None,
        made,
    }
}

#[test]
fn a_missing_file_is_made_with_its_space_and_removed() {
    let directory = directory();
    let path = directory.path().canonicalize().unwrap().join("disk");
    let (file, identity) = open_new(&path, SIZE, &GIVEN).unwrap();
    fill(&file, &path, SIZE, false).unwrap();
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (SIZE, 0o600));
    assert!(allocated(&path) >= SIZE);
    release(&path, Some(SIZE), &GIVEN).unwrap();
    assert!(path.exists(), "a file of which nothing is known is never removed");
    release(&path, Some(SIZE), &known(&identity)).unwrap();
    assert!(!path.exists());
    release(&path, Some(SIZE), &known(&identity)).unwrap();
}

#[test]
fn another_file_with_the_same_inode_is_neither_removed_nor_served() {
    let directory = directory();
    let path = directory.path().canonicalize().unwrap().join("disk");
    let (_, identity) = open_new(&path, SIZE, &GIVEN).unwrap();
    let Identity::File {
        device, inode, birth, ..
    } = identity
    else {
        panic!("no file");
    };
    if birth.is_none() {
        eprintln!(
            "skipped: the file system of {} keeps no time of birth",
            path.display()
        );
        return;
    }
    for made in [true, false] {
        // What the catalogue knows is another birth: the inode was given to this file after that one was removed.
        let stranger = Identity::File {
            device,
            inode,
            birth: Some("1.000000000".to_owned()),
            made,
        };
        std::fs::write(&path, vec![1; SIZE as usize]).unwrap();
        release(&path, Some(SIZE), &known(&stranger)).unwrap();
        assert_eq!(path.metadata().unwrap().len(), SIZE);
        assert_eq!(
            code(open_for_service(&path, SIZE, &known(&stranger))),
            Code::StoreUnusable
        );
    }
}

#[test]
fn a_file_that_was_there_is_emptied_and_stays() {
    let directory = directory();
    let path = directory.path().canonicalize().unwrap().join("disk");
    File::create(&path).unwrap();
    let (file, identity) = open_new(&path, SIZE, &GIVEN).unwrap();
    fill(&file, &path, SIZE, false).unwrap();
    release(&path, Some(SIZE), &known(&identity)).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 0);
}

#[test]
fn without_a_time_of_birth_device_number_and_length_decide_what_is_lost() {
    let directory = directory();
    let path = directory.path().canonicalize().unwrap().join("disk");
    let (file, identity) = open_new(&path, SIZE, &GIVEN).unwrap();
    let identity = without_birth(&identity);
    std::fs::write(&path, "precious").unwrap();
    release(&path, Some(SIZE), &known(&identity)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    file.set_len(SIZE).unwrap();
    assert!(open_for_service(&path, SIZE, &known(&identity)).is_ok());
    release(&path, Some(SIZE), &known(&identity)).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_directory_that_became_a_link_leads_nowhere() {
    let directory = directory();
    let root = directory.path().canonicalize().unwrap();
    let (real, moved) = (root.join("real"), root.join("moved"));
    std::fs::create_dir(&real).unwrap();
    let path = real.join("disk");
    let (file, identity) = open_new(&path, SIZE, &GIVEN).unwrap();
    fill(&file, &path, SIZE, false).unwrap();
    std::fs::rename(&real, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &real).unwrap();
    assert!(open_for_service(&path, SIZE, &known(&identity)).is_err());
    assert!(open_new(&real.join("new"), SIZE, &GIVEN).is_err());
    assert!(!moved.join("new").exists());
    release(&path, Some(SIZE), &known(&identity)).unwrap();
    assert_eq!(moved.join("disk").metadata().unwrap().len(), SIZE);
    // But `disks/` of the state directory may lie elsewhere.
    let ours = real.join("ours");
    open_new(&ours, SIZE, &Expected::InState)
        .unwrap()
        .0
        .set_len(SIZE)
        .unwrap();
    assert!(open_for_service(&ours, SIZE, &Expected::InState).is_ok());
    release(&ours, Some(SIZE), &Expected::InState).unwrap();
    assert!(!ours.exists());
}

#[test]
fn a_device_is_known_by_its_names_and_else_by_its_size() {
    let device = |serial: Option<&str>, size| Identity::Device {
        attributes: [("partition", Some("1")), ("whole/serial", serial)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect(),
        size,
    };
    assert!(device(Some("a"), 1).is(&device(Some("a"), 2)), "it has grown");
    assert!(!device(Some("a"), 1).is(&device(Some("b"), 1)));
    assert!(!device(Some("a"), 1).is(&device(None, 1)));
    assert!(device(None, 1).is(&device(Some("a"), 1)));
    assert!(!device(None, 1).is(&device(Some("a"), 2)));
}

#[test]
fn an_empty_file_is_taken_and_others_are_refused() {
    let directory = directory();
    let path = directory.path().canonicalize().unwrap().join("disk");
    File::create(&path).unwrap();
    assert!(matches!(
        open_new(&path, SIZE, &GIVEN).unwrap().1,
        Identity::File { made: false, .. }
    ));
    std::fs::write(&path, "x").unwrap();
    assert_eq!(code(open_new(&path, SIZE, &GIVEN)), Code::FileNotEmpty);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(code(open_new(&link, SIZE, &GIVEN)), Code::NotAFileOrBlockDevice);
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &dangling).unwrap();
    assert_eq!(
        code(open_new(&dangling, SIZE, &GIVEN)),
        Code::NotAFileOrBlockDevice
    );
    assert_eq!(
        code(open_new(directory.path(), SIZE, &GIVEN)),
        Code::NotAFileOrBlockDevice
    );
    assert_eq!(
        code(open_new(Path::new("/dev/null"), SIZE, &GIVEN)),
        Code::NotAFileOrBlockDevice
    );
    assert_eq!(
        code(open_new(&directory.path().join("no/such"), SIZE, &GIVEN)),
        Code::InvalidPath
    );
}

#[test]
fn a_full_file_system_is_found_before_anything_is_taken() {
    let directory = directory();
    let path = directory.path().canonicalize().unwrap().join("disk");
    let size = crate::limits::LARGEST_DISK;
    let (file, _) = open_new(&path, size, &GIVEN).unwrap();
    let error = fill(&file, &path, size, false).unwrap_err();
    assert_eq!(Error::from(error).code(), Code::NoSpace);
    assert_eq!(allocated(&path), 0);
}

#[test]
fn a_locked_file_is_in_use() {
    let directory = directory();
    let path = directory.path().canonicalize().unwrap().join("disk");
    // flock(2) locks belong to the open file description, so this process can hold one against itself.
    let holder = File::create(&path).unwrap();
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    assert_eq!(code(open_new(&path, SIZE, &GIVEN)), Code::FileInUse);
    drop(holder);
    assert!(open_new(&path, SIZE, &GIVEN).is_ok());
}

#[test]
fn a_store_that_is_too_small_or_missing_is_not_served() {
    let directory = directory();
    let path = directory.path().canonicalize().unwrap().join("disk");
    assert!(matches!(
        open_for_service(&path, SIZE, &GIVEN),
        Err(StoreError::Io { .. })
    ));
    let file = File::create(&path).unwrap();
    file.set_len(SIZE - 512).unwrap();
    assert!(matches!(
        open_for_service(&path, SIZE, &GIVEN),
        Err(StoreError::TooSmall { .. })
    ));
    file.set_len(SIZE).unwrap();
    assert!(open_for_service(&path, SIZE, &GIVEN).is_ok());
}

/// Whoever can rename a directory on the way puts there what root has made elsewhere.
#[test]
fn a_link_is_trusted_where_nobody_else_can_have_put_it_or_its_directory() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    let above = directory.path().join("above");
    let below = above.join("below");
    std::fs::create_dir_all(&below).unwrap();
    let link = below.join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for (modes, expected) in [
        ([0o755, 0o755], true),
        ([0o777, 0o755], false),
        ([0o1777, 0o755], true),
        ([0o755, 0o777], false),
        ([0o755, 0o1777], false),
    ] {
        for (path, mode) in [&above, &below].into_iter().zip(modes) {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        let found = std::fs::symlink_metadata(&link).unwrap();
        assert_eq!(is_trusted(&found, &link).unwrap(), expected, "{modes:?}");
    }
}

use super::*;

const SIZE: u64 = 1 << 20;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn code(result: Result<(File, Option<i64>), StoreError>) -> Code {
    Error::from(result.err().unwrap()).code()
}

#[test]
fn a_missing_file_is_made_with_its_space_and_removed_only_by_its_inode() {
    let directory = directory();
    let path = directory.path().join("disk");
    let (file, inode) = open_new(&path, SIZE).unwrap();
    fill(&file, &path, SIZE, false).unwrap();
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (SIZE, 0o600));
    assert!(allocated(&path) >= SIZE);
    remove(&path, inode.unwrap() + 1).unwrap();
    assert!(path.exists(), "another file is never removed");
    remove(&path, inode.unwrap()).unwrap();
    assert!(!path.exists());
    remove(&path, inode.unwrap()).unwrap();
}

#[test]
fn an_empty_file_is_taken_and_others_are_refused() {
    let directory = directory();
    let path = directory.path().join("disk");
    File::create(&path).unwrap();
    assert!(open_new(&path, SIZE).unwrap().1.is_some());
    std::fs::write(&path, "x").unwrap();
    assert_eq!(code(open_new(&path, SIZE)), Code::FileNotEmpty);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(code(open_new(&link, SIZE)), Code::NotAFileOrBlockDevice);
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &dangling).unwrap();
    assert_eq!(code(open_new(&dangling, SIZE)), Code::NotAFileOrBlockDevice);
    assert_eq!(
        code(open_new(directory.path(), SIZE)),
        Code::NotAFileOrBlockDevice
    );
    assert_eq!(
        code(open_new(Path::new("/dev/null"), SIZE)),
        Code::NotAFileOrBlockDevice
    );
    assert_eq!(
        code(open_new(&directory.path().join("no/such"), SIZE)),
        Code::InvalidPath
    );
}

#[test]
fn a_full_file_system_is_found_before_anything_is_taken() {
    let directory = directory();
    let path = directory.path().join("disk");
    let size = crate::limits::LARGEST_DISK;
    let (file, _) = open_new(&path, size).unwrap();
    let error = fill(&file, &path, size, false).unwrap_err();
    assert_eq!(Error::from(error).code(), Code::NoSpace);
    assert_eq!(allocated(&path), 0);
}

#[test]
fn a_locked_file_is_in_use() {
    let directory = directory();
    let path = directory.path().join("disk");
    // flock(2) locks belong to the open file description, so this process can hold one against itself.
    let holder = File::create(&path).unwrap();
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    assert_eq!(code(open_new(&path, SIZE)), Code::FileInUse);
    drop(holder);
    assert!(open_new(&path, SIZE).is_ok());
}

#[test]
fn a_store_that_is_too_small_or_missing_is_not_served() {
    let directory = directory();
    let path = directory.path().join("disk");
    assert!(matches!(
        open_for_service(&path, SIZE),
        Err(StoreError::Io { .. })
    ));
    let file = File::create(&path).unwrap();
    file.set_len(SIZE - 512).unwrap();
    assert!(matches!(
        open_for_service(&path, SIZE),
        Err(StoreError::TooSmall { .. })
    ));
    file.set_len(SIZE).unwrap();
    assert!(open_for_service(&path, SIZE).is_ok());
}

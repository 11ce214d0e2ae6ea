use super::*;

fn world() -> (tempfile::TempDir, HostPaths, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    for name in ["state", "acme", "acme/below", "other"] {
        std::fs::create_dir(real.join(name)).unwrap();
    }
    let state = StateDir::open(&real.join("state")).unwrap();
    let mut paths = HostPaths::new(&state, Some(0));
    let mut permitted = Permitted::default();
    let prefix = Prefix::parse(real.join("acme").to_str().unwrap()).unwrap();
    permitted.insert("acme".to_owned(), vec![prefix]);
    paths.configure(&state, permitted, vec![real.join("other/passphrase")]);
    (directory, paths, real)
}

fn caller(uid: u32, account: &str) -> Caller {
    Caller {
        account: account.to_owned(),
        uid,
        pid: 1,
        request: "req-test".to_owned(),
        facts: crate::caller::Facts::default(),
    }
}

#[test]
fn what_an_account_names_is_decided_by_what_is_written_and_opened_without_links() {
    let (_directory, paths, real) = world();
    let open = |uid, account: &str, path: PathBuf| {
        let named = paths.named(&caller(uid, account), path.to_str().unwrap());
        named
            .and_then(Named::open)
            .map(HostPath::into_string)
            .map_err(|error| error.code())
    };
    let text = |name: &str| real.join(name).to_str().unwrap().to_owned();
    assert_eq!(
        open(7, "acme", real.join("acme/below/file")),
        Ok(text("acme/below/file"))
    );
    assert_eq!(
        open(7, "acme", real.join("acme/./below/../file")),
        Ok(text("acme/file"))
    );
    assert_eq!(
        open(7, "acme", real.join("acme/../other/file")),
        Err(Code::PathNotAllowed)
    );
    assert_eq!(
        open(7, "acme", real.join("acme/missing/file")),
        Err(Code::InvalidPath)
    );
    assert_eq!(open(7, "beta", real.join("acme/file")), Err(Code::PathNotAllowed));
    assert_eq!(
        open(0, "default", real.join("other/file")),
        Ok(text("other/file"))
    );
    assert_eq!(
        open(0, "default", real.join("other/passphrase")),
        Err(Code::InvalidPath),
        "also while it is missing"
    );
    // The owner's user alone is the owner.
    assert_eq!(
        open(8, "default", real.join("other/file")),
        Err(Code::PathNotAllowed)
    );
    std::os::unix::fs::symlink(real.join("other"), real.join("acme/link")).unwrap();
    assert_eq!(
        open(7, "acme", real.join("acme/link/file")),
        Err(Code::InvalidPath)
    );
    assert_eq!(
        open(0, "default", real.join("acme/link/file")),
        Ok(text("other/file"))
    );
    std::os::unix::fs::symlink(real.join("state"), real.join("other/state")).unwrap();
    assert_eq!(
        open(0, "default", real.join("other/state/root.key.next")),
        Err(Code::InvalidPath)
    );
    for bad in ["", "acme/file", "/", "/..", "/acme/..", "/a\0b"] {
        assert_eq!(open(0, "default", bad.into()), Err(Code::InvalidPath), "{bad:?}");
    }
}

/// Whoever may rename the directory puts another one, or a link, in its place after it was looked at.
#[test]
fn what_was_checked_is_what_is_used() {
    let (_directory, paths, real) = world();
    let path = real.join("acme/below/file");
    let named = paths.named(&caller(7, "acme"), path.to_str().unwrap()).unwrap();
    let opened = named.open().unwrap();
    std::fs::rename(real.join("acme/below"), real.join("acme/moved")).unwrap();
    std::os::unix::fs::symlink(real.join("other"), real.join("acme/below")).unwrap();
    std::fs::write(real.join("other/file"), "precious").unwrap();
    // What lies in the directory that was opened is nothing, and a store is not made through the link.
    let guard = paths.guard(7);
    assert!(crate::host::store::check_new(&opened, &guard).is_ok());
    let expected = crate::host::store::Expected::of(Some(opened.as_str()), None);
    assert!(crate::host::store::Fresh::open(&path, 512, &expected, &guard).is_err());
    assert!(crate::host::store::look_at(&path, 512, &guard).is_err());
    assert_eq!(std::fs::read(real.join("other/file")).unwrap(), b"precious");
}

//! Copies with real data, through both ciphers, and killed on the way.

use std::fs;
use std::process::Stdio;

use sealblk_e2e::frontend::Guest;
use sealblk_e2e::kms::{self, Kms, text};
use sealblk_e2e::search::{Needle, found_below};
use sealblk_e2e::{eventually, process};

const BLOCK: usize = 4096;
const NEEDLE: &[u8; 32] = b"plaintext that nobody must find.";

/// Attaches the disk, lets a guest do something with it, and detaches it.
fn with_guest<T>(kms: &Kms, disk: &str, work: impl FnOnce(&mut Guest) -> T) -> T {
    let attachment = kms.ok(&["attach", disk, "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    let result = work(&mut guest);
    drop(guest);
    kms.ok(&["detach", disk, "--force"]);
    result
}

fn started() -> Kms {
    let kms = Kms::start();
    kms.ok(&["instance", "register", "vm"]);
    kms
}

/// A block with the needle in it, at the beginning and near the end of the disk.
fn fill(kms: &Kms, disk: &str) {
    with_guest(kms, disk, |guest| {
        guest.write(0, &NEEDLE.repeat(BLOCK / NEEDLE.len()));
        guest.write(2040, &[7; BLOCK]);
        guest.flush();
    });
}

fn is_filled(kms: &Kms, disk: &str) {
    with_guest(kms, disk, |guest| {
        assert_eq!(
            guest.read(0, BLOCK),
            NEEDLE.repeat(BLOCK / NEEDLE.len()),
            "{disk}"
        );
        assert_eq!(guest.read(8, BLOCK), [0; BLOCK], "{disk}");
        assert_eq!(guest.read(2040, BLOCK), [7; BLOCK], "{disk}");
    });
}

/// A raw image of 1 GiB that takes a while to copy: it begins as [`fill`] leaves a disk, and is data else.
fn long_image(kms: &Kms) -> String {
    let path = kms.path_text("long.img");
    let file = fs::File::create(&path).unwrap();
    let write =
        |bytes: &[u8], offset| std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
    write(&NEEDLE.repeat(BLOCK / NEEDLE.len()), 0);
    write(&[7; BLOCK], 2040 * 512);
    (1..1 << 10).for_each(|mebibyte| write(&[5; 1 << 20], mebibyte << 20));
    path
}

#[test]
fn rule_d04_data_is_copied_between_plain_and_encrypted_raw_and_layered_disks() {
    let kms = started();
    kms.create("source", &[]);
    fill(&kms, "source");
    let mut from = "source".to_owned();
    for (name, options) in [
        ("layered", vec![]),
        ("raw", vec!["--store", "raw"]),
        ("plain", vec!["--encrypted=false"]),
        ("raw-plain", vec!["--store", "raw", "--encrypted=false"]),
        ("again", vec![]),
    ] {
        kms.create(name, &options);
        let copied = kms.ok(&["disk", "copy", &from, name]);
        assert_eq!(
            (text(&copied, "state"), text(&copied["copy"], "phase")),
            ("available", "done")
        );
        is_filled(&kms, name);
        from = name.to_owned();
    }
    let lineage = |disk: &str| kms.disk(disk)["lineage"].clone();
    assert_ne!(lineage("source"), lineage("layered"), "a new lineage");
    // What the plain disks hold is their affair; encrypted ones hold no plaintext.
    for disk in ["plain", "raw-plain"] {
        kms.ok(&["disk", "delete", disk, "--now"]);
    }
    let needle = Needle::text("the data", NEEDLE);
    assert_eq!(found_below(&kms.state(), &[needle]).0, Vec::<String>::new());
}

#[test]
fn rule_d04_a_copy_goes_on_after_its_process_and_the_kms_were_killed() {
    let mut kms = started();
    kms.ok(&["disk", "create", "source", "--size", "1GiB", "--store", "raw"]);
    kms.ok(&["disk", "create", "copy", "--size", "1GiB"]);
    fill(&kms, "source");
    // Of an encrypted raw disk that was never written all sectors are noise: there is much to copy.
    kms.ok(&["disk", "copy", "source", "copy", "--no-wait"]);
    let progress = |kms: &Kms| kms.disk("copy")["copy"].clone();
    eventually("a position", || {
        (progress(&kms)["done"].as_u64() > Some(64 << 20)).then_some(())
    });
    for pid in process::processes_of(&kms.state().join("run")) {
        process::kill(pid);
    }
    kms.kill();
    kms.serve();
    eventually("its end", || (progress(&kms)["phase"] == "done").then_some(()));
    is_filled_in(&kms);
    kms.refused(&["disk", "copy", "source", "copy"], "DiskNotEmpty", Some("D04"));
}

fn is_filled_in(kms: &Kms) {
    let noise = with_guest(kms, "source", |guest| guest.read(1_500_000, BLOCK));
    with_guest(kms, "copy", |guest| {
        assert_eq!(guest.read(2040, BLOCK), [7; BLOCK]);
        assert_eq!(guest.read(1_500_000, BLOCK), noise);
    });
}

#[test]
fn a_copy_that_is_thin_stays_thin_and_another_one_can_be_cancelled() {
    let kms = started();
    // Never written, it is noise throughout.
    kms.ok(&["disk", "create", "long", "--size", "1GiB", "--store", "raw"]);
    kms.ok(&["disk", "create", "source", "--size", "100GiB"]);
    fill(&kms, "source");
    kms.ok(&["disk", "create", "copy", "--size", "200GiB"]);
    kms.ok(&["disk", "copy", "long", "copy", "--no-wait"]);
    kms.ok(&["disk", "copy", "--cancel", "copy"]);
    kms.refused(&["disk", "copy", "source", "copy"], "DiskNotEmpty", Some("D04"));
    kms.ok(&["disk", "copy", "source", "copy", "--overwrite"]);
    is_filled(&kms, "copy");
    let path = kms.disk("copy")["path"].as_str().unwrap().to_owned();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap());
    assert!(blocks * 512 < 64 << 20, "{blocks}");
}

#[test]
fn what_is_exported_and_imported_is_the_same_data() {
    let kms = started();
    kms.create("source", &[]);
    fill(&kms, "source");
    let image = kms.path_text("image");
    kms.refused(&["disk", "export", "source", &image], "DecryptionNotAsked", None);
    kms.ok(&["disk", "export", "source", &image, "--decrypt"]);
    let bytes = fs::read(&image).unwrap();
    assert_eq!(bytes.len(), 1 << 20);
    assert_eq!(&bytes[..NEEDLE.len()], NEEDLE);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image).unwrap());
    assert!(blocks * 512 <= 64 << 10, "{blocks}: sparse");
    kms.ok(&["disk", "import", "back", &image]);
    is_filled(&kms, "back");
    kms.ok(&[
        "disk",
        "import",
        "plain",
        &image,
        "--encrypted=false",
        "--store",
        "raw",
        "--size",
        "2MiB",
    ]);
    is_filled(&kms, "plain");
    fs::write(&image, [&b"KDMV"[..], &[0; 65536]].concat()).unwrap();
    let sentence = kms.refused(&["disk", "import", "other", &image], "FormatNotSupported", None);
    assert!(sentence.contains("qemu-img convert"), "{sentence}");
    kms.ok(&["disk", "import", "other", &image, "--format", "raw"]);
    assert_eq!(kms.disk("other")["size"], 66048);
}

#[test]
fn standard_input_and_output_are_files_and_pipes() {
    let kms = started();
    kms.create("source", &[]);
    fill(&kms, "source");
    let run = |words: &[&str], stdin: Stdio, stdout: Stdio| {
        let mut command = kms.sealctl_program(words);
        let output = command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let output = output.spawn().unwrap().wait_with_output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        output.stdout
    };
    let export = ["disk", "export", "source", "-", "--decrypt"];
    let image = kms.path_text("image");
    // As a shell opens it.
    run(&export, Stdio::null(), fs::File::create(&image).unwrap().into());
    let bytes = fs::read(&image).unwrap();
    assert_eq!((bytes.len(), &bytes[..NEEDLE.len()]), (1 << 20, &NEEDLE[..]));
    assert!(
        run(&export, Stdio::null(), Stdio::piped()) == bytes,
        "what comes through a pipe"
    );
    let import = |name| ["disk", "import", name, "-", "--format", "raw"];
    run(
        &import("file"),
        fs::File::open(&image).unwrap().into(),
        Stdio::piped(),
    );
    is_filled(&kms, "file");
    let mut cat = std::process::Command::new("cat")
        .arg(&image)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    run(&import("pipe"), cat.stdout.take().unwrap().into(), Stdio::piped());
    is_filled(&kms, "pipe");
    assert!(cat.wait().unwrap().success());
    // qcow2, as an image.
    fs::write(&image, qcow2(0)).unwrap();
    run(
        &["image", "import", "base", "-"],
        fs::File::open(&image).unwrap().into(),
        Stdio::piped(),
    );
    assert!(run(&["image", "export", "base", "-"], Stdio::null(), Stdio::piped()) == bytes);
}

/// A qcow2 image of 1 MiB with what [`fill`] writes, of clusters of 4 KiB: a header, the first table, a table, two of data.
fn qcow2(extra: u64) -> Vec<u8> {
    let mut bytes = vec![0; 6 * BLOCK];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(8, &extra.to_be_bytes());
    put(20, &12_u32.to_be_bytes());
    put(24, &(1_u64 << 20).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &(BLOCK as u64).to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(BLOCK, &(2 * BLOCK as u64).to_be_bytes());
    put(2 * BLOCK, &(3 * BLOCK as u64).to_be_bytes());
    put(2 * BLOCK + 8 * 255, &(5 * BLOCK as u64).to_be_bytes());
    put(3 * BLOCK, &NEEDLE.repeat(BLOCK / NEEDLE.len()));
    put(5 * BLOCK, &[7; BLOCK]);
    bytes
}

#[test]
fn qcow2_images_are_imported_and_no_other_file_is_opened() {
    let kms = started();
    let image = kms.path_text("image.qcow2");
    fs::write(&image, qcow2(0)).unwrap();
    let imported = kms.ok(&["disk", "import", "sealed", &image]);
    assert_eq!(imported["size"], 1 << 20);
    is_filled(&kms, "sealed");
    kms.ok(&[
        "disk",
        "import",
        "larger",
        &image,
        "--size",
        "2MiB",
        "--store",
        "raw",
        "--encrypted=false",
    ]);
    is_filled(&kms, "larger");
    let needle = Needle::text("the data", NEEDLE);
    kms.ok(&["disk", "delete", "larger", "--now"]);
    assert_eq!(found_below(&kms.state(), &[needle]).0, Vec::<String>::new());
    // As it is: what a guest has written to a raw disk is no image.
    kms.ok(&["disk", "import", "as-it-is", &image, "--format", "raw"]);
    assert_eq!(kms.disk("as-it-is")["size"], 6 * BLOCK);
    with_guest(&kms, "as-it-is", |guest| {
        assert_eq!(guest.read(24, BLOCK), NEEDLE.repeat(BLOCK / 32))
    });

    let refuse = |bytes: &[u8], text: &str| {
        fs::write(&image, bytes).unwrap();
        let sentence = kms.refused(&["disk", "import", "other", &image], "FormatNotSupported", None);
        assert!(sentence.contains(text), "{sentence}");
    };
    refuse(&qcow2(104), "backing file");
    let mut with_data_file = qcow2(0);
    with_data_file[79] = 4;
    refuse(&with_data_file, "its data is in another file");
    refuse(&qcow2(0)[..60], "ends within its header");
    fs::write(&image, b"no image").unwrap();
    let forced = ["disk", "import", "other", &image, "--format", "qcow2"];
    kms.refused(&forced, "FormatNotSupported", None);
}

#[test]
fn a_damaged_qcow2_image_fails_with_its_reason() {
    let kms = started();
    let image = kms.path_text("image.qcow2");
    let mut far = qcow2(0);
    far[2 * BLOCK + 2] = 1;
    for (name, bytes, reason) in [
        ("short", &qcow2(0)[..5 * BLOCK + 100], "cut short"),
        ("far", &far, "cut short"),
        ("no-table", &qcow2(0)[..2 * BLOCK + 8], "cut short"),
    ] {
        fs::write(&image, bytes).unwrap();
        let why = kms
            .sealctl(&["disk", "import", name, &image])
            .refusal("CopyFailed", None);
        assert!(why.contains(reason), "{why}");
        assert_eq!(text(&kms.disk(name), "state"), "error");
        kms.ok(&["disk", "delete", name, "--now"]);
    }
}

#[test]
fn rule_i01_an_image_is_made_of_a_file_plain_or_encrypted() {
    let kms = started();
    let file = kms.path_text("image.qcow2");
    fs::write(&file, qcow2(0)).unwrap();
    let open = kms.ok(&["image", "import", "open", &file]);
    assert_eq!(
        (text(&open, "state"), &open["encrypted"], &open["size"]),
        ("available", &false.into(), &(1 << 20).into())
    );
    let creates = kms.metered("create");
    let sealed = kms.ok(&["image", "import", "sealed", &file, "--encrypted"]);
    assert_eq!(
        (&sealed["encrypted"], kms.metered("create")),
        (&true.into(), creates + 1)
    );
    kms.refused(&["image", "import", "open", &file], "NameTaken", None);
    for image in ["open", "sealed"] {
        kms.ok(&["disk", "create", image, "--image", image]);
        is_filled(&kms, image);
    }
    assert_eq!(kms.disk("sealed")["lineage"], sealed["lineage"]);
    for image in ["open", "sealed"] {
        kms.ok(&["disk", "delete", image, "--now"]);
    }
    let exported = kms.path_text("exported.img");
    kms.ok(&["image", "export", "open", &exported]);
    is_exported(&exported);
    kms.ok(&["image", "delete", "open"]);
    let needle = Needle::text("the data", NEEDLE);
    eventually("the clone and the plain image have gone", || {
        (stores(&kms) == 1).then_some(())
    });
    assert_eq!(found_below(&kms.state(), &[needle]).0, Vec::<String>::new());
    kms.ok(&["image", "delete", "sealed"]);
    eventually("nothing is left", || (stores(&kms) == 0).then_some(()));
}

#[test]
fn an_import_of_an_image_goes_on_after_its_process_and_the_kms_were_killed() {
    let mut kms = started();
    let file = long_image(&kms);
    kms.ok(&["image", "import", "base", &file, "--encrypted", "--no-wait"]);
    let shown = |kms: &Kms| kms.ok(&["image", "show", "base"]);
    eventually("a position", || {
        (shown(&kms)["copy"]["done"].as_u64() > Some(64 << 20)).then_some(())
    });
    kms.sealctl(&["disk", "create", "early", "--image", "base"])
        .refusal("ImageNotAvailable", None);
    for pid in process::processes_of(&kms.state().join("run")) {
        process::kill(pid);
    }
    kms.kill();
    kms.serve();
    eventually("its end", || (shown(&kms)["state"] == "available").then_some(()));
    kms.ok(&["disk", "create", "disk", "--image", "base"]);
    is_filled(&kms, "disk");
}

#[test]
fn an_import_of_an_image_that_is_deleted_or_fails_leaves_nothing() {
    let kms = started();
    let file = long_image(&kms);
    kms.ok(&["image", "import", "base", &file, "--no-wait"]);
    kms.ok(&["image", "delete", "base"]);
    eventually("nothing is left", || (stores(&kms) == 0).then_some(()));
    fs::write(&file, &qcow2(0)[..5 * BLOCK]).unwrap();
    let why = kms
        .sealctl(&["image", "import", "base", &file, "--encrypted"])
        .refusal("CopyFailed", None);
    assert!(why.contains("cut short"), "{why}");
    assert_eq!(text(&kms.ok(&["image", "show", "base"]), "state"), "error");
    kms.refused(
        &["disk", "create", "disk", "--image", "base"],
        "ImageNotAvailable",
        None,
    );
    kms.ok(&["image", "delete", "base"]);
    assert_eq!(stores(&kms), 0);
}

#[test]
fn rule_i03_a_backup_outlives_its_disk_and_is_restored_encrypted_or_plain() {
    let kms = started();
    kms.create("source", &[]);
    fill(&kms, "source");
    let backup = kms.ok(&["backup", "create", "source", "monday"]);
    assert_eq!(text(&backup, "state"), "available");
    let needle = Needle::text("the data", NEEDLE);
    assert_eq!(found_below(&kms.state(), &[needle]).0, Vec::<String>::new());
    kms.ok(&["disk", "delete", "source", "--now"]);
    kms.ok(&["backup", "restore", "monday", "sealed"]);
    is_filled(&kms, "sealed");
    kms.ok(&["backup", "restore", "monday", "open", "--plain"]);
    is_filled(&kms, "open");
    assert_eq!(
        (&kms.disk("sealed")["size"], &kms.disk("open")["encrypted"]),
        (&backup["size"], &false.into())
    );
    kms.ok(&["backup", "delete", "monday"]);
    assert!(!kms::path(&backup, "path").exists());
}

/// Files of disks, also of those that nobody sees.
fn stores(kms: &Kms) -> usize {
    fs::read_dir(kms.state().join("disks")).unwrap().count()
}

/// The image `base` of the plain disk `source`, which is changed afterwards.
fn with_image(kms: &Kms, size: &str) {
    kms.ok(&["disk", "create", "source", "--size", size, "--encrypted=false"]);
    fill(kms, "source");
    make_image(kms);
}

/// The same, of a disk that takes a while to copy.
fn with_long_image(kms: &Kms) {
    let file = long_image(kms);
    kms.ok(&["disk", "import", "source", &file, "--encrypted=false"]);
    make_image(kms);
}

fn make_image(kms: &Kms) {
    kms.ok(&["image", "create", "base", "--disk", "source"]);
    with_guest(kms, "source", |guest| {
        guest.write(0, &[9; BLOCK]);
        guest.flush();
    });
}

fn is_exported(file: &str) {
    let mut bytes = [0; 1 << 20];
    std::io::Read::read_exact(&mut fs::File::open(file).unwrap(), &mut bytes).unwrap();
    assert!(bytes[..BLOCK] == NEEDLE.repeat(BLOCK / NEEDLE.len()));
    assert!(bytes[2040 * 512..][..BLOCK] == [7; BLOCK]);
}

fn is_sparse(file: &str) {
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(file).unwrap());
    assert!(blocks * 512 <= 64 << 10, "{blocks}: sparse");
}

#[test]
fn rule_i07_a_plain_image_is_written_to_a_file() {
    let kms = started();
    with_image(&kms, "1MiB");
    kms.ok(&["attach", "source", "vm"]);
    let file = kms.path_text("base.img");
    let image = kms.ok(&["image", "export", "base", &file]);
    assert_eq!(
        (text(&image, "state"), text(&image["copy"], "phase")),
        ("available", "done")
    );
    assert_eq!(fs::metadata(&file).unwrap().len(), 1 << 20);
    is_exported(&file);
    is_sparse(&file);
    eventually("the clone has gone", || {
        (kms.ok(&["snapshot", "show", "source/base"])["clones"] == 0).then_some(())
    });
    assert_eq!(stores(&kms), 1);
    kms.refused(&["image", "export", "base", &file], "FileNotEmpty", None);
    // A file is of the image as it is, whatever becomes of the disk and the snapshot.
    kms.ok(&["detach", "source", "--force"]);
    kms.ok(&["snapshot", "delete", "source/base"]);
    kms.ok(&["disk", "delete", "source", "--now"]);
    let again = kms.path_text("again.img");
    kms.ok(&["image", "export", "base", &again]);
    is_exported(&again);
    kms.ok(&["disk", "import", "back", &again]);
    is_filled(&kms, "back");
    assert_eq!(kms.ok(&["image", "show", "base"])["copy"]["phase"], "done");
    kms.ok(&["image", "delete", "base"]);
    eventually("only the disk is left", || (stores(&kms) == 1).then_some(()));
}

#[test]
fn an_export_of_an_image_goes_on_after_its_process_and_the_kms_were_killed() {
    let mut kms = started();
    with_long_image(&kms);
    let file = kms.path_text("base.img");
    kms.ok(&["image", "export", "base", &file, "--no-wait"]);
    let progress = |kms: &Kms| kms.ok(&["image", "show", "base"])["copy"].clone();
    eventually("a position", || {
        (progress(&kms)["done"].as_u64() > Some(64 << 20)).then_some(())
    });
    let other = kms.path_text("other.img");
    for call in [
        &["image", "delete", "base"][..],
        &["image", "export", "base", &other],
    ] {
        kms.sealctl(call).refusal("ImageNotAvailable", None);
    }
    for pid in process::processes_of(&kms.state().join("run")) {
        process::kill(pid);
    }
    kms.kill();
    kms.serve();
    eventually("its end", || (progress(&kms)["phase"] == "done").then_some(()));
    is_exported(&file);
    eventually("the clone has gone", || (stores(&kms) == 1).then_some(()));
}

#[test]
fn an_export_of_an_image_that_is_cancelled_or_fails_leaves_no_file() {
    let kms = started();
    with_long_image(&kms);
    let file = kms.path_text("base.img");
    kms.refused(&["image", "export", "--cancel", "base"], "NoCopy", None);
    kms.ok(&["image", "export", "base", &file, "--no-wait"]);
    let cancelled = kms.ok(&["image", "export", "--cancel", "base"]);
    assert_eq!(cancelled["copy"]["phase"], "cancelled");
    assert!(!fs::exists(&file).unwrap());
    eventually("the clone has gone", || (stores(&kms) == 1).then_some(()));
    // The snapshot is free again.
    kms.ok(&["image", "delete", "base"]);
    kms.ok(&["snapshot", "delete", "source/base"]);
    kms.ok(&["disk", "delete", "source", "--now"]);
    eventually("nothing is left", || (stores(&kms) == 0).then_some(()));
}

#[test]
fn rule_i03_a_backup_of_a_snapshot_is_made_while_its_disk_is_in_use() {
    let kms = started();
    kms.create("source", &[]);
    fill(&kms, "source");
    kms.ok(&["snapshot", "create", "source", "before"]);
    let attachment = kms.ok(&["attach", "source", "vm"]);
    let mut guest = Guest::connect(kms::path(&attachment, "socket"));
    guest.write(0, &[9; BLOCK]);
    let backup = kms.ok(&["backup", "create", "monday", "--snapshot", "source/before"]);
    assert_eq!(
        (text(&backup, "state"), text(&backup, "disk_name")),
        ("available", "source")
    );
    assert_eq!(backup["lineage"], kms.disk("source")["lineage"]);
    assert_eq!(guest.read(0, BLOCK), [9; BLOCK]);
    drop(guest);
    kms.ok(&["detach", "source", "--force"]);
    kms.ok(&["snapshot", "delete", "source/before"]);
    kms.ok(&["disk", "delete", "source", "--now"]);
    eventually("the clone has gone", || (stores(&kms) == 0).then_some(()));
    kms.ok(&["backup", "restore", "monday", "back"]);
    is_filled(&kms, "back");
}

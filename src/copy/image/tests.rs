use std::os::unix::fs::FileExt;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;
const SIZE: usize = 3 * MIB + 1024;

fn open(file: &File) -> Result<Image, ImageError> {
    open_of_size(file, SIZE as u64)
}

fn open_of_size(file: &File, size: u64) -> Result<Image, ImageError> {
    Image::open(RawStore::foreign(file.try_clone().unwrap()).unwrap(), size)
}

/// Data with holes, with compressible parts and others, and with an end within a cluster.
fn data() -> Vec<u8> {
    let mut data = vec![0; SIZE];
    data[..200_000].fill(7);
    let mut noise = 1_u64;
    for byte in &mut data[MIB..2 * MIB] {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (noise >> 56) as u8;
    }
    data[SIZE - 700..].fill(9);
    data
}

/// An image of [`data`] as `qemu-img` makes it; none where there is no `qemu-img`.
fn converted(options: &[&str]) -> Option<tempfile::NamedTempFile> {
    converted_of(&data(), options)
}

fn converted_of(data: &[u8], options: &[&str]) -> Option<tempfile::NamedTempFile> {
    let [raw, image] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
    std::fs::write(&raw, data).unwrap();
    let converted = Command::new("qemu-img")
        .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
        .args(options)
        .args([raw.path(), image.path()])
        .status();
    match converted {
        Ok(status) => {
            assert!(status.success());
            Some(image)
        }
        Err(_) => {
            eprintln!("skipped: there is no qemu-img");
            None
        }
    }
}

/// All data, in pieces that do not fit clusters.
fn read_all(image: &Image) -> io::Result<Vec<u8>> {
    let mut all = vec![0xee; SIZE];
    for (number, piece) in all.chunks_mut(150 * 512).enumerate() {
        image.read((number * 150 * 512) as u64, piece)?;
    }
    Ok(all)
}

#[test]
fn images_that_qemu_makes_are_read() {
    for options in [
        &["-o", "compat=1.1"][..],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-c"],
        &["-c", "-o", "cluster_size=4k"],
        &["-c", "-o", "compat=0.10,cluster_size=1M"],
        &["-o", "preallocation=metadata"],
        &["-o", "refcount_bits=1,lazy_refcounts=off"],
        &["-S", "0"],
    ] {
        let Some(file) = converted(options) else { return };
        let image = open(file.as_file()).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert!(read_all(&image).unwrap() == data(), "{options:?}");
        let mut beyond = [1; 4096];
        image.read(SIZE as u64 - 1024, &mut beyond).unwrap();
        assert!(beyond[1024 - 700..1024] == [9; 700] && beyond[1024..] == [0; 3072]);
    }
}

/// With more tables than are kept in memory.
#[test]
fn several_threads_read_at_once() {
    let data: Vec<u8> = (0..8 * MIB as u64).map(|at| (at / 512 + at) as u8).collect();
    let Some(file) = converted_of(&data, &["-o", "cluster_size=512"]) else {
        return;
    };
    let image = &open_of_size(file.as_file(), data.len() as u64).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let data = &data;
            scope.spawn(move || {
                let mut piece = [0; 64 << 10];
                // Each in an order of its own.
                for number in 0..data.len() / piece.len() {
                    let at = (number * 37 + thread * 11) * piece.len() % data.len();
                    image.read(at as u64, &mut piece).unwrap();
                    assert!(piece[..] == data[at..at + piece.len()], "{at}");
                }
            });
        }
    });
}

/// What is called zeros is zeros, and goes on to the next data, also where clusters are there and holes of the file.
#[test]
fn zeros_end_where_data_begins() {
    for options in [
        &["-o", "compat=1.1"][..],
        &["-o", "cluster_size=512"],
        &["-c"],
        &["-o", "preallocation=metadata"],
    ] {
        let Some(file) = converted(options) else { return };
        let image = open(file.as_file()).unwrap();
        let data = data();
        for offset in (0..SIZE).step_by(64 << 10) {
            let zeros = image.zeros(offset as u64, (SIZE - offset) as u64).unwrap() as usize;
            let expected = data[offset..].iter().take_while(|byte| **byte == 0).count();
            // Data begins with a cluster, of which the largest here have 64 KiB.
            assert!(
                zeros <= expected && expected - zeros < 64 << 10,
                "{options:?} {offset}: {zeros}"
            );
        }
        assert_eq!(image.zeros(SIZE as u64, 4096).unwrap(), 4096);
    }
}

/// An image of 32 GiB, with its first table, and one cluster of data.
#[test]
fn holes_take_no_time() {
    let size = 32_u64 << 30;
    let file = tempfile::tempfile().unwrap();
    let mut header = [0; 112];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[20..24].copy_from_slice(&16_u32.to_be_bytes());
    header[24..32].copy_from_slice(&size.to_be_bytes());
    header[36..40].copy_from_slice(&64_u32.to_be_bytes());
    header[40..48].copy_from_slice(&65536_u64.to_be_bytes());
    header[96..100].copy_from_slice(&4_u32.to_be_bytes());
    header[100..104].copy_from_slice(&104_u32.to_be_bytes());
    file.set_len(4 * 65536).unwrap();
    file.write_all_at(&header, 0).unwrap();
    // The last but one of 64 tables, and in it the entry in the middle.
    file.write_all_at(&(2 * 65536_u64).to_be_bytes(), 65536 + 8 * 62)
        .unwrap();
    file.write_all_at(&(3 * 65536_u64).to_be_bytes(), 2 * 65536 + 8 * 4096)
        .unwrap();
    file.write_all_at(&[5; 65536], 3 * 65536).unwrap();
    let image = open_of_size(&file, size).unwrap();
    let at = 62 * (512 << 20) + 4096 * 65536;
    assert_eq!(image.zeros(0, size).unwrap(), at);
    assert_eq!(image.zeros(at, size - at).unwrap(), 0);
    assert_eq!(image.zeros(at + 65536, size).unwrap(), size);
}

/// Neither in the file when it was opened nor when it is asked for.
#[test]
fn what_is_not_in_the_file_is_no_hole_of_it() {
    let file = by_hand(3, &[0, 3 * 512, 512 << 20, 3 * 512]);
    let image = open_of_size(&file, 4096).unwrap();
    assert_eq!(image.zeros(0, 4096).unwrap(), 512);
    assert_eq!(image.zeros(1024, 512).unwrap(), 0);
    file.set_len(3 * 512).unwrap();
    assert_eq!(image.zeros(512, 512).unwrap(), 0);
    assert!(image.read(512, &mut [0; 512]).is_err());
}

/// A small image, made by hand: a header, a first table, a table, and two clusters of 512 bytes each.
fn by_hand(version: u32, entries: &[u64]) -> File {
    let file = tempfile::tempfile().unwrap();
    let mut header = [0; 112];
    header[..4].copy_from_slice(b"QFI\xfb");
    header[4..8].copy_from_slice(&version.to_be_bytes());
    header[20..24].copy_from_slice(&9_u32.to_be_bytes());
    header[24..32].copy_from_slice(&4096_u64.to_be_bytes());
    header[36..40].copy_from_slice(&1_u32.to_be_bytes());
    header[40..48].copy_from_slice(&512_u64.to_be_bytes());
    header[48..56].copy_from_slice(&1024_u64.to_be_bytes());
    header[56..60].copy_from_slice(&1_u32.to_be_bytes());
    if version == 3 {
        header[96..100].copy_from_slice(&4_u32.to_be_bytes());
        header[100..104].copy_from_slice(&104_u32.to_be_bytes());
    }
    file.set_len(5 * 512).unwrap();
    file.write_all_at(&header, 0).unwrap();
    file.write_all_at(&1024_u64.to_be_bytes(), 512).unwrap();
    for (number, entry) in entries.iter().enumerate() {
        file.write_all_at(&entry.to_be_bytes(), 1024 + 8 * number as u64)
            .unwrap();
    }
    file.write_all_at(&[5; 512], 3 * 512).unwrap();
    file.write_all_at(&[6; 512], 4 * 512).unwrap();
    file
}

#[test]
fn clusters_of_zeros_have_no_data() {
    let file = by_hand(3, &[3 * 512, (4 * 512) | 1, 1, 0, 4 * 512]);
    let mut all = [0xee; 4096];
    open_of_size(&file, 4096).unwrap().read(0, &mut all).unwrap();
    let expected = [
        [5; 512], [0; 512], [0; 512], [0; 512], [6; 512], [0; 512], [0; 512], [0; 512],
    ]
    .concat();
    assert!(all[..] == expected[..]);
}

#[test]
fn what_is_not_in_the_file_is_an_error_and_not_zeros() {
    let outcome = |file: &File| {
        let image = open_of_size(file, 4096).map_err(|error| error.to_string())?;
        let mut all = [0; 4096];
        image.read(0, &mut all).map_err(|error| error.to_string())
    };
    for length in [0, 50, 100, 512, 519, 520, 1024, 1535] {
        let file = by_hand(3, &[3 * 512]);
        file.set_len(length).unwrap();
        assert!(outcome(&file).is_err(), "{length}");
    }
    let file = by_hand(3, &[3 * 512, 4 * 512]);
    file.set_len(5 * 512 - 1).unwrap();
    assert!(outcome(&file).unwrap_err().contains("cut short"));
    for entry in [
        512 << 20,             // Far behind the end.
        0x00ff_ffff_ffff_fe00, // The last one there can be.
        3 * 512 + 8,           // Bits that mean nothing.
        1 << 60,               // Likewise.
        1 << 62 | 0x1234,      // Compressed, but no such data.
        1 << 62 | 0x000f_ffff, // Likewise, behind the end.
        u64::MAX,
    ] {
        assert!(outcome(&by_hand(3, &[entry])).is_err(), "{entry:#x}");
    }
    let file = by_hand(3, &[]);
    for table in [5 * 512_u64, 1 << 50, 0x00ff_ffff_ffff_fe00, 1024 + 8] {
        file.write_all_at(&table.to_be_bytes(), 512).unwrap();
        assert!(outcome(&file).is_err(), "{table:#x}");
    }
}

#[test]
fn no_other_file_is_opened() {
    for (at, value, refusal) in [
        (8, &104_u64.to_be_bytes(), Refusal::BackingFile),
        (72, &4_u64.to_be_bytes(), Refusal::DataFile),
    ] {
        let file = by_hand(3, &[3 * 512]);
        file.write_all_at(value, at).unwrap();
        file.write_all_at(b"/etc/passwd", 104).unwrap();
        match open_of_size(&file, 4096) {
            Err(ImageError::Refused(refused)) => assert_eq!(refused, refusal),
            other => panic!("{other:?}"),
        }
    }
    // Names that nothing refers to are not looked at.
    let file = by_hand(2, &[3 * 512]);
    file.write_all_at(b"/etc/passwd", 104).unwrap();
    open_of_size(&file, 4096).unwrap();
}

#[test]
fn an_image_whose_size_has_changed_is_another_one() {
    let file = by_hand(3, &[3 * 512]);
    assert!(matches!(
        open_of_size(&file, 8192),
        Err(ImageError::Changed {
            found: 4096,
            expected: 8192
        })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is in its tables, it is read or refused, and nothing else happens.
    #[test]
    fn a_damaged_image_is_read_or_refused(
        version in 2..=3_u32,
        entries in proptest::collection::vec(prop_oneof![any::<u64>(), (0..6_u64).prop_map(|cluster| cluster * 512), (0..5000_u64).prop_map(|offset| 1 << 62 | offset)], 0..8),
        changes in proptest::collection::vec((0..2560_u64, any::<u8>()), 0..6),
        length in prop_oneof![Just(2560_u64), 0..2560_u64],
    ) {
        let file = by_hand(version, &entries);
        for (at, value) in changes {
            file.write_all_at(&[value], at).unwrap();
        }
        file.set_len(length).unwrap();
        let mut beginning = [0; HEADER_BYTES];
        let read = read_some(std::os::fd::AsFd::as_fd(&file), &mut beginning, 0).unwrap();
        let Ok(header) = Header::parse(&beginning[..read]) else { return Ok(()) };
        let Some(size) = header.size.checked_next_multiple_of(512) else { return Ok(()) };
        if let Ok(image) = open_of_size(&file, size) {
            let mut piece = [0; 4096];
            for offset in [0, 512, size.saturating_sub(512), size / 2 / 512 * 512] {
                // An error is as good.
                let _ = image.read(offset, &mut piece);
            }
        }
    }
}

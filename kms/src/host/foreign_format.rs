//! Files that are no raw image, told by what they hold: images of other programs, compressed files, archives, pages that a
//! download left. As a disk they would be noise, without a word why.
//!
//! Every mark is of at least three bytes that no boot sector, partition table or file system has at its place. Formats that
//! a guest may have on a whole disk, such as ISO 9660 or squashfs, are raw images, and not here.

/// Bytes at the beginning and at the end of a file that marks are looked for in.
pub(crate) const LOOK_BYTES: usize = 512;

/// A format that is not imported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ForeignFormat {
    /// As the end of a sentence: `a VDI image`.
    pub(crate) name: &'static str,
    /// What to do with such a file.
    pub(crate) advice: &'static str,
    /// The marks, all of which a file of this format has.
    marks: &'static [Mark],
}

/// Bytes at a place.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// So many bytes after the beginning.
    Start(usize, &'static [u8]),
    /// Beginning so many bytes before the end.
    End(usize, &'static [u8]),
}

use Mark::{End, Start};

const CONVERT: &str = "convert it first, as with `qemu-img convert -O raw`";
const UNPACK: &str = "unpack it, and import the image in it";
const FETCH: &str = "a download may have failed: look into it, and fetch the image again";

const fn format(name: &'static str, advice: &'static str, marks: &'static [Mark]) -> ForeignFormat {
    ForeignFormat { name, advice, marks }
}

#[rustfmt::skip]
static FORMATS: &[ForeignFormat] = &[
    // VMDK: sparse, of ESX, and the text that names the files with the data.
    format("a VMDK image", CONVERT, &[Start(0, b"KDMV")]),
    format("a VMDK image", CONVERT, &[Start(0, b"COWD")]),
    format("the descriptor of a VMDK image, whose data is in other files", CONVERT, &[Start(0, b"# Disk DescriptorFile")]),
    // VHD: a copy of the footer comes first unless the size is fixed. Old ones have a footer of 511 bytes.
    format("a VHD image", CONVERT, &[Start(0, b"conectix")]),
    format("a VHD image", CONVERT, &[End(512, b"conectix")]),
    format("a VHD image", CONVERT, &[End(511, b"conectix")]),
    format("a VHDX image", CONVERT, &[Start(0, b"vhdxfile")]),
    // After 64 bytes of text, which differ.
    format("a VDI image", CONVERT, &[Start(64, b"\x7f\x10\xda\xbe")]),
    format("a QED image", CONVERT, &[Start(0, b"QED\0")]),
    format("a Parallels image", CONVERT, &[Start(0, b"WithoutFreeSpace")]),
    format("a Parallels image", CONVERT, &[Start(0, b"WithouFreSpacExt")]),
    format("a Bochs image", CONVERT, &[Start(0, b"Bochs Virtual HD Image")]),
    format("a cloop image", CONVERT, &[Start(0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop")]),
    // With version and length.
    format("a DMG image", CONVERT, &[End(512, b"koly\0\0\0\x04\0\0\x02\0")]),
    format("encrypted with LUKS", CONVERT, &[Start(0, b"LUKS\xba\xbe")]),
    format("an Android sparse image", "convert it first with `simg2img`", &[Start(0, b"\x3a\xff\x26\xed\x01\0")]),
    format("a WIM archive", UNPACK, &[Start(0, b"MSWIM\0\0\0")]),
    format("a VMA archive", "unpack it first with `vma extract`", &[Start(0, b"VMA\0\0\0\0\x01")]),
    format("an export of Ceph's", "import it with `rbd import`, and export it as raw", &[Start(0, b"rbd image v")]),
    format("an export of Ceph's", "import it with `rbd import-diff`, and export it as raw", &[Start(0, b"rbd diff v")]),

    format("compressed with gzip", "decompress it first with `gzip -d`", &[Start(0, b"\x1f\x8b\x08")]),
    format("compressed with compress", "decompress it first with `gzip -d`", &[Start(0, b"\x1f\x9d\x90")]),
    format("compressed with xz", "decompress it first with `xz -d`", &[Start(0, b"\xfd7zXZ\0")]),
    // Of unknown length, as `xz` makes them.
    format("compressed with lzma", "decompress it first with `xz -d`", &[Start(0, b"\x5d\0\0"), Start(5, &[0xff; 8])]),
    // With the first block, or without any.
    format("compressed with bzip2", "decompress it first with `bzip2 -d`", &[Start(0, b"BZh"), Start(4, b"\x31\x41\x59\x26\x53\x59")]),
    format("compressed with bzip2", "decompress it first with `bzip2 -d`", &[Start(0, b"BZh"), Start(4, b"\x17\x72\x45\x38\x50\x90")]),
    // `pzstd` writes a frame before the data that is to be skipped.
    format("compressed with zstd", "decompress it first with `zstd -d`", &[Start(0, b"\x28\xb5\x2f\xfd")]),
    format("compressed with zstd", "decompress it first with `zstd -d`", &[Start(0, b"\x50\x2a\x4d\x18"), Start(12, b"\x28\xb5\x2f\xfd")]),
    format("compressed with lz4", "decompress it first with `lz4 -d`", &[Start(0, b"\x04\x22\x4d\x18")]),
    format("compressed with lzip", "decompress it first with `lzip -d`", &[Start(0, b"LZIP\x01")]),
    format("compressed with lzop", "decompress it first with `lzop -d`", &[Start(0, b"\x89LZO\0\r\n\x1a\n")]),

    // A header's block ends with zeros, and a boot sector does not.
    format("a tar archive, as OVA files are", UNPACK, &[Start(257, b"ustar"), Start(510, &[0; 2])]),
    format("a ZIP archive", UNPACK, &[Start(0, b"PK\x03\x04")]),
    format("a ZIP archive", UNPACK, &[Start(0, b"PK\x05\x06")]),
    format("a 7z archive", UNPACK, &[Start(0, b"7z\xbc\xaf\x27\x1c")]),
    format("a RAR archive", UNPACK, &[Start(0, b"Rar!\x1a\x07")]),

    format("a pointer of Git LFS, and not the file that it stands for", FETCH, &[Start(0, b"version https://git-lfs.github.com/spec/")]),
];

/// Markup, as answers and descriptions are: after white space, in letters of either case.
static MARKUP: &[(&[u8], ForeignFormat)] = &[
    (b"<!doctype", format("an HTML page", FETCH, &[])),
    (b"<html", format("an HTML page", FETCH, &[])),
    (b"<?xml", format("an XML file", FETCH, &[])),
];

impl ForeignFormat {
    /// Of a file of which the first and the last [`LOOK_BYTES`] are given, or all if it has fewer.
    pub(crate) fn of(beginning: &[u8], end: &[u8]) -> Option<&'static ForeignFormat> {
        FORMATS
            .iter()
            .find(|format| format.marks.iter().all(|mark| mark.is_in(beginning, end)))
            .or_else(|| markup(beginning))
    }
}

impl Mark {
    fn is_in(&self, beginning: &[u8], end: &[u8]) -> bool {
        let (rest, bytes) = match *self {
            Start(at, bytes) => (beginning.get(at..), bytes),
            End(before, bytes) => (end.len().checked_sub(before).map(|at| &end[at..]), bytes),
        };
        rest.is_some_and(|rest| rest.starts_with(bytes))
    }
}

fn markup(beginning: &[u8]) -> Option<&'static ForeignFormat> {
    // Text may begin with a mark that says how it is encoded.
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
    let text = text.trim_ascii_start();
    let begins = |with: &[u8]| {
        let beginning = text.get(..with.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(with))
    };
    let found = MARKUP.iter().find(|(with, _)| begins(with));
    found.map(|(_, format)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file is called that has these bytes at these places, and is all zeros else.
    fn called(places: &[(usize, &[u8])]) -> Option<&'static str> {
        let mut file = vec![0; 4096];
        for (at, bytes) in places {
            file[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        of_file(&file)
    }

    fn of_file(file: &[u8]) -> Option<&'static str> {
        let beginning = &file[..file.len().min(LOOK_BYTES)];
        let end = &file[file.len().saturating_sub(LOOK_BYTES)..];
        ForeignFormat::of(beginning, end).map(|format| format.name)
    }

    /// As the programs write them.
    #[test]
    fn files_that_are_no_raw_image_are_told_wherever_their_mark_lies() {
        let tar = (257, &b"ustar  \0"[..]);
        for (places, name) in [
            (&[(0, &b"KDMV\x01\0\0\0"[..])][..], "VMDK"),
            (&[(0, b"COWD\x01\0\0\0")], "VMDK"),
            (&[(0, b"# Disk DescriptorFile\nversion=1\n")], "VMDK"),
            (&[(0, b"conectix\0\0\0\x02\0\x01\0\0")], "VHD"),
            (&[(510, b"\x55\xaa"), (4096 - 512, b"conectix\0\0\0\x02")], "VHD"),
            (&[(510, b"\x55\xaa"), (4096 - 511, b"conectix\0\0\0\x02")], "VHD"),
            (&[(0, b"vhdxfile")], "VHDX"),
            (
                &[
                    (0, b"<<< QEMU VM Virtual Disk Image >>>\n"),
                    (64, b"\x7f\x10\xda\xbe\x01\0\x01\0"),
                ],
                "VDI",
            ),
            (
                &[
                    (0, b"<<< Oracle VM VirtualBox Disk Image >>>\n"),
                    (64, b"\x7f\x10\xda\xbe"),
                ],
                "VDI",
            ),
            (&[(0, b"QED\0\0\0\x01\0")], "QED"),
            (&[(0, b"WithoutFreeSpace\x02\0\0\0")], "Parallels"),
            (&[(0, b"WithouFreSpacExt\x02\0\0\0")], "Parallels"),
            (&[(0, b"Bochs Virtual HD Image\0")], "Bochs"),
            (
                &[
                    (510, b"\x55\xaa"),
                    (4096 - 512, b"koly\0\0\0\x04\0\0\x02\0\0\0\0\x01"),
                ],
                "DMG",
            ),
            (&[(0, b"LUKS\xba\xbe\0\x02")], "LUKS"),
            (&[(0, b"\x3a\xff\x26\xed\x01\0\0\0\x1c\0\x0c\0")], "Android"),
            (&[(0, b"MSWIM\0\0\0\xd0\0\0\0")], "WIM"),
            (&[(0, b"\x1f\x8b\x08\x08\x6d\x0c\x4b\x68\0\x03")], "gzip"),
            (&[(0, b"\x1f\x9d\x90\0")], "compress"),
            (&[(0, b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46")], "xz"),
            (
                &[(0, b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0")],
                "lzma",
            ),
            (&[(0, b"BZh91AY&SY")], "bzip2"),
            (&[(0, b"BZh1\x17\x72\x45\x38\x50\x90\0\0\0\0")], "bzip2"),
            (&[(0, b"\x28\xb5\x2f\xfd\xa4\0\0\x40\0")], "zstd"),
            (
                &[(0, b"\x50\x2a\x4d\x18\x04\0\0\0\x99\0\0\0\x28\xb5\x2f\xfd")],
                "zstd",
            ),
            (&[(0, b"\x04\x22\x4d\x18\x64\x40\xa7")], "lz4"),
            (&[(0, b"LZIP\x01\x0c")], "lzip"),
            (&[(0, b"\x89LZO\0\r\n\x1a\n\x10\x40")], "lzop"),
            (&[(0, b"disk.vmdk\0"), tar], "tar"),
            (&[(0, b"disk.ovf\0"), (257, b"ustar\x0000")], "tar"),
            (&[(0, b"PK\x03\x04\x14\0")], "ZIP"),
            (&[(0, b"7z\xbc\xaf\x27\x1c\0\x04")], "7z"),
            (&[(0, b"Rar!\x1a\x07\x01\0")], "RAR"),
            (
                &[(0, b"version https://git-lfs.github.com/spec/v1\noid sha256:")],
                "Git LFS",
            ),
            (&[(0, b"<!DOCTYPE html>\n<html><body>404 Not Found")], "HTML"),
            (&[(0, b"\xef\xbb\xbf\r\n  <HTML lang=\"en\">")], "HTML"),
            (&[(0, b"<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey")], "XML"),
        ] {
            assert!(
                called(places).is_some_and(|found| found.contains(name)),
                "{name}: {:?}",
                called(places)
            );
        }
        // Shorter than what is looked at.
        assert_eq!(of_file(b"<html></html>\n"), Some("an HTML page"));
        assert!(of_file(&[&b"conectix"[..], &[0; 503]].concat()).is_some());
    }

    #[test]
    fn what_disks_begin_and_end_with_is_raw() {
        let mut boot = [0xcc; 512];
        boot[..3].copy_from_slice(b"\xeb\x63\x90");
        boot[257..262].copy_from_slice(b"ustar");
        boot[510..].copy_from_slice(b"\x55\xaa");
        for places in [
            &[][..],
            &[(0, &boot[..])],
            &[(0, b"\xfa\x33\xc0\x8e\xd0\xbc\0\x7c"), (510, b"\x55\xaa")],
            // GPT, ISO 9660 with none before it, ext4, XFS, Btrfs, NTFS, FAT, squashfs, LVM, swap, bcache.
            &[(510, b"\x55\xaa"), (512, b"EFI PART"), (4096 - 512, b"EFI PART")],
            &[(1024 + 56, b"\x53\xef")],
            &[(0, b"XFSB\0\0\x10\0")],
            &[(0, b"\xeb\x52\x90NTFS    \0\x02\x08\0"), (510, b"\x55\xaa")],
            &[(0, b"\xeb\x3c\x90mkfs.fat\0\x02"), (510, b"\x55\xaa")],
            &[(0, b"hsqs\x07\0\0\0")],
            &[(512, b"LABELONE\x01\0\0\0")],
            &[(4086, b"SWAPSPACE2")],
            // Text that somebody hands to a guest, and marks at other places.
            &[(0, b"some data: <html>")],
            &[(1, b"KDMV"), (65, b"\x7f\x10\xda\xbe")],
            &[(4096 - 256, b"conectix"), (4096 - 513, b"koly")],
            &[(0, b"BZh9"), (5, b"1AY&SY")],
        ] {
            assert_eq!(called(places), None, "{places:x?}");
        }
        assert_eq!(of_file(b""), None);
        assert_eq!(of_file(b"<htm"), None);
    }
}

//! QEMU reads what the disk cipher has written, and the reverse, under the same XTS key.
//!
//! The ciphertext is put behind a LUKS1 header whose master key is the disk's XTS key. The header is made here, by
//! the LUKS On-Disk Format Specification 1.2.3. QEMU's `luks` driver then numbers the sectors of the payload from 0
//! and uses the number as the tweak (`plain64`), as dm-crypt does.

mod kernels;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aes::cipher::inout::InOutBuf;
use hmac::{Hmac, KeyInit, Mac};
use sealblk::crypto::{Direction, DiskCipher, KEY_BYTES, Kernel, XtsAes256};
use sealblk::units::{ByteLen, Capacity, SECTOR_BYTES, Sector};
use sealblk_proto::keys::LineageKey;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const PASSPHRASE: &str = "correct horse";
const LINEAGE: [u8; 32] = [0x42; 32];
const DISK_BYTES: usize = 4 << 20;

const ITERATIONS: u32 = 1000;
const STRIPES: usize = 4000;
const SLOTS: usize = 8;
/// First sector of the first key slot, and sectors from one to the next.
const FIRST_SLOT: usize = 8;
const SLOT_SECTORS: usize = 504;
const PAYLOAD_SECTOR: usize = FIRST_SLOT + SLOTS * SLOT_SECTORS;

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// PBKDF2-HMAC-SHA-256 (RFC 8018, section 5.2).
fn pbkdf2(password: &[u8], salt: &[u8], out: &mut [u8]) {
    for (index, block) in out.chunks_mut(32).enumerate() {
        let mut last = hmac(password, &[salt, &(index as u32 + 1).to_be_bytes()]);
        let mut sum = last;
        for _ in 1..ITERATIONS {
            last = hmac(password, &[&last]);
            sum.iter_mut().zip(last).for_each(|(sum, last)| *sum ^= last);
        }
        block.copy_from_slice(&sum[..block.len()]);
    }
}

/// The key of the disk's first TiB, derived without the code under test.
fn disk_key() -> [u8; KEY_BYTES] {
    let info = [b"sealblk xts v1".as_slice(), &0u64.to_le_bytes()].concat();
    let first = hmac(&LINEAGE, &[&info, &[1]]);
    let second = hmac(&LINEAGE, &[&first, &info, &[2]]);
    [first, second].concat().try_into().unwrap()
}

/// LUKS1's anti-forensic splitter: all stripes together give the key.
fn split_key(key: &[u8; KEY_BYTES]) -> Vec<u8> {
    let mut stripes = Vec::with_capacity(STRIPES * KEY_BYTES);
    let mut state = [0; KEY_BYTES];
    for number in 1..STRIPES as u32 {
        let stripe: Vec<u8> = (0..KEY_BYTES as u32)
            .map(|i| (number * 31 + i * 7) as u8)
            .collect();
        state
            .iter_mut()
            .zip(&stripe)
            .for_each(|(state, byte)| *state ^= byte);
        stripes.extend(stripe);
        for (index, block) in state.chunks_exact_mut(32).enumerate() {
            let hash = Sha256::new()
                .chain_update((index as u32).to_be_bytes())
                .chain_update(&block);
            block.copy_from_slice(&hash.finalize());
        }
    }
    stripes.extend(state.iter().zip(key).map(|(state, byte)| state ^ byte));
    stripes
}

/// Everything before the payload. The field names are the specification's.
fn luks_header(key: &[u8; KEY_BYTES]) -> Vec<u8> {
    let mut header = b"LUKS\xba\xbe\x00\x01".to_vec();
    for (text, width) in [("aes", 32), ("xts-plain64", 32), ("sha256", 32)] {
        header.extend(text.bytes().chain(std::iter::repeat(0)).take(width));
    }
    header.extend((PAYLOAD_SECTOR as u32).to_be_bytes());
    header.extend((KEY_BYTES as u32).to_be_bytes());
    let (mk_digest_salt, slot_salt) = ([0x11; 32], [0x22; 32]);
    let mut mk_digest = [0; 20];
    pbkdf2(key, &mk_digest_salt, &mut mk_digest);
    header.extend(mk_digest);
    header.extend(mk_digest_salt);
    header.extend(ITERATIONS.to_be_bytes());
    header.extend(b"00000000-0000-4000-8000-000000000000\0\0\0\0");
    for slot in 0..SLOTS {
        let active: u32 = if slot == 0 { 0x00ac_71f3 } else { 0x0000_dead };
        header.extend(active.to_be_bytes());
        header.extend(ITERATIONS.to_be_bytes());
        header.extend(slot_salt);
        header.extend(((FIRST_SLOT + slot * SLOT_SECTORS) as u32).to_be_bytes());
        header.extend((STRIPES as u32).to_be_bytes());
    }
    let mut slot_key = [0; KEY_BYTES];
    pbkdf2(PASSPHRASE.as_bytes(), &slot_salt, &mut slot_key);
    let mut material = split_key(key);
    XtsAes256::new(&slot_key)
        .unwrap()
        .process_sectors(
            Direction::Encrypt,
            Sector(0),
            InOutBuf::from(material.as_mut_slice()),
        )
        .unwrap();
    header.resize(FIRST_SLOT * SECTOR_BYTES, 0);
    header.extend(material);
    header.resize(PAYLOAD_SECTOR * SECTOR_BYTES, 0);
    header
}

/// An image file of ours that QEMU can open.
struct Image {
    directory: TempDir,
    file: File,
    cipher: DiskCipher,
}

impl Image {
    /// The payload is what never-written sectors are: zeros as ciphertext.
    fn new(kernel: Kernel) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.path().join("disk.luks"))
            .unwrap();
        file.write_all_at(&luks_header(&disk_key()), 0).unwrap();
        file.set_len((PAYLOAD_SECTOR * SECTOR_BYTES + DISK_BYTES) as u64)
            .unwrap();
        let lineage = LineageKey::new_with(|key| *key = LINEAGE).unwrap();
        let capacity = Capacity::new(ByteLen(DISK_BYTES as u64)).unwrap();
        let cipher = DiskCipher::derive_for(kernel, &lineage, capacity).unwrap();
        Image {
            directory,
            file,
            cipher,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn offset(sector: u64) -> u64 {
        (PAYLOAD_SECTOR as u64 + sector) * SECTOR_BYTES as u64
    }

    fn write(&self, sector: u64, plain: &[u8]) {
        let mut out = vec![0; plain.len()];
        self.cipher
            .encrypt(Sector(sector), [plain.into()], &mut out)
            .unwrap();
        self.file.write_all_at(&out, Self::offset(sector)).unwrap();
    }

    fn read(&self, sector: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.file.read_exact_at(&mut data, Self::offset(sector)).unwrap();
        self.cipher.decrypt_in_place(Sector(sector), &mut data).unwrap();
        data
    }

    fn qemu_options(&self) -> String {
        let path = self.path("disk.luks");
        format!("driver=luks,key-secret=pass,file.filename={}", path.display())
    }

    /// Runs a QEMU tool that knows the passphrase.
    fn qemu(&self, tool: &str, subcommand: &[&str], arguments: &[&str]) -> Output {
        Command::new(tool)
            .args(subcommand)
            .args(["--object", &format!("secret,id=pass,data={PASSPHRASE}")])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Runs commands of `qemu-io` on the image.
    fn qemu_io(&self, commands: &[&str]) -> Output {
        let options = self.qemu_options();
        let mut arguments = vec!["--image-opts"];
        arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
        arguments.push(&options);
        self.qemu("qemu-io", &[], &arguments)
    }
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("failed"), "{text}");
}

/// Whether QEMU's tools are there. Where they are not, nothing can be tested; CI installs them.
fn qemu_is_missing() -> bool {
    let missing = ["qemu-img", "qemu-io"].iter().any(|tool| {
        let found = Command::new(tool).arg("--version").output();
        !found.is_ok_and(|output| output.status.success())
    });
    if missing {
        eprintln!("SKIPPED: qemu-img and qemu-io are not installed (Debian: qemu-utils)");
    }
    missing
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn assert_equal_files(path: &Path, expected: &[u8]) {
    let found = std::fs::read(path).unwrap();
    assert_eq!(found.len(), expected.len());
    if let Some(at) = found.iter().zip(expected).position(|(one, other)| one != other) {
        panic!("byte {at} differs, in sector {}", at / SECTOR_BYTES);
    }
}

#[test]
fn qemu_reads_our_ciphertext() {
    if qemu_is_missing() {
        return;
    }
    for kernel in kernels::available() {
        let image = Image::new(kernel);
        let plain = noise(DISK_BYTES);
        image.write(0, &plain);
        let out = image.path("out.raw");
        let options = image.qemu_options();
        let arguments = ["--image-opts", "-O", "raw", &options, out.to_str().unwrap()];
        assert_success(&image.qemu("qemu-img", &["convert"], &arguments));
        assert_equal_files(&out, &plain);
    }
}

#[test]
fn qemu_finds_the_patterns_that_we_wrote_and_no_others() {
    if qemu_is_missing() {
        return;
    }
    for kernel in kernels::available() {
        let image = Image::new(kernel);
        let sectors = (DISK_BYTES / SECTOR_BYTES) as u64;
        image.write(0, &[0x11; SECTOR_BYTES]);
        image.write(1, &[0x22; 7 * SECTOR_BYTES]);
        image.write(128, &vec![0xa5; 1 << 20]);
        image.write(200, &[0x5a; 3 * SECTOR_BYTES]);
        image.write(sectors - 1, &[0x7e; SECTOR_BYTES]);
        let last = format!("read -P 0x7e {} 512", (sectors - 1) * SECTOR_BYTES as u64);
        assert_success(&image.qemu_io(&[
            "read -P 0x11 0 512",
            "read -P 0x22 512 3584",
            "read -P 0xa5 64k 36k",
            "read -P 0x5a 102400 1536",
            "read -P 0xa5 103936 1010176",
            &last,
        ]));
        let wrong = image.qemu_io(&["read -P 0x11 512 512"]);
        assert!(!wrong.status.success(), "{wrong:?}");
    }
}

#[test]
fn we_read_what_qemu_wrote() {
    if qemu_is_missing() {
        return;
    }
    for kernel in kernels::available() {
        let image = Image::new(kernel);
        let plain = noise(DISK_BYTES);
        let input = image.path("in.raw");
        std::fs::write(&input, &plain).unwrap();
        let options = image.qemu_options();
        let arguments = [
            "-n",
            "-f",
            "raw",
            "--target-image-opts",
            input.to_str().unwrap(),
            &options,
        ];
        assert_success(&image.qemu("qemu-img", &["convert"], &arguments));
        assert!(image.read(0, DISK_BYTES) == plain);

        assert_success(&image.qemu_io(&["write -P 0xc3 4k 64k", "write -P 0x3c 35328 512", "flush"]));
        let mut expected = plain;
        expected[4096..4096 + 65536].fill(0xc3);
        expected[35328..35328 + 512].fill(0x3c);
        assert!(image.read(0, DISK_BYTES) == expected);
        assert!(image.read(69, 512) == vec![0x3c; 512]);
    }
}

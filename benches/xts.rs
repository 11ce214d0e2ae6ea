//! XTS-AES-256 in 512-byte data units: ours against `xts-mode`, which goes block by block.
//!
//! `cargo bench --bench xts`

use std::hint::black_box;

use aes::Aes256;
use aes::cipher::KeyInit;
use aes::cipher::inout::InOutBuf;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealblk::crypto::{Direction, KEY_BYTES, XtsAes256};
use sealblk::units::{SECTOR_BYTES, Sector};
use xts_mode::{Xts128, get_tweak_default};

fn key() -> [u8; KEY_BYTES] {
    std::array::from_fn(|i| i as u8)
}

fn bench(criterion: &mut Criterion) {
    let ours = XtsAes256::new(&key()).expect("locked memory");
    let [data, tweak] = [0, KEY_BYTES / 2].map(|start| {
        let half = &key()[start..start + KEY_BYTES / 2];
        Aes256::new_from_slice(half).expect("32 bytes")
    });
    let reference = Xts128::new(data, tweak);
    for (name, direction) in [("encrypt", Direction::Encrypt), ("decrypt", Direction::Decrypt)] {
        let mut group = criterion.benchmark_group(name);
        for bytes in [4 << 10, 64 << 10, 1 << 20] {
            group.throughput(Throughput::Bytes(bytes as u64));
            let input = vec![0x5a; bytes];
            let mut output = vec![0; bytes];
            group.bench_function(BenchmarkId::new("ours", bytes), |bencher| {
                bencher.iter(|| {
                    let data = InOutBuf::new(black_box(&input[..]), &mut output[..]).expect("equal lengths");
                    ours.process_sectors(direction, Sector(1), data)
                        .expect("whole sectors");
                    black_box(&mut output);
                });
            });
            group.bench_function(BenchmarkId::new("xts-mode", bytes), |bencher| {
                bencher.iter(|| {
                    let data = black_box(&mut output[..]);
                    match direction {
                        Direction::Encrypt => {
                            reference.encrypt_area(data, SECTOR_BYTES, 1, get_tweak_default)
                        }
                        Direction::Decrypt => {
                            reference.decrypt_area(data, SECTOR_BYTES, 1, get_tweak_default)
                        }
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);

//! XTS-AES-256 in 512-byte data units: our kernels against `xts-mode`, which goes block by block.
//!
//! `cargo bench --bench xts`

use std::hint::black_box;

use aes::Aes256;
use aes::cipher::KeyInit;
use aes::cipher::inout::InOutBuf;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealblk::crypto::{Direction, KEY_BYTES, Kernel, XtsAes256};
use sealblk::units::{SECTOR_BYTES, Sector};
use xts_mode::{Xts128, get_tweak_default};

const SIZES: [usize; 4] = [512, 4 << 10, 64 << 10, 1 << 20];

fn key() -> [u8; KEY_BYTES] {
    std::array::from_fn(|i| i as u8)
}

fn bench(criterion: &mut Criterion) {
    let available = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available());
    let kernels: Vec<_> = available
        .map(|kernel| {
            let keys = XtsAes256::with_kernel(kernel, &key());
            (kernel, keys.expect("locked memory"))
        })
        .collect();
    let [data, tweak] = [0, KEY_BYTES / 2].map(|start| {
        let half = &key()[start..start + KEY_BYTES / 2];
        Aes256::new_from_slice(half).expect("32 bytes")
    });
    let reference = Xts128::new(data, tweak);
    for (name, direction) in [("encrypt", Direction::Encrypt), ("decrypt", Direction::Decrypt)] {
        let mut group = criterion.benchmark_group(name);
        for bytes in SIZES {
            group.throughput(Throughput::Bytes(bytes as u64));
            let input = vec![0x5a; bytes];
            let mut output = vec![0; bytes];
            for (kernel, keys) in &kernels {
                group.bench_function(BenchmarkId::new(kernel.to_string(), bytes), |bencher| {
                    bencher.iter(|| {
                        let data =
                            InOutBuf::new(black_box(&input[..]), &mut output[..]).expect("equal lengths");
                        keys.process_sectors(direction, Sector(1), data)
                            .expect("whole sectors");
                        black_box(&mut output);
                    });
                });
            }
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

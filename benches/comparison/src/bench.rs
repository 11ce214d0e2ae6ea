//! XTS-AES-256 in data units of 512 bytes, from one buffer to another: each kernel of sealblk beside `xts-mode`, OpenSSL and
//! AWS-LC. `scripts/bench --cipher` runs this several times and makes a table of it.

mod contender;

use std::hint::black_box;

use contender::{Contender, all};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealblk::crypto::{Direction, KEY_BYTES};
use sealblk::units::Sector;

/// Bytes in a row.
const SIZES: [usize; 4] = [512, 4 << 10, 64 << 10, 1 << 20];

const FIRST: Sector = Sector(1);

fn key() -> [u8; KEY_BYTES] {
    std::array::from_fn(|i| i as u8)
}

fn bench(criterion: &mut Criterion) {
    let mut contenders = all(&key());
    agree(&mut contenders);
    for (name, direction) in [("encrypt", Direction::Encrypt), ("decrypt", Direction::Decrypt)] {
        let mut group = criterion.benchmark_group(name);
        for bytes in SIZES {
            group.throughput(Throughput::Bytes(bytes as u64));
            let input = vec![0x5a; bytes];
            let mut output = vec![0; bytes];
            // All at one size after each other: what else the machine does changes less meanwhile.
            for contender in &mut contenders {
                let title = BenchmarkId::new(contender.name(), bytes);
                group.bench_function(title, |bencher| {
                    bencher.iter(|| {
                        contender.process(direction, FIRST, black_box(&input), &mut output);
                        black_box(&mut output);
                    });
                });
            }
        }
        group.finish();
    }
}

/// What is not the same cipher is not compared.
fn agree(contenders: &mut [Box<dyn Contender>]) {
    let plain: Vec<u8> = (0..8192).map(|i| (i * 7 % 251) as u8).collect();
    let mut expected = None;
    for contender in contenders {
        let mut cipher = vec![0; plain.len()];
        contender.process(Direction::Encrypt, FIRST, &plain, &mut cipher);
        let mut back = vec![0; plain.len()];
        contender.process(Direction::Decrypt, FIRST, &cipher, &mut back);
        assert!(
            back == plain,
            "{} does not decrypt what it encrypted",
            contender.name()
        );
        let expected = expected.get_or_insert_with(|| cipher.clone());
        assert!(cipher == *expected, "{} encrypts otherwise", contender.name());
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);

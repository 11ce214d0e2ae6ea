use aes::Aes256;
use aes::cipher::array::ArraySize;
use aes::cipher::consts::{U1, U4, U8, U16, U30, U64};
use aes::cipher::inout::InOut;
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit, ParBlocksSizeUser,
};

use super::portable::Pass;
use super::*;

fn key() -> [u8; KEY_BYTES] {
    std::array::from_fn(|i| i as u8)
}

/// A backend with batches of `N`. This machine's CPU shows only one of those that the `aes` crate has.
struct Backend<'a, N>(&'a Aes256, std::marker::PhantomData<N>);

impl<N> BlockSizeUser for Backend<'_, N> {
    type BlockSize = U16;
}

impl<N: ArraySize> ParBlocksSizeUser for Backend<'_, N> {
    type ParBlocksSize = N;
}

impl<N: ArraySize> BlockCipherEncBackend for Backend<'_, N> {
    fn encrypt_block(&self, block: InOut<'_, '_, Block>) {
        self.0.encrypt_block_inout(block);
    }
}

impl<N: ArraySize> BlockCipherDecBackend for Backend<'_, N> {
    fn decrypt_block(&self, block: InOut<'_, '_, Block>) {
        self.0.decrypt_block_inout(block);
    }
}

/// Block by block, as the standard writes it.
fn by_the_book(cipher: &Aes256, seeds: &[Block], blocks: &[Block]) -> Vec<Block> {
    let mut out = Vec::new();
    for (seed, run) in seeds.iter().zip(blocks.chunks(RUN_BLOCKS)) {
        let mut tweak = seed.0;
        for block in run {
            let mut block = Array(std::array::from_fn(|i| block[i] ^ tweak[i]));
            cipher.encrypt_block(&mut block);
            out.push(Array(std::array::from_fn(|i| block[i] ^ tweak[i])));
            // IEEE 1619-2018, 5.2: shift left by one bit, least significant byte first.
            let mut carry = 0;
            for byte in &mut tweak {
                (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
            }
            tweak[0] ^= carry * 0x87;
        }
    }
    out
}

fn check_backend<N: ArraySize>() {
    let cipher = Aes256::new(&Array([7; 32]));
    for count in [1usize, 3, 31, 32, 33, 64, 90, 480, 481, 700] {
        let seeds: Vec<Block> = (0..count.div_ceil(RUN_BLOCKS))
            .map(|run| Array([0xc1 ^ run as u8; 16]))
            .collect();
        let plain: Vec<Block> = (0..count).map(|i| Array([(i * 5) as u8; 16])).collect();
        let backend = Backend::<N>(&cipher, std::marker::PhantomData);
        let mut out = plain.clone();
        let pass = Pass {
            seeds: &seeds,
            blocks: &mut out,
        };
        BlockCipherEncClosure::call(pass, &backend);
        assert!(
            out == by_the_book(&cipher, &seeds, &plain),
            "{count} blocks, batches of {}",
            N::USIZE
        );
        let pass = Pass {
            seeds: &seeds,
            blocks: &mut out,
        };
        BlockCipherDecClosure::call(pass, &backend);
        assert!(out == plain, "{count} blocks back, batches of {}", N::USIZE);
    }
}

#[test]
fn every_width_of_backend_gives_the_same() {
    check_backend::<U1>();
    check_backend::<U4>();
    check_backend::<U8>();
    check_backend::<U30>();
    check_backend::<U64>();
}

#[test]
fn equal_halves_are_refused() {
    let equal = [0x5a; KEY_BYTES];
    assert!(matches!(XtsAes256::new(&equal), Err(XtsError::EqualKeyHalves)));
    for differing in [0, 31, 32, 63] {
        let mut key = equal;
        key[differing] ^= 0x80;
        assert!(XtsAes256::new(&key).is_ok(), "byte {differing}");
    }
}

#[test]
fn lengths_outside_the_standard_are_refused_and_nothing_is_written() {
    let cipher = XtsAes256::new(&key()).unwrap();
    let mut data = vec![3; LARGEST_UNIT_BYTES + 1];
    for length in [0, 1, 15, LARGEST_UNIT_BYTES + 1] {
        let unit = InOutBuf::from(&mut data[..length]);
        let refused = cipher.process_unit(Direction::Encrypt, &[0; 16], unit);
        assert!(matches!(refused, Err(XtsError::UnitLength(of)) if of == length));
    }
    for length in [1, 16, 511, 513, 1023] {
        let sectors = InOutBuf::from(&mut data[..length]);
        let refused = cipher.process_sectors(Direction::Encrypt, Sector(0), sectors);
        assert!(matches!(refused, Err(XtsError::NotWholeSectors(of)) if of == length));
    }
    assert!(data.iter().all(|byte| *byte == 3));
    cipher
        .process_unit(
            Direction::Encrypt,
            &[0; 16],
            (&mut data[..LARGEST_UNIT_BYTES]).into(),
        )
        .unwrap();
    assert!(data[LARGEST_UNIT_BYTES - 16..LARGEST_UNIT_BYTES] != [3; 16]);
}

#[test]
fn nothing_is_done_to_no_sectors() {
    let cipher = XtsAes256::new(&key()).unwrap();
    cipher
        .process_sectors(
            Direction::Decrypt,
            Sector(u64::MAX),
            (&mut [] as &mut [u8]).into(),
        )
        .unwrap();
}

#[test]
fn the_fastest_kernel_is_the_first_that_there_is() {
    let available = Kernel::ALL.into_iter().find(|kernel| kernel.is_available());
    assert_eq!(available, Some(Kernel::fastest()));
    for kernel in Kernel::ALL {
        let keys = XtsAes256::with_kernel(kernel, &key());
        match keys {
            Ok(keys) => assert!(kernel.is_available() && is_for(&keys, kernel)),
            Err(error) => {
                assert!(!kernel.is_available());
                assert!(matches!(error, XtsError::NoSuchKernel(of) if of == kernel));
            }
        }
    }
}

fn is_for(keys: &XtsAes256, kernel: Kernel) -> bool {
    match keys.0 {
        Expanded::Portable(_) => kernel == Kernel::Portable,
        #[cfg(target_arch = "x86_64")]
        Expanded::AesNi(_) => kernel == Kernel::AesNi,
        #[cfg(target_arch = "x86_64")]
        Expanded::Vaes512(_) => kernel == Kernel::Vaes512,
    }
}

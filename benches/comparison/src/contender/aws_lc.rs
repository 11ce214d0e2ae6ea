//! AWS-LC by its EVP interface, which has no safe binding: the key is expanded once, each data unit is a call for the tweak and
//! one for the data.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr::{null, null_mut};

use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_CipherInit_ex, EVP_CipherUpdate,
    EVP_aes_256_xts, OpenSSL_version,
};
use sealblk::crypto::{Direction, KEY_BYTES};
use sealblk::units::{SECTOR_BYTES, Sector};

use super::{Contender, tweak};

pub(super) struct AwsLc {
    encrypting: Context,
    decrypting: Context,
}

impl AwsLc {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        AwsLc {
            encrypting: Context::new(Direction::Encrypt, key),
            decrypting: Context::new(Direction::Decrypt, key),
        }
    }
}

impl Contender for AwsLc {
    fn name(&self) -> String {
        // SAFETY: the function returns a string that lives for ever.
        let version = unsafe { CStr::from_ptr(OpenSSL_version(0)) }.to_string_lossy();
        version.into_owned()
    }

    fn process(&mut self, direction: Direction, first: Sector, input: &[u8], output: &mut [u8]) {
        let context = match direction {
            Direction::Encrypt => &mut self.encrypting,
            Direction::Decrypt => &mut self.decrypting,
        };
        let units = input
            .chunks_exact(SECTOR_BYTES)
            .zip(output.chunks_exact_mut(SECTOR_BYTES));
        for ((input, output), sector) in units.zip(first.0..) {
            context.process_unit(&tweak(sector), input, output);
        }
    }
}

/// A context with an expanded key, which this owns.
struct Context(*mut EVP_CIPHER_CTX);

/// Leaves the direction of a context as it is.
const AS_BEFORE: i32 = -1;

impl Context {
    fn new(direction: Direction, key: &[u8; KEY_BYTES]) -> Self {
        // SAFETY: no conditions.
        let context = Context(unsafe { EVP_CIPHER_CTX_new() });
        assert!(!context.0.is_null(), "memory");
        let encrypt = i32::from(direction == Direction::Encrypt);
        // SAFETY: the context is valid, the cipher static, the key as long as this cipher's, and the tweak 16 bytes.
        let status = unsafe {
            EVP_CipherInit_ex(
                context.0,
                EVP_aes_256_xts(),
                null_mut(),
                key.as_ptr(),
                tweak(0).as_ptr(),
                encrypt,
            )
        };
        assert!(status == 1, "AWS-LC refused the key");
        context
    }

    fn process_unit(&mut self, tweak: &[u8; 16], input: &[u8], output: &mut [u8]) {
        assert_eq!(input.len(), output.len());
        let mut length = 0;
        // SAFETY: the context is valid and has cipher and key; the tweak is 16 bytes; XTS writes as many bytes as it reads,
        // and both buffers have them.
        let status = unsafe {
            EVP_CipherInit_ex(self.0, null(), null_mut(), null(), tweak.as_ptr(), AS_BEFORE)
                & EVP_CipherUpdate(
                    self.0,
                    output.as_mut_ptr(),
                    &mut length,
                    input.as_ptr(),
                    input.len() as i32,
                )
        };
        assert!(status == 1 && length as usize == input.len(), "AWS-LC refused");
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        unsafe { EVP_CIPHER_CTX_free(self.0) };
    }
}

//! What whoever imports a key does with its material (rule K10): `sealctl key import --help` has the same by OpenSSL.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

/// RSA-OAEP (SHA-256) of the wrapping key under a public key in PEM, followed by AES-KWP of the material under it.
///
/// # Panics
/// If the public key is none.
pub fn wrapped(public_pem: &str, wrapping: &[u8; 32], material: &[u8]) -> Vec<u8> {
    let (_, public) = pem_rfc7468::decode_vec(public_pem.as_bytes()).expect("PEM");
    let public = PublicEncryptingKey::from_der(&public).expect("a public key");
    let public = OaepPublicEncryptingKey::new(public).expect("a public key");
    let mut blob = vec![0; public.ciphertext_size()];
    public
        .encrypt(&OAEP_SHA256_MGF1SHA256, wrapping, &mut blob, None)
        .expect("a key has room");
    let mut room = vec![0; material.len() + 15];
    let cipher = AesKek::new(&AES_256, wrapping).expect("a key");
    blob.extend_from_slice(cipher.wrap_with_padding(material, &mut room).expect("room"));
    blob
}

//! The token with which a backend claims its attachment.
//!
//! 256 random bits. The KMS keeps only a SHA-256 of it; the backend inherits it on a file descriptor or reads it
//! from a file of mode 0600, never from its arguments or environment.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

const TOKEN_BYTES: usize = 32;

/// Proof of the right to serve one attachment. On the wire and in files: 64 hexadecimal digits.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct Token([u8; TOKEN_BYTES]);

/// SHA-256 of a token: what the KMS stores and compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

/// The text is no token.
#[derive(Debug, thiserror::Error)]
#[error("a token is 64 hexadecimal digits")]
pub struct InvalidToken;

impl Token {
    /// # Errors
    /// The kernel's, if it has no randomness to give.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Token(bytes))
    }

    /// Reads the 64 digits, and at most a line's end after them.
    ///
    /// # Errors
    /// The file's, or `InvalidData`.
    pub fn read_from(file: File) -> io::Result<Self> {
        let mut text = String::with_capacity(2 * TOKEN_BYTES + 2);
        file.take(2 * TOKEN_BYTES as u64 + 2).read_to_string(&mut text)?;
        let token =
            Self::parse(text.trim_end()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        text.zeroize();
        token
    }

    /// # Errors
    /// [`InvalidToken`] for anything but 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let mut bytes = [0; TOKEN_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidToken)?;
        Ok(Token(bytes))
    }

    /// The 64 digits, for the descriptor or file that the backend reads.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// What the KMS keeps of this token.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0).into())
    }
}

impl Clone for Token {
    fn clone(&self) -> Self {
        Token(self.0)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl TryFrom<String> for Token {
    type Error = InvalidToken;
    fn try_from(mut text: String) -> Result<Self, InvalidToken> {
        let token = Self::parse(&text);
        text.zeroize();
        token
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(self.to_hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let token = Token::generate().unwrap();
        let again = Token::parse(&token.to_hex()).unwrap();
        assert_eq!(again.hash(), token.hash());
        assert_ne!(Token::generate().unwrap().hash(), token.hash());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert!(Token::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let token = Token::generate().unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}

//! XTS-AES-256 and the keys it runs under.

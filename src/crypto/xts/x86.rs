//! Kernels for x86-64.
#![allow(unsafe_code)]

pub(super) mod aes_ni;
mod schedule;
pub(super) mod vaes512;

//! The on-disk format of the layered store: a store that is built from `docs/format.md` alone, and what becomes of stores
//! whose bytes are not what was written.

mod build;
mod by_hand;
mod damage;
mod document;
mod editor;
mod findings;
mod random;
mod rig;

//! sealblk
fn main() {}

//! What this process can still do once it has what it needs: nothing but its work on what it has open.
//!
//! 1. [`Sandbox::prepare`], first of all: what namespaces can be made with later.
//! 2. The claim. Then paths are needed for the last time: the socket is bound, [`crate::host`] looks around.
//! 3. [`Sandbox::confine`], while there is one thread: namespaces, limits, privileges, Landlock. Threads inherit all of these.
//! 4. [`Confined::filter`]: the list of system calls. Threads that are started later inherit it, and keep of it what they
//!    need, by [`narrow`].
//!
//! Nothing of a guest, of a predecessor, of an image or of a store is looked at before. What the kernel cannot do is in the
//! [`Report`]; the rest holds all the same.

mod calls;
mod confine;
mod filter;
mod kind;
mod limits;
mod namespaces;
mod needs;
mod paths;
mod privileges;
mod report;

pub use self::confine::{Confined, Sandbox};
pub use self::filter::{narrow, narrow_early};
pub use self::kind::Kind;
pub use self::needs::Needs;
pub use self::report::Report;

//! The layered store on a medium that records everything and is cut off at any moment, against models in memory.
//!
//! Sectors hold numbers instead of ciphertext: which write they are from, and which sector they are. So what is found
//! after a crash says by itself whether it may be there.
//!
//! - `medium`: the recording medium, `crash`: what may be on it after a crash.
//! - `worker`: carries plans out, as a queue's worker does.
//! - `history`: what was asked and answered when, and hence what may be found; `examine`: looks.
//! - `creation`: crashes while a store is made; `damage`: bytes that change; `unreadable`: pages that the medium does not
//!   give; `faults`: calls of the medium that fail; `failing`: workloads in which they do.
//! - `upgrade`: crashes while a store of the first version of the format becomes one of the present.
//! - `reuse`: clusters that are given out again.
//! - `script`: workloads; `bounded`, `random`, `interleaved`, `machine`: which ones.

mod bounded;
mod crash;
mod creation;
mod damage;
mod examine;
mod failing;
mod faults;
mod history;
mod interleaved;
mod machine;
mod medium;
mod random;
mod regressions;
mod reuse;
mod rng;
mod script;
mod sectors;
mod unreadable;
mod upgrade;
mod worker;

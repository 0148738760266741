//! What the test crates share, compiled once for all of them: as modules of each it was most of a cold build.
//! A test crate names what it uses at its root, `use testkit::{cases, harness, oracle};`; the modules that it shares with others find them as `crate::…`.
#[path = "../cases/mod.rs"]
pub mod cases;
#[path = "../harness/mod.rs"]
pub mod harness;
#[path = "../oracle/mod.rs"]
pub mod oracle;

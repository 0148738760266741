//! The C ABI. The only `extern "C"`, and the only place that turns the caller's bytes into structs.
//!
//! The contract that this module implements is the header's first comment; its text stands in `include/cbindgen.toml`.
#![allow(non_camel_case_types)]

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod by_token_tests;
pub mod config;
pub mod constants;
pub mod context;
pub mod dlpack;
pub mod nccl;
pub mod partials;
pub mod plan;
pub mod primitives;
mod primitives_on_device;
pub mod ranks;
pub mod status;
pub mod structs;
pub mod types;
pub mod util;

use crate::error::{self, Refused, Result};
use crate::numerics::fpmode::with_default_mode;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    /// Inside the library: a panic here is ours, is reported as a status and is not printed.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs the body of an ABI function: names it for the sentences, turns a refusal into its status and a panic into `PASSRL_ERR_INTERNAL`.
pub(crate) fn guard(function: &'static str, body: impl FnOnce() -> Result<i32>) -> i32 {
    quiet_panics();
    error::enter(function);
    let before = INSIDE.replace(true);
    // The caller's floating-point mode is kept and not trusted, from tables to results.
    let outcome = catch_unwind(AssertUnwindSafe(|| with_default_mode(body)));
    INSIDE.set(before);
    match outcome {
        Ok(Ok(status)) => status,
        Ok(Err(Refused(status))) => status,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            error::set(format_args!("internal error ({text}); nothing more is known about the outputs; please report it"));
            status::PASSRL_ERR_INTERNAL
        }
    }
}

/// The default panic hook prints to the host's stderr. Ours is silent for panics inside the library, which `guard` reports, and leaves
/// every other one to the hook that was there. (The hook is that of the Rust runtime linked into this library, not the host's.)
fn quiet_panics() {
    // Not a `Once`: a process forked by another thread in the middle of one would wait in it for a thread that it does not have.
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Relaxed) || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let ours = INSIDE.try_with(Cell::get).unwrap_or(false)
            || std::thread::current().name().is_some_and(|name| name.starts_with("passrl"));
        if !ours {
            before(info);
        }
    }));
}

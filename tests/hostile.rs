//! Wrong arguments at the C boundary of the shipped library: each case by name, its exact status, the sentence with argument and numbers,
//! and outputs untouched. Then wrong data: done, outputs whole, the bad group 0, the report says which.
#[path = "hostile/api.rs"]
mod api;
#[path = "hostile/cases_batch.rs"]
mod cases_batch;
#[path = "hostile/cases_calls.rs"]
mod cases_calls;
#[path = "hostile/cases_config.rs"]
mod cases_config;
#[path = "hostile/cases_memory.rs"]
mod cases_memory;
#[path = "hostile/cases_pieces.rs"]
mod cases_pieces;
#[path = "abi/common.rs"]
mod common;
#[path = "hostile/findings.rs"]
mod findings;
#[path = "hostile/names.rs"]
mod names;
#[path = "hostile/overlap.rs"]
mod overlap;
#[path = "hostile/world.rs"]
mod world;

use api::{Act, Api};
use passrl::abi::status::PASSRL_OK;
use std::collections::BTreeSet;
use world::World;

/// name, call, status, what the sentence must hold, what is damaged.
pub type Case = (&'static str, Act, i32, &'static str, fn(&mut World));

fn all() -> Vec<Case> {
    [cases_calls::cases(), cases_config::cases(), cases_batch::cases(), cases_memory::cases(), cases_pieces::cases()].concat()
}

fn function(act: Act) -> &'static str {
    match act {
        Act::Context => "passrl_context_create: ",
        Act::Plan => "passrl_plan_create: ",
        Act::Run => "passrl_plan_run: ",
        Act::PartialsInit => "passrl_partials_init: ",
        Act::Add => "passrl_partials_add: ",
        Act::Merge => "passrl_partials_merge: ",
        Act::Apply => "passrl_plan_apply: ",
        Act::Direct(_) => "passrl_",
    }
}

#[test]
fn the_valid_world_is_valid() {
    let api = Api::load();
    for (name, edit) in
        [("packed", (|_| ()) as fn(&mut World)), ("padded", World::padded), ("kl", World::kl), ("opd", World::opd), ("gae", World::gae), ("returns", World::returns), ("keyed", World::keyed), ("pieces", World::pieces)]
    {
        for act in [Act::Run, Act::Add, Act::Apply, Act::Merge, Act::PartialsInit, Act::Plan, Act::Context] {
            let mut w = World::new(&api);
            edit(&mut w);
            if name == "keyed" && !matches!(act, Act::Run | Act::Plan | Act::Context) {
                continue; // no partials: refused, a case of cases_batch
            }
            if name == "pieces" && matches!(act, Act::Apply) {
                continue; // pieces that the buffer has not seen: refused, a case of cases_pieces
            }
            let status = api.call(&mut w, act);
            assert!(status == PASSRL_OK && w.sentence.is_empty(), "{name}, {act:?}: {status}, {}", w.sentence);
            if matches!(act, Act::Run) {
                assert!(w.untouched().is_err(), "{name}: a run writes");
            }
        }
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let api = Api::load();
    let cases = all();
    let names: BTreeSet<_> = cases.iter().map(|c| c.0).collect();
    assert!(names.len() == cases.len(), "two cases have one name");
    assert!(cases.len() >= 120, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (name, act, status, says, edit) in cases {
        let mut w = World::new(&api);
        edit(&mut w);
        let got = api.call(&mut w, act);
        let begins = w.sentence.starts_with(function(act));
        if got != status || !begins || !w.sentence.contains(says) {
            wrong.push(format!("{name}: status {got}, wanted {status}; sentence \"{}\", wanted \"{says}\"", w.sentence));
        }
        if let Err(what) = w.untouched() {
            wrong.push(format!("{name}: refused, and yet {what}"));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn functions_without_a_handle() {
    use std::ffi::{CStr, c_char};
    let api = Api::load();
    let name = api::symbol!(api, passrl_preset_name(i32) -> *const c_char);
    let source = api::symbol!(api, passrl_preset_source(i32) -> *const c_char);
    let status_name = api::symbol!(api, passrl_status_name(i32) -> *const c_char);
    // SAFETY: the functions take any number and give static text or NULL.
    unsafe {
        let count = api::symbol!(api, passrl_preset_count() -> i32)();
        assert!(count >= 3);
        for index in [-1, count, i32::MIN, i32::MAX] {
            assert!(name(index).is_null() && source(index).is_null(), "preset {index}");
        }
        let names: Vec<_> = (0..count).map(|i| CStr::from_ptr(name(i)).to_str().expect("text")).collect();
        assert!(names.contains(&"pass") && names.contains(&"grpo_process") && names.contains(&"grpo_pooled"), "{names:?}");
        assert!((0..count).all(|i| !CStr::from_ptr(source(i)).is_empty()));
        assert_eq!(CStr::from_ptr(status_name(-200)), c"PASSRL_ERR_SHAPE");
        assert_eq!(CStr::from_ptr(status_name(12345)), c"unknown status");
        assert_eq!(api::symbol!(api, passrl_report_size() -> usize)(), size_of::<passrl::abi::types::passrl_report>());
        // NULL is a no-op.
        api::symbol!(api, passrl_context_destroy(*mut u8) -> ())(std::ptr::null_mut());
        api::symbol!(api, passrl_plan_destroy(*mut u8) -> ())(std::ptr::null_mut());
    }
    // Every status of the header has its name, and every sentence is its own thread's.
    let mut w = World::new(&api);
    w.null = "batch";
    assert_ne!(api.call(&mut w, Act::Run), PASSRL_OK);
    let other = std::thread::spawn(|| Api::load().last_error()).join().expect("a thread");
    assert!(other.is_empty(), "another thread's sentence: {other}");
}

/// Two copies of the library in one process, symbols global: each binds to itself.
#[test]
fn beside_another_copy_of_itself() {
    let copy = common::scratch("hostile-copy").join("libpassrl_copy.so");
    std::fs::copy(common::library(), &copy).expect("a copy");
    let flags = libloading::os::unix::RTLD_NOW | libloading::os::unix::RTLD_GLOBAL;
    // SAFETY: the library has no initialisers that matter here.
    let second = unsafe { libloading::os::unix::Library::open(Some(&copy), flags).expect("the copy loads") };
    let (api, copied) = (Api::load(), Api::of(second.into()));
    for at in [&api, &copied, &api] {
        let mut w = World::new(at);
        assert_eq!(at.call(&mut w, Act::Run), PASSRL_OK, "{}", w.sentence);
        w.batch.num_rollouts = 77;
        assert_ne!(at.call(&mut w, Act::Run), PASSRL_OK);
        assert!(w.sentence.contains("batch.num_rollouts is 77"));
    }
    type LastError = unsafe extern "C" fn() -> *const u8;
    let last = [&api, &copied].map(|at| at.symbol::<LastError>("passrl_last_error\0"));
    // SAFETY: gives thread-local memory.
    unsafe { assert_ne!(last[0](), last[1](), "two libraries, two last errors") };
}

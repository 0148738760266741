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
#[path = "abi/common.rs"]
mod common;
#[path = "hostile/findings.rs"]
mod findings;
#[path = "hostile/world.rs"]
mod world;

use api::{Act, Api};
use passrl::abi::status::PASSRL_OK;
use std::collections::BTreeSet;
use world::World;

/// name, call, status, what the sentence must hold, what is damaged.
pub type Case = (&'static str, Act, i32, &'static str, fn(&mut World));

fn all() -> Vec<Case> {
    [cases_calls::cases(), cases_config::cases(), cases_batch::cases(), cases_memory::cases()].concat()
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
    for (name, edit) in [("packed", (|_| ()) as fn(&mut World)), ("padded", World::padded), ("kl", World::kl), ("opd", World::opd), ("gae", World::gae)] {
        for act in [Act::Run, Act::Add, Act::Apply, Act::Merge, Act::PartialsInit, Act::Plan, Act::Context] {
            let mut w = World::new(&api);
            edit(&mut w);
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

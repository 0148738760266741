//! What the caller calls its streams stands in the sentences of its plans.
use crate::api::{Act, Api, symbol};
use crate::world::World;
use passrl::abi::constants::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

fn name(w: &mut World, row: usize, name: &str) {
    let to = &mut w.config.streams[row].name;
    to.fill(0);
    to.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as c_char);
}

/// A NaN in the second further stream.
fn bad(api: &Api, row_name: &str) -> World {
    let mut w = World::new(api);
    w.config.num_extra = 2;
    name(&mut w, 7, row_name);
    w.floats("batch.extra[0]", PASSRL_F32, &[1.0; 6]);
    w.floats("batch.extra[1]", PASSRL_F32, &[0., f64::NAN, 1., 0., 1., 1.]);
    w
}

#[test]
fn a_finding_names_its_stream() {
    let api = Api::load();
    let longest = "thirty-one bytes long, all of it";
    for (given, says) in [
        ("accuracy", "stream accuracy (extra_1);"),
        ("r\u{e9}ponse", "stream r\u{e9}ponse (extra_1);"),
        (&longest[..31], "stream thirty-one bytes long, all of i (extra_1);"),
        ("", "stream extra_1;"),
        ("extra_1", "stream extra_1;"),
        // A row copied from another one.
        ("extra_0", "stream extra_1;"),
    ] {
        let mut w = bad(&api, given);
        assert_eq!(api.call(&mut w, Act::Run), PASSRL_FINDING_MISSING, "{}", w.sentence);
        assert!(w.sentence.contains(says), "\"{given}\": {}", w.sentence);
        // The report alone has a number.
        let of_report = symbol!(api, passrl_report_status(*const passrl_report) -> i32);
        // SAFETY: a report.
        assert_eq!(unsafe { of_report(&w.report) }, PASSRL_FINDING_MISSING);
        assert!(api.last_error().contains("stream extra_1;"), "{}", api.last_error());
    }
}

#[test]
fn a_plan_describes_its_streams_by_name() {
    let api = Api::load();
    let mut w = bad(&api, "accuracy");
    name(&mut w, 4, "correctness");
    let (mut context, mut plan) = (null_mut(), null_mut());
    assert_eq!(api.context(&mut w, &mut context), PASSRL_OK);
    assert_eq!(api.plan(&mut w, context, &mut plan), PASSRL_OK, "{}", api.last_error());
    let mut text = [0 as c_char; 8192];
    let describe = symbol!(api, passrl_plan_describe(*const passrl_plan, *mut c_char, usize, *mut usize) -> i32);
    // SAFETY: a live plan and room for its text, given back once.
    let text = unsafe {
        assert_eq!(describe(plan, text.as_mut_ptr(), text.len(), null_mut()), PASSRL_OK, "{}", api.last_error());
        symbol!(api, passrl_plan_destroy(*mut passrl_plan) -> ())(plan);
        symbol!(api, passrl_context_destroy(*mut passrl_context) -> ())(context);
        CStr::from_ptr(text.as_ptr()).to_str().expect("text")
    };
    for says in ["group_stats process_0: ", "group_stats correctness (outcome): ", "group_stats format: ", "group_stats extra_0: ", "group_stats accuracy (extra_1): "] {
        assert!(text.contains(says), "no \"{says}\" in\n{text}");
    }
}

//! The primitives allocate nothing: a counting allocator sees each call.
#[path = "primitives/rig.rs"]
mod rig;

use passrl::abi::constants::*;
use passrl::abi::primitives::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use rig::*;
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::cell::Cell as Count;
use std::ptr::{null, null_mut};

struct Counting;
thread_local! {
    static CALLS: Count<usize> = const { Count::new(0) };
}

// SAFETY: the system's allocator, counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        let _ = CALLS.try_with(|c| c.set(c.get() + 1));
        unsafe { System.alloc(block) }
    }
    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        unsafe { System.dealloc(at, block) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn no_primitive_allocates() {
    let rig = Rig::new();
    for layout in Layout::ALL {
        for bad in [false, true] {
            let place = Place::new(layout);
            let mut first = data(1);
            if bad {
                first[5][1] = f64::NAN;
            }
            let mut arrays: Vec<Vec<f32>> = [&first, &data(2), &data(3)].iter().map(|d| place.scatter(d, f32::NAN)).collect();
            let mut outs = vec![vec![0f32; place.slots]; 2];
            let v: Vec<passrl_view> = arrays.iter_mut().map(|a| place.view(a)).collect();
            let o: Vec<passrl_view> = outs.iter_mut().map(|a| place.view(a)).collect();
            let (mut x, mut flags, mut k, mut index) =
                (vec![1.0f32; 10], vec![0i32; 32], vec![0i32; 10], vec![0i32, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
            x[3] = if bad { f32::NAN } else { 2.0 };
            let (x, flags, k, index) = (line(&mut x), grid(&mut flags, 2, 16), line(&mut k), line(&mut index));
            let mut config = config();
            config.boundary_rule = PASSRL_BOUNDARY_ANCHORED;
            let (c, w, n) = (rig.context, rig.ws(), rig.bytes());
            place.with_batch(|b| {
                let mut b = passrl_batch { group_index: &index, num_groups: 2, outcome: &x, ..*b };
                b.signal[0] = &v[0];
                let mut calls: Vec<(&str, Box<dyn Fn() -> i32>)> = Vec::new();
                unsafe {
                    calls.push(("returns", Box::new(|| passrl_discounted_returns(c, &b, 0.9, &v[0], &o[0], w, n, null_mut()))));
                    calls.push(("gae", Box::new(|| passrl_gae(c, &b, 0.9, 0.9, &v[0], &v[1], &x, &o[0], &o[1], w, n, null_mut()))));
                    calls.push(("divide", Box::new(|| passrl_divide_length(c, &b, 0.7, &v[0], &o[0], w, n, null_mut()))));
                    calls.push(("opd", Box::new(|| passrl_opd_signal(c, &b, 1.25, &v[0], &v[1], &v[2], &o[0], w, n, null_mut()))));
                    calls.push(("whiten", Box::new(|| passrl_whiten(c, &b, &config, &v[0], &o[0], w, n, null_mut()))));
                    calls.push(("chunks", Box::new(|| passrl_chunk_boundaries(c, &b, &config, &k, null(), w, n, null_mut()))));
                    calls.push(("flags", Box::new(|| passrl_group_flags(c, &b, &config, &flags, null(), null_mut(), w, n, null_mut()))));
                    let row = config.streams[4];
                    calls.push((
                        "standardize",
                        Box::new(move || passrl_group_standardize(c, &b, &row, &x, &x, null(), null(), null(), null(), w, n, null_mut())),
                    ));
                }
                for (name, call) in &calls {
                    // The first call of a process makes room for the panic hook.
                    call();
                    let before = CALLS.get();
                    let status = call();
                    assert_eq!(CALLS.get(), before, "{name} {layout:?}");
                    let standardized_in_place = *name == "standardize";
                    assert!(standardized_in_place || (status != PASSRL_OK) == bad, "{name}: {status} {}", last());
                }
            });
        }
    }
}

#[test]
fn slots_between_rows_are_left_alone_and_padding_is_too_where_asked() {
    let rig = Rig::new();
    // Rows of 4 slots, 6 apart; columns 4 and 5 belong to somebody else.
    let (mut x, mut out) = (vec![2.0f32; 18], vec![7.5f32; 18]);
    for (i, x) in x.iter_mut().enumerate() {
        *x = i as f32;
    }
    let mut lengths = vec![2i64, 0, 4];
    let wide = |data: &mut [f32]| passrl_view { shape: [3, 4], stride: [6, 1], ndim: 2, ..line(data) };
    let (v, o, lengths) = (wide(&mut x), wide(&mut out), line(&mut lengths));
    let b = passrl_batch { num_rollouts: 3, layout: PASSRL_PADDED, lengths: &lengths, ..batch() };
    let (c, w, n) = (rig.context, rig.ws(), rig.bytes());
    assert_eq!(unsafe { passrl_discounted_returns(c, &b, 1.0, &v, &o, w, n, null_mut()) }, PASSRL_OK, "{}", last());
    assert_eq!(out, [1.0, 1.0, 0.0, 0.0, 7.5, 7.5, 0.0, 0.0, 0.0, 0.0, 7.5, 7.5, 54.0, 42.0, 29.0, 15.0, 7.5, 7.5]);
    out.fill(7.5);
    let config = passrl_config { fill_padding: 0, ..config() };
    assert_eq!(unsafe { passrl_whiten(c, &b, &config, &v, &o, w, n, null_mut()) }, PASSRL_OK, "{}", last());
    let kept: Vec<usize> = (0..18).filter(|t| out[*t] == 7.5).collect();
    assert_eq!(kept, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17]);
}

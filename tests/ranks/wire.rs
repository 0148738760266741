//! Ranks as threads of one process: an all-reduce in memory that takes nothing but what was announced.
#![allow(dead_code)]
use crate::harness::{How, Plan, library};
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};

/// Elements, type, operator.
pub type Message = (usize, i32, i32);

/// Message of a plan's creation.
pub const CREATION: Message = (21, PASSRL_I64, PASSRL_REDUCE_MAX);

/// Message after it where configurations differ.
pub const FIELDS: Message = (536, PASSRL_I64, PASSRL_REDUCE_MAX);

pub struct Wire {
    pub size: usize,
    barrier: Barrier,
    sent: Mutex<Vec<Vec<u8>>>,
    pub wrong: Mutex<Vec<String>>,
    /// (rank, call): that rank's engine fails then, and with it every rank's.
    pub fails: Option<(usize, usize)>,
    broken: AtomicBool,
}

/// One rank's end of it.
pub struct Seat<'w> {
    wire: &'w Wire,
    pub rank: usize,
    pub calls: AtomicUsize,
    /// What may come; empty: anything.
    pub expected: Mutex<Vec<Message>>,
}

impl Wire {
    pub fn new(size: usize) -> Wire {
        Wire { size, barrier: Barrier::new(size), sent: Mutex::new(vec![Vec::new(); size]), wrong: Mutex::default(), fails: None, broken: AtomicBool::new(false) }
    }

    pub fn seat(&self, rank: usize) -> Seat<'_> {
        Seat { wire: self, rank, calls: AtomicUsize::new(0), expected: Mutex::new(vec![CREATION, FIELDS]) }
    }
}

impl Seat<'_> {
    pub fn collective(&self) -> passrl_collective {
        let mut c: passrl_collective = library().initial();
        c.user = (&raw const *self).cast_mut().cast();
        c.all_reduce = Some(all_reduce);
        (c.rank, c.size) = (self.rank as i32, self.wire.size as i32);
        c
    }

    /// For another plan: its creation is expected again.
    pub fn collective_anew(&self) -> passrl_collective {
        *self.expected.lock().unwrap() = vec![CREATION];
        self.calls.store(0, Ordering::SeqCst);
        self.collective()
    }

    /// From here on the messages of a run, as the plan describes them.
    pub fn expect(&self, plan: &Plan, with_counts: bool) {
        *self.expected.lock().unwrap() = messages(plan, with_counts);
        self.calls.store(0, Ordering::SeqCst);
    }

    fn reduce(&self, buffer: *mut u8, message: Message) -> i32 {
        let (count, dtype, op) = message;
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let expected = self.expected.lock().unwrap().clone();
        if !expected.is_empty() && expected.get(call % expected.len()) != Some(&message) {
            self.wire.wrong.lock().unwrap().push(format!("rank {} call {call}: {message:?}, not of {expected:?}", self.rank));
        }
        let bytes = count * if dtype == PASSRL_I64 { 8 } else { 4 };
        // SAFETY: `count` elements by the contract.
        let own = unsafe { std::slice::from_raw_parts_mut(buffer, bytes) };
        self.wire.sent.lock().unwrap()[self.rank] = own.to_vec();
        if self.wire.fails == Some((self.rank, call)) {
            self.wire.broken.store(true, Ordering::SeqCst);
        }
        self.wire.barrier.wait();
        let broken = self.wire.broken.load(Ordering::SeqCst);
        let sent = self.wire.sent.lock().unwrap().clone();
        for (rank, other) in sent.iter().enumerate() {
            if other.len() != bytes {
                self.wire.wrong.lock().unwrap().push(format!("rank {} sends {} bytes and rank {rank} {}", self.rank, bytes, other.len()));
            } else if rank != self.rank {
                combine(own, other, dtype, op);
            }
        }
        // Nobody sends again before all have read.
        self.wire.barrier.wait();
        if broken { 5 } else { 0 }
    }
}

/// The all-reduce of two ranks' elements.
pub fn combine(own: &mut [u8], other: &[u8], dtype: i32, op: i32) {
    macro_rules! each {
        ($T:ty) => {
            for (a, b) in own.chunks_exact_mut(size_of::<$T>()).zip(other.chunks_exact(size_of::<$T>())) {
                let (x, y) = (<$T>::from_ne_bytes((&*a).try_into().unwrap()), <$T>::from_ne_bytes(b.try_into().unwrap()));
                a.copy_from_slice(&if op == PASSRL_REDUCE_SUM { x.wrapping_add(y) } else { x.max(y) }.to_ne_bytes());
            }
        };
    }
    if dtype == PASSRL_I64 { each!(i64) } else { each!(i32) }
}

unsafe extern "C" fn all_reduce(user: *mut c_void, buffer: *mut c_void, count: usize, dtype: i32, op: i32, stream: *mut c_void) -> i32 {
    assert!(stream.is_null());
    // SAFETY: the seat outlives the plan.
    unsafe { &*user.cast::<Seat>() }.reduce(buffer.cast(), (count, dtype, op))
}

pub fn describe(plan: &Plan) -> String {
    type Describe = unsafe extern "C" fn(*const c_void, *mut c_char, usize, *mut usize) -> i32;
    let describe: Describe = library().get("passrl_plan_describe");
    let (mut text, mut needed) = (vec![0u8; 1 << 14], 0);
    // SAFETY: a live plan and a buffer of that size.
    assert_eq!(unsafe { describe(plan.plan, text.as_mut_ptr().cast(), text.len(), &mut needed) }, 0);
    text.truncate(needed.saturating_sub(1));
    String::from_utf8(text).unwrap()
}

/// The reductions of a run that a plan prints; those of counts only where they are asked for.
pub fn messages(plan: &Plan, with_counts: bool) -> Vec<Message> {
    let text = describe(plan);
    text.lines()
        .filter(|line| with_counts || !line.ends_with("(where asked for)"))
        .filter_map(|line| line.trim().strip_prefix("reduction after phase "))
        .map(|line| {
            let words: Vec<&str> = line.split([' ', ',', ':']).filter(|w| !w.is_empty()).collect();
            let (op, count, dtype) = (words[1], words[3].parse().unwrap(), words[4]);
            (count, if dtype == "i64" { PASSRL_I64 } else { PASSRL_I32 }, if op == "sum" { PASSRL_REDUCE_SUM } else { PASSRL_REDUCE_MAX })
        })
        .collect()
}

/// A call of the library that takes a plan and room for a number.
pub fn ask(plan: &Plan, name: &str) -> i32 {
    let mut out = [0usize; 2];
    type Count = unsafe extern "C" fn(*const c_void, *mut usize) -> i32;
    // SAFETY: a live plan and room for a size or a count.
    unsafe { library().get::<Count>(name)(plan.plan, out.as_mut_ptr()) }
}

/// A run whose batch is NULL.
pub fn run_without_batch(plan: &Plan, how: &How) -> (i32, String) {
    type Run = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;
    let run: Run = library().get("passrl_plan_run");
    let workspace = plan.workspace(how);
    // SAFETY: a live plan; NULL is refused.
    let status = unsafe { run(plan.plan, std::ptr::null(), std::ptr::null(), workspace.at, workspace.bytes, null_mut()) };
    (status, library().last_error())
}

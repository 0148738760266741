//! An all-reduce for the tests, over ranks as threads of one process. Of device memory it is in the order of the stream: each message puts two host functions on it, one
//! that gives a copy of this rank's words and one that waits for those of the others and writes what all came to. (A host function that calls the driver is what the
//! simulated driver allows and no real one does.) A function that waits lets the other ranks' streams go on by `cuStreamQuery`, so that one thread can drain them all.
use crate::harness::device::{Driver, driver};
use crate::harness::library;
use passrl::abi::constants::*;
use passrl::abi::types::passrl_collective;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

/// Elements, type, operator.
pub type Message = (usize, i32, i32);

pub struct Engine {
    pub size: usize,
    barrier: Barrier,
    /// What the ranks send at once (a plan's creation, host memory).
    sent: Mutex<Vec<Vec<u8>>>,
    /// `[rank][message of a run]`: what it has sent, a line a run.
    given: Mutex<Vec<Vec<Vec<Vec<u8>>>>>,
    streams: Mutex<Vec<usize>>,
    /// Every rank's call with this number in a run returns 5.
    pub fails: Option<usize>,
    pub wrong: Mutex<Vec<String>>,
}

/// One rank's end of it. Lives as long as the plan and its graphs.
pub struct Seat {
    engine: Arc<Engine>,
    pub rank: usize,
    on_device: bool,
    pub calls: AtomicUsize,
    /// Messages of a run; before they are known anything may come.
    expected: Mutex<Vec<Message>>,
    tasks: Mutex<Vec<Box<Task>>>,
    failing: AtomicBool,
}

/// A message that is on a stream.
struct Task {
    seat: *const Seat,
    number: usize,
    at: u64,
    bytes: usize,
    dtype: i32,
    op: i32,
    done: AtomicUsize,
}

impl Engine {
    pub fn new(size: usize) -> Engine {
        Engine {
            size,
            barrier: Barrier::new(size),
            sent: Mutex::new(vec![Vec::new(); size]),
            given: Mutex::new(vec![Vec::new(); size]),
            streams: Mutex::new(vec![0; size]),
            fails: None,
            wrong: Mutex::default(),
        }
    }

    /// All ranks are here.
    pub fn meet(&self) {
        self.barrier.wait();
    }
}

impl Seat {
    pub fn new(engine: &Arc<Engine>, rank: usize, on_device: bool) -> Box<Seat> {
        Box::new(Seat { engine: Arc::clone(engine), rank, on_device, calls: AtomicUsize::new(0), expected: Mutex::default(), tasks: Mutex::default(), failing: AtomicBool::new(false) })
    }

    /// The seat must not move from here on.
    pub fn collective(&self) -> passrl_collective {
        let mut c: passrl_collective = library().initial();
        c.user = (&raw const *self).cast_mut().cast();
        c.all_reduce = Some(all_reduce);
        (c.rank, c.size) = (self.rank as i32, self.engine.size as i32);
        c.device_type = if self.on_device { PASSRL_CUDA } else { PASSRL_CPU };
        c
    }

    /// From here on the messages of a run, as the plan describes them.
    pub fn expect(&self, messages: Vec<Message>) {
        *self.expected.lock().unwrap() = messages;
        self.calls.store(0, Ordering::SeqCst);
    }

    /// This rank's next call returns 5.
    pub fn fails_once(&self) {
        self.failing.store(true, Ordering::SeqCst);
    }

    fn complain(&self, of: String) {
        self.engine.wrong.lock().unwrap().push(format!("rank {}: {of}", self.rank));
    }

    fn at_once(&self, own: &mut [u8], dtype: i32, op: i32) {
        self.engine.sent.lock().unwrap()[self.rank] = own.to_vec();
        self.engine.meet();
        let sent = self.engine.sent.lock().unwrap().clone();
        for (rank, other) in sent.iter().enumerate().filter(|(rank, _)| *rank != self.rank) {
            if other.len() != own.len() {
                self.complain(format!("sends {} bytes and rank {rank} {}", own.len(), other.len()));
                continue;
            }
            combine(own, other, dtype, op);
        }
        // Nobody sends again before all have read.
        self.engine.meet();
    }

    fn reduce(&self, buffer: *mut c_void, message: Message, stream: *mut c_void) -> i32 {
        let (count, dtype, op) = message;
        let bytes = count * if dtype == PASSRL_I64 { 8 } else { 4 };
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let expected = self.expected.lock().unwrap().clone();
        let of_a_run = !expected.is_empty();
        if of_a_run && expected.get(number % expected.len()) != Some(&message) {
            self.complain(format!("call {number}: {message:?}, not of {expected:?}"));
        }
        if of_a_run && self.engine.fails == Some(number) || self.failing.swap(false, Ordering::SeqCst) {
            return 5;
        }
        if !self.on_device {
            assert!(stream.is_null());
            // SAFETY: `count` elements of host memory by the contract.
            self.at_once(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), bytes) }, dtype, op);
            return 0;
        }
        let driver = driver().expect("a driver");
        if stream.is_null() {
            // A plan's creation, which waits.
            let mut own = driver.download(buffer.addr() as u64, bytes);
            self.at_once(&mut own, dtype, op);
            driver.upload(buffer.addr() as u64, &own);
            return 0;
        }
        self.engine.streams.lock().unwrap()[self.rank] = stream.addr();
        let number = number % expected.len().max(1);
        let task = Box::new(Task { seat: self, number, at: buffer.addr() as u64, bytes, dtype, op, done: AtomicUsize::new(0) });
        let data: *const Task = &*task;
        self.tasks.lock().unwrap().push(task);
        let host: unsafe extern "C" fn(*mut c_void, unsafe extern "C" fn(*mut c_void), *mut c_void) -> c_int = driver.get("cuLaunchHostFunc");
        // SAFETY: a live stream; the task lives as long as the seat.
        unsafe {
            match host(stream, give, data.cast_mut().cast()) {
                0 => host(stream, take, data.cast_mut().cast()),
                failed => failed,
            }
        }
    }
}

unsafe extern "C" fn all_reduce(user: *mut c_void, buffer: *mut c_void, count: usize, dtype: i32, op: i32, stream: *mut c_void) -> i32 {
    // SAFETY: the seat outlives the plan.
    unsafe { &*user.cast::<Seat>() }.reduce(buffer, (count, dtype, op), stream)
}

/// This rank's words, once the stream has come to them.
unsafe extern "C" fn give(data: *mut c_void) {
    // SAFETY: a task of a live seat; likewise below.
    let (task, seat) = unsafe { (&*data.cast::<Task>(), &*(*data.cast::<Task>()).seat) };
    let words = driver().expect("a driver").download(task.at, task.bytes);
    let mut given = seat.engine.given.lock().unwrap();
    let own = &mut given[seat.rank];
    own.resize(own.len().max(task.number + 1), Vec::new());
    own[task.number].push(words);
}

/// What all came to, once the others' streams have come to theirs.
unsafe extern "C" fn take(data: *mut c_void) {
    // SAFETY: as above.
    let (task, seat) = unsafe { (&*data.cast::<Task>(), &*(*data.cast::<Task>()).seat) };
    let (engine, driver) = (&seat.engine, driver().expect("a driver"));
    let run = task.done.fetch_add(1, Ordering::SeqCst);
    let of = |rank: usize| engine.given.lock().unwrap()[rank].get(task.number).and_then(|runs| runs.get(run)).cloned();
    let mut all = of(seat.rank).expect("given before");
    for rank in (0..engine.size).filter(|rank| *rank != seat.rank) {
        let other = (0..1000).find_map(|_| of(rank).or_else(|| { go_on(driver, engine.streams.lock().map(|s| s[rank]).unwrap()); None }));
        match other {
            Some(other) if other.len() == all.len() => combine(&mut all, &other, task.dtype, task.op),
            Some(other) => seat.complain(format!("message {} has {} bytes, that of rank {rank} {}", task.number, all.len(), other.len())),
            None => seat.complain(format!("message {} of run {run}: rank {rank} sends nothing", task.number)),
        }
    }
    driver.upload(task.at, &all);
}

/// Lets one more piece of a stream's work run.
fn go_on(driver: &Driver, stream: usize) {
    let query: unsafe extern "C" fn(*mut c_void) -> c_int = driver.get("cuStreamQuery");
    if stream != 0 {
        // SAFETY: a stream of the test's.
        unsafe { query(std::ptr::without_provenance_mut(stream)) };
    }
}

/// The all-reduce of two ranks' elements.
fn combine(own: &mut [u8], other: &[u8], dtype: i32, op: i32) {
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

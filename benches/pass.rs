//! The preset `pass` end to end, through the C ABI: PRM dense (packed, padded), PRM steps and KL (packed, padded), three sizes, one and two threads.
//!
//! `make bench` prints one table and records it. Each case is checked against a plain f64 loop before it is timed.
mod support;

use criterion::{Criterion, criterion_group};
use std::cell::RefCell;
use std::time::{Duration, Instant};
use support::call::Call;
use support::copy::Copier;
use support::reference::{self, Input};
use support::table::{self, Row};
use support::workload::{SIZES, Workload};

const CASES: [(&str, Input, bool); 6] = [
    ("dense packed", Input::Dense, false),
    ("dense padded", Input::Dense, true),
    ("steps packed", Input::Steps, false),
    ("steps padded", Input::Steps, true),
    ("kl packed", Input::Kl, false),
    ("kl padded", Input::Kl, true),
];

thread_local! {
    static ROWS: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
}

fn bench(criterion: &mut Criterion) {
    for size in SIZES {
        let work = Workload::new(size);
        let mut group = criterion.benchmark_group(size.name);
        group.sample_size(10).warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(400));
        for input in [Input::Dense, Input::Steps, Input::Kl] {
            // The loop's answer is made when the first case that asks for it is met: a filter leaves out what it does not name.
            let mut want = None;
            for (name, _, padded) in CASES.into_iter().filter(|case| case.1 == input) {
                for threads in [1, 2] {
                    let mut state = None;
                    let (mut calls, mut copies, mut streams) = (Vec::new(), Vec::new(), Vec::new());
                    group.bench_function(format!("{name}/{threads}"), |bencher| {
                        let (call, copier, _) = state.get_or_insert_with(|| {
                            let mut call = Call::new(&work, input, padded, threads);
                            call.run();
                            let want = want.get_or_insert_with(|| reference::advantages(&work, input));
                            let error = reference::error(&work, &call.packed(&work, padded), want);
                            assert!(error < 1e-6, "{} {name}: error {error:e} against the f64 loop; not timed", size.name);
                            let copier = Copier::new(call.bytes, threads);
                            (call, copier, error)
                        });
                        bencher.iter_custom(|iterations| {
                            let mut total = Duration::ZERO;
                            for _ in 0..iterations {
                                let copy = copier.time();
                                let begin = Instant::now();
                                call.run();
                                let taken = begin.elapsed();
                                total += taken;
                                calls.push(taken.as_secs_f64());
                                copies.push(copy.memcpy);
                                streams.push(copy.streaming);
                            }
                            total
                        });
                    });
                    let Some((call, _, error)) = state else { continue };
                    let (memcpy, streaming) = (median(&mut copies), median(&mut streams));
                    let row = Row {
                        size: size.name,
                        case: name,
                        threads,
                        tokens: work.tokens(),
                        bytes: call.bytes,
                        call: median(&mut calls),
                        best: calls[0],
                        copy: memcpy.min(streaming),
                        copy_kind: if memcpy <= streaming { "memcpy" } else { "non-temporal" },
                        error,
                    };
                    ROWS.with_borrow_mut(|rows| rows.push(row));
                }
            }
        }
        group.finish();
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

criterion_group!(benches, bench);

fn main() {
    let load = table::load();
    benches();
    ROWS.with_borrow(|rows| {
        if rows.is_empty() {
            return;
        }
        let text = table::text(rows, &load);
        println!("\n{text}");
        // `make bench` asks for the record; a filtered or trial run leaves none.
        if std::env::var_os("PASSRL_BENCH_RECORD").is_some() {
            println!("recorded in {}", table::record(rows, &load).expect("benches/record is writable"));
        }
    });
}

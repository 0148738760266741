//! The CPU backend's speed through the C ABI: every estimator against the memory floor, the small end, time against tokens.
//!
//! `make bench` prints the table, records it and draws the pictures; `make bench FILTER='paper/gae'` runs what the expression names. Each case is checked
//! against a plain f64 loop before it is timed.
mod support;

use criterion::{Criterion, criterion_group};
use std::cell::RefCell;
use support::row::Row;
use support::{floor, lengths, machine, small, table};

thread_local! {
    static ROWS: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
}

fn bench(criterion: &mut Criterion) {
    ROWS.with_borrow_mut(|rows| {
        small::bench(criterion, rows);
        floor::bench(criterion, rows);
        lengths::bench(criterion, rows);
    });
}

criterion_group!(benches, bench);

fn main() {
    let load = machine::load();
    benches();
    ROWS.with_borrow(|rows| {
        if rows.is_empty() {
            return;
        }
        println!("\n{}", table::text(rows, &load));
        println!("{}", table::markdown(rows));
        println!("{}", table::scaling(rows));
        // `make bench` asks for the record; a filtered or trial run leaves none.
        let whole = std::env::var_os("PASSRL_BENCH_RECORD").is_some_and(|asked| !asked.is_empty());
        if whole {
            println!("recorded in {}", table::record(rows, &load).expect("benches/record is writable"));
        }
        println!("{}", table::json(rows, if whole { "summary" } else { "filtered" }).expect("target/bench is writable"));
        print!("{}", table::over(rows));
    });
}

//! C programs against the committed header and the built library: an older client, threads, forks, floating-point modes, allocations, memcheck.
#[path = "abi/common.rs"]
mod common;

use common::{ROOT, c_program, must, run, scratch};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

fn program(folder: &str, source: &str) -> PathBuf {
    c_program(folder, source, &[])
}

fn timed(name: &str, command: &mut Command) -> String {
    let begin = Instant::now();
    let said = must(command);
    println!("{name}: {:.2} s", begin.elapsed().as_secs_f64());
    said
}

#[test]
fn an_older_client_runs() {
    timed("old_client", &mut Command::new(program("abi-old", "tests/abi/old_client.c")));
}

#[test]
fn many_threads_one_plan() {
    timed("threads", &mut Command::new(program("abi-threads", "tests/abi/threads.c")));
}

#[test]
fn a_forked_child_goes_on() {
    timed("fork", &mut Command::new(program("abi-fork", "tests/abi/fork.c")));
}

#[test]
fn the_callers_floating_point_mode_is_kept() {
    timed("fpmode", &mut Command::new(program("abi-fpmode", "tests/abi/fpmode.c")));
}

#[test]
fn runs_take_no_memory() {
    let client = program("abi-alloc", "tests/abi/no_alloc.c");
    let shim = scratch("abi-alloc").join("count_alloc.so");
    must(
        Command::new("cc")
            .args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-fno-builtin", "-o"])
            .arg(&shim)
            .arg(format!("{ROOT}/tests/abi/count_alloc.c")),
    );
    timed("no_alloc", Command::new(client).env("LD_PRELOAD", &shim));
}

#[test]
fn the_example_prints_the_papers_numbers() {
    let said = timed("c_minimal", &mut Command::new(program("abi-example", "bindings/cpp/examples/c_minimal.c")));
    assert!(
        said.contains("A: 1.989669 1.989669 0.224898 0.224898\n") && said.contains("C: -4.816441 -4.264802 0.000000 -3.464096"),
        "{said}"
    );
}

/// Memcheck: no byte read before it is written, none beyond its end, none lost.
#[test]
fn memcheck_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("NOT CHECKED: valgrind is missing; install it (Debian: valgrind) and test again");
        return;
    }
    for source in ["tests/abi/old_client.c", "bindings/cpp/examples/c_minimal.c"] {
        let client = program("abi-memcheck", source);
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--error-exitcode=97", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]).arg(&client);
        let begin = Instant::now();
        if let Err(sentence) = run(&mut valgrind) {
            panic!("{sentence}");
        }
        println!("memcheck {source}: {:.1} s", begin.elapsed().as_secs_f64());
    }
}

//! A good guest: what docs/guest.md promises to the process that the library is loaded in, by C programs under tests/guest.
#[path = "abi/common.rs"]
mod common;

use common::{ROOT, c_program, library, must, run, scratch};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

fn guest(name: &str) -> PathBuf {
    c_program(&format!("guest-{name}"), &format!("tests/guest/{name}.c"), &[])
}

fn says(command: &mut Command) {
    let begin = Instant::now();
    print!("{}", must(command));
    println!("{:.2} s", begin.elapsed().as_secs_f64());
}

#[test]
fn a_fork_while_another_thread_is_inside() {
    says(&mut Command::new(guest("fork_inside")));
}

#[test]
fn nothing_stays_behind() {
    // Not by the simulated CUDA driver, which cargo has put on the path: what it keeps is its own.
    says(Command::new(guest("leaks")).env_remove("LD_LIBRARY_PATH"));
}

#[test]
fn nothing_of_the_process_is_touched() {
    says(&mut Command::new(guest("quiet")));
}

#[test]
fn signals_are_the_hosts() {
    says(&mut Command::new(guest("signals")));
}

#[test]
fn contexts_and_plans_beside_each_other() {
    says(&mut Command::new(guest("hammer")));
}

#[test]
fn two_copies_and_closing() {
    let folder = scratch("guest-copies");
    let copies = ["one.so", "two.so"].map(|name| {
        let copy = folder.join(name);
        std::fs::copy(library(), &copy).expect("a copy of the library");
        copy
    });
    says(Command::new(guest("copies")).args(&copies));
}

/// Each way to end, ten times: exit status 0 and not a word.
#[test]
fn processes_and_threads_may_end_at_any_time() {
    let program = guest("ends");
    for mode in ["main", "handler", "destructor", "key", "stack"] {
        for _ in 0..10 {
            let output = run(Command::new(&program).arg(mode)).unwrap_or_else(|sentence| panic!("{mode}: {sentence}"));
            assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{mode}: {output:?}");
        }
    }
}

const SANITIZE: [&str; 4] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-Wno-error"];

/// Whether this compiler has the sanitizers' runtime; a line where it has not.
fn sanitizers(compiler: &str) -> bool {
    let probe = scratch("guest-sanitize").join("probe.c");
    std::fs::write(&probe, "int main(void) { return 0; }\n").expect("a probe");
    let out = probe.with_extension(compiler);
    let works = Command::new(compiler).args(SANITIZE).arg("-o").arg(&out).arg(&probe).output().is_ok_and(|o| o.status.success())
        && Command::new(&out).status().is_ok_and(|s| s.success());
    if !works {
        println!("SKIPPED: {compiler} has no address and undefined-behaviour sanitizer that runs here");
    }
    works
}

/// `leaks`: every block must be given back by the end, the library's too.
fn sanitized(program: PathBuf, leaks: bool) {
    must(Command::new(program).env_remove("LD_LIBRARY_PATH").env("ASAN_OPTIONS", format!("detect_leaks={}:detect_stack_use_after_return=1", u8::from(leaks))));
}

/// The C programs of the ABI under the address and undefined-behaviour sanitizers: what the header and the programs do (the library is not instrumented, but takes
/// its memory from the sanitizer, so a block given back twice or not at all, and any byte that the C library writes for it, is seen).
#[test]
fn c_programs_sanitized() {
    if sanitizers("cc") {
        for source in ["old_client", "threads"] {
            sanitized(c_program("guest-asan", &format!("tests/abi/{source}.c"), &SANITIZE), true);
        }
        sanitized(c_program("guest-asan", "bindings/cpp/examples/c_minimal.c", &SANITIZE), true);
        // A child leaves the parent's pool alone for good, by design.
        sanitized(c_program("guest-asan", "tests/abi/fork.c", &SANITIZE), false);
    }
}

#[test]
fn the_cpp_wrapper_sanitized() {
    if !sanitizers("g++") {
        return;
    }
    let folder = scratch("guest-asan-cpp");
    let link = folder.join("libpassrl.so.0");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(library(), &link).expect("a link to the library");
    let program = folder.join("wrapper");
    let mut gxx = Command::new("g++");
    gxx.args(["-std=c++17", "-O1", "-g"]).args(SANITIZE).arg("-I").arg(format!("{ROOT}/include")).arg("-o").arg(&program);
    must(gxx.arg(format!("{ROOT}/tests/abi/wrapper.cpp")).arg(library()).arg(format!("-Wl,-rpath,{}", folder.display())));
    sanitized(program, true);
}

//! `include/passrl_mpi.h` under Debian's Open MPI: `mpirun -n 1, 2, 3, 4, 8`, every bit that of one process; what a failing rank does to the others.
#[path = "abi/common.rs"]
mod common;

use common::{ROOT, library, must, run, scratch};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The test's program, compiled by mpicc as C and, for the header's sake, as C++; `None` where there is no MPI.
fn program() -> Option<PathBuf> {
    let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if !there("mpicc") || !there("mpirun") {
        eprintln!("SKIPPED: no MPI; tests/setup.sh system installs it (Debian: libopenmpi-dev openmpi-bin)");
        return None;
    }
    // Each test has a folder of its own: they run side by side.
    let folder = scratch(&format!("mpi-{:?}", std::thread::current().id()).replace(['(', ')'], "-"));
    let link = folder.join("libpassrl.so.0");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(library(), &link).expect("a link to the library");
    let program = folder.join("mpi");
    let mut cc = Command::new("mpicc");
    cc.args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror"]);
    cc.arg("-I").arg(format!("{ROOT}/include")).arg("-o").arg(&program);
    must(cc.arg(format!("{ROOT}/tests/ranks/mpi.c")).arg(library()).arg(format!("-Wl,-rpath,{}", folder.display())));
    Some(program)
}

fn mpirun(program: &PathBuf, ranks: usize, mode: &str) -> Command {
    let mut command = Command::new("mpirun");
    // Ranks beyond the machine's cores yield; this machine alone, whatever interfaces there are and without ssh.
    command.args(["--allow-run-as-root", "--oversubscribe", "--mca", "plm", "isolated", "--mca", "btl", "self,vader", "--mca", "btl_vader_single_copy_mechanism", "none"]);
    command.args(["--mca", "mpi_yield_when_idle", "1", "-n", &ranks.to_string()]).arg(program).arg(mode);
    command
}

#[test]
fn every_rank_has_the_bits_of_one_process() {
    let Some(program) = program() else { return };
    for ranks in [1, 2, 3, 4, 8] {
        let begin = Instant::now();
        let said = must(&mut mpirun(&program, ranks, "bits"));
        assert_eq!(said.lines().filter(|l| l.ends_with(": bits")).count(), ranks, "{said}");
        println!("mpirun -n {ranks}: {:.1} s", begin.elapsed().as_secs_f64());
    }
}

#[test]
fn a_failure_reaches_every_rank() {
    let Some(program) = program() else { return };
    for mode in ["refused", "broken"] {
        let said = must(&mut mpirun(&program, 3, mode));
        assert_eq!(said.lines().filter(|l| l.ends_with(&format!(": {mode}"))).count(), 3, "{said}");
    }
    // MPI ends a job of which a rank is killed.
    let begin = Instant::now();
    let ended = run(&mut mpirun(&program, 3, "dies")).expect_err("a killed rank ends the job");
    assert!(ended.contains("signal 9") && begin.elapsed() < Duration::from_secs(60), "{ended}");
}

#[test]
fn the_header_is_cpp_too() {
    if program().is_none() || Command::new("mpicxx").arg("--version").output().is_err() {
        return;
    }
    let source = scratch("mpi-cpp").join("header.cpp");
    std::fs::write(&source, "#include \"passrl_mpi.h\"\n#include \"passrl_mpi.h\"\n").expect("a file below target/tmp");
    let mut cxx = Command::new("mpicxx");
    cxx.args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-fsyntax-only", "-DOMPI_SKIP_MPICXX", "-I"]);
    must(cxx.arg(format!("{ROOT}/include")).arg(&source));
}

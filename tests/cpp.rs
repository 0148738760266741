//! `include/passrl.hpp` against the built library: compiled as C++17 and C++20 without a warning, run on the worked example, linked from two files.
#[path = "abi/common.rs"]
mod common;

use common::{ROOT, library, must, scratch};
use std::path::PathBuf;
use std::process::Command;

const WARNINGS: [&str; 7] = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wsign-conversion", "-Werror"];

/// Whether there is a compiler; a line where there is none.
fn compiler() -> bool {
    let found = Command::new("g++").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: no g++");
    }
    found
}

/// Compiles C++ files into one program that finds the library by its SONAME.
fn program(folder: &str, flags: &[&str], sources: &[PathBuf]) -> PathBuf {
    let folder = scratch(folder);
    let link = folder.join("libpassrl.so.0");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(library(), &link).expect("a link to the library");
    let program = folder.join("program");
    let mut gxx = Command::new("g++");
    gxx.args(flags).args(["-O1", "-g"]).args(WARNINGS).arg("-I").arg(format!("{ROOT}/include"));
    gxx.arg("-o").arg(&program).args(sources).arg(library()).arg(format!("-Wl,-rpath,{}", folder.display()));
    must(&mut gxx);
    program
}

fn worked_example(flags: &[&str]) {
    if compiler() {
        must(&mut Command::new(program(&format!("cpp{}", flags.concat()), flags, &[PathBuf::from(format!("{ROOT}/tests/abi/wrapper.cpp"))])));
    }
}

#[test]
fn the_worked_example_in_cpp17() {
    worked_example(&["-std=c++17"]);
}

#[test]
fn the_worked_example_in_cpp20() {
    worked_example(&["-std=c++20"]);
}

/// By status alone; what throws is left out.
#[test]
fn the_worked_example_without_exceptions() {
    worked_example(&["-std=c++17", "-fno-exceptions"]);
}

/// Included twice in one file, and from two files of one program.
#[test]
fn two_files_link() {
    if !compiler() {
        return;
    }
    let folder = scratch("cpp-link");
    let include = "#include \"passrl.hpp\"\n#include \"passrl.hpp\"\n";
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, format!("{include}{text}")).expect("a source below target/tmp");
        path
    };
    let one = write("one.cpp", "double k();\ndouble k() { return passrl::config().k; }\n");
    let two = write("two.cpp", "double k();\nint main() { return k() == passrl::config(\"pass\").k && passrl::abi_matches() ? 0 : 1; }\n");
    must(&mut Command::new(program("cpp-link", &["-std=c++17"], &[one, two])));
}

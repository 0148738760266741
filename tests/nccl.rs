//! `passrl_nccl_collective` against a stand-in `libnccl.so.2` that reduces host memory over threads and counts what it is asked; the bindings against the
//! real nccl.h; loading the real library of the wheel nvidia-nccl-cu12 (`make ranks` fetches it into .venv-nccl; without it these two say that they are skipped).
#[path = "abi/common.rs"]
mod common;

use common::{ROOT, c_program, committed, must, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder of the wheel: include/nccl.h, lib/libnccl.so.2.
fn wheel() -> Option<PathBuf> {
    let python = std::fs::read_dir(format!("{ROOT}/.venv-nccl/lib")).ok()?.find_map(|f| f.ok().map(|f| f.path()))?;
    let folder = python.join("site-packages/nvidia/nccl");
    folder.join("lib/libnccl.so.2").exists().then_some(folder)
}

fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}: the wheel nvidia-nccl-cu12 is not in .venv-nccl (tests/setup.sh nccl; make ranks does it)");
}

/// Rust types and the table of functions, from nccl.h.
fn bindings(header: &Path) -> String {
    let made = bindgen::Builder::default()
        .header(header.to_string_lossy())
        .clang_args(["-I", &format!("{ROOT}/tests/nccl/stub")])
        .allowlist_function("nccl(AllReduce|CommCount|CommUserRank|GetVersion|GetErrorString)")
        .allowlist_type("ncclResult_t|ncclDataType_t|ncclRedOp_t")
        .dynamic_library_name("Nccl")
        .dynamic_link_require_all(true)
        .rust_edition(bindgen::RustEdition::Edition2021)
        .wrap_unsafe_ops(false)
        .derive_debug(false)
        .generate_comments(false)
        .layout_tests(false)
        .disable_header_comment()
        .formatter(bindgen::Formatter::Prettyplease);
    let head = "//! Made by bindgen from nccl.h of the wheel nvidia-nccl-cu12; `BLESS=1 cargo test --test nccl` makes it again, `make ranks` compares.\n\
                #![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, dead_code, unsafe_op_in_unsafe_fn, clippy::all)]\n";
    // bindgen writes for libloading 0.8; cudarc has brought 0.9.
    let made = made.generate().expect("bindgen reads nccl.h").to_string().replace("P: AsRef<::std::ffi::OsStr>", "P: ::libloading::AsFilename");
    format!("{head}{made}")
}

#[test]
fn bindings_are_those_of_the_real_header() {
    match wheel() {
        Some(wheel) => committed("src/backend/cuda/nccl_sys.rs", &bindings(&wheel.join("include/nccl.h"))),
        None => skipped("the bindings were not compared with nccl.h"),
    }
}

fn program() -> PathBuf {
    // Each test has a folder of its own: they run side by side.
    let folder = format!("nccl-{:?}", std::thread::current().id()).replace(['(', ')'], "-");
    c_program(&folder, "tests/nccl/ranks.c", &[])
}

#[test]
fn ranks_over_the_stand_in_have_the_bits_of_one() {
    let folder = scratch("nccl-standin");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnccl.so.2", "-o"]).arg(folder.join("libnccl.so.2"));
    must(cc.arg(format!("{ROOT}/tests/nccl/standin.c")).arg("-lpthread"));
    let said = must(Command::new(program()).arg("standin").env("LD_LIBRARY_PATH", &folder));
    assert!(said.contains("nccl 20000") && said.contains("4 ranks: every bit that of one"), "{said}");
}

#[test]
fn without_a_library_there_is_a_sentence() {
    let installed = Command::new("sh").args(["-c", "ldconfig -p | grep -q libnccl.so.2"]).status().is_ok_and(|s| s.success());
    if installed {
        eprintln!("SKIPPED: this machine has a libnccl.so.2; a missing one was not tried");
        return;
    }
    must(Command::new(program()).arg("missing").env_remove("LD_LIBRARY_PATH"));
}

#[test]
fn the_real_library_loads_and_has_every_function() {
    match wheel() {
        Some(wheel) => {
            let said = must(Command::new(program()).arg("real").env("LD_LIBRARY_PATH", wheel.join("lib")));
            println!("{}", said.trim());
            let version: i32 = said.trim().strip_prefix("nccl ").and_then(|v| v.parse().ok()).expect("a version");
            assert!(version > 20_000, "{said}");
        }
        None => skipped("the real libnccl.so.2 was not loaded"),
    }
}

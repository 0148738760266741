//! Build script of the crate: link arguments of the shared library, and the kernels as one embedded source and, where nvcc is found, a fatbin for every
//! architecture. Without nvcc the library compiles the source by NVRTC when a CUDA context is made.
//!
//! nvcc is looked for in `NVCC` (set to nothing: none), `CUDA_HOME` and `CUDA_PATH`, `PATH`, and the project's own environment (`.venv-cuda`, made by
//! `tests/setup.sh cuda`).
use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Real architectures; PTX of the last serves what comes after. Each takes a minute, so a build that is not of the release has the first alone.
const ARCHITECTURES: [u32; 6] = [80, 86, 89, 90, 100, 120];

/// The numerics contract's flags, as NVRTC has them in src/backend/cuda/nvrtc.rs.
const FLAGS: [&str; 5] = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // A Rust cdylib has no SONAME; without one C programs record the path they were linked with. `-Bsymbolic` binds our own
        // references to ourselves beside another version in the process; `nodelete` keeps thread-local destructors' code mapped.
        for arg in ["-Wl,-soname,libpassrl.so.0", "-Wl,-Bsymbolic", "-Wl,-z,nodelete"] {
            println!("cargo::rustc-cdylib-link-arg={arg}");
        }
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let hash = hash(Path::new("kernels"));
    println!("cargo::rustc-env=PASSRL_KERNELS_HASH={hash:016x}");
    let source = out.join("passrl.cu");
    write(&source, expand(Path::new("kernels"), "passrl.cu", &mut BTreeSet::new()).as_bytes());
    let (image, builder) = match nvcc() {
        None => (Vec::new(), "no nvcc when the library was built".to_string()),
        Some(nvcc) => fatbin(&nvcc, &source, &out, hash),
    };
    write(&out.join("passrl.fatbin"), &image);
    println!("cargo::rustc-env=PASSRL_KERNELS_BUILDER={builder}");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
}

/// FNV-1a 64 over the kernel files in the order of their names: of each its name, then its content. The simulated driver of the tests says the same of what it
/// was built from.
fn hash(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|fault| panic!("{}: {fault}", folder.display()));
    let is_kernel = |path: &PathBuf| path.extension().is_some_and(|e| e == "cuh" || e == "cu");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).filter(is_kernel).collect();
    files.sort();
    let bytes = files.iter().flat_map(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        [name.into_bytes(), read(file).into_bytes()].concat()
    });
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3))
}

/// A file with its includes written out, each once: NVRTC finds no files.
fn expand(folder: &Path, name: &str, seen: &mut BTreeSet<String>) -> String {
    let text = read(&folder.join(name));
    let mut whole = format!("#line 1 \"{name}\"\n");
    for (number, line) in text.lines().enumerate() {
        let included = line.trim().strip_prefix("#include \"").and_then(|rest| rest.split('"').next());
        match included {
            Some(file) if seen.insert(file.to_string()) => {
                whole += &expand(folder, file, seen);
                whole += &format!("#line {} \"{name}\"\n", number + 2);
            }
            Some(_) => whole.push('\n'),
            // The whole is one file, which nothing includes.
            None if line.trim() == "#pragma once" => whole.push('\n'),
            None => {
                whole += line;
                whole.push('\n');
            }
        }
    }
    whole
}

fn nvcc() -> Option<PathBuf> {
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Some(given) = env::var_os("NVCC") {
        return (!given.is_empty()).then(|| given.into());
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(|home| Path::new(&home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let own = std::fs::read_dir(".venv-cuda/lib").into_iter().flatten().flatten().map(|python| python.path().join("site-packages/nvidia/cu13/bin"));
    let found = homes.chain(env::split_paths(&path)).chain(own).map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file());
    // A compiler found by another's PATH is not an absolute path to cargo.
    found.map(|nvcc| nvcc.canonicalize().unwrap_or(nvcc))
}

fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
    let (said, log) = (String::from_utf8_lossy(&done.stdout).into_owned(), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?} failed: {}\n{said}{log}", done.status);
    said
}

/// The fatbin and what made it. It takes minutes: a finished one is kept beside the profiles' folders.
fn fatbin(nvcc: &Path, source: &Path, out: &Path, hash: u64) -> (Vec<u8>, String) {
    let version = output(Command::new(nvcc).arg("--version"));
    let release = version.split("release ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("?").trim().to_string();
    let known = output(Command::new(nvcc).arg("--list-gpu-code"));
    let wanted = if env::var("PROFILE").is_ok_and(|profile| profile == "release") { &ARCHITECTURES[..] } else { &ARCHITECTURES[..1] };
    let architectures: Vec<u32> = wanted.iter().copied().filter(|arch| known.lines().any(|line| line.trim() == format!("sm_{arch}"))).collect();
    let last = *architectures.last().unwrap_or_else(|| panic!("{} knows none of {ARCHITECTURES:?}", nvcc.display()));
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    let names: Vec<String> = architectures.iter().map(|arch| format!("sm_{arch}")).collect();
    let kept = out.ancestors().nth(4).unwrap_or(out).join(format!("passrl-kernels-{hash:016x}-nvcc-{release}-{}.fatbin", names.join("-")));
    let made = std::fs::read(&kept).ok().filter(|image| !image.is_empty()).unwrap_or_else(|| {
        let image = out.join("made.fatbin");
        let mut command = Command::new(nvcc);
        command.args(["-fatbin", "--threads", "0"]).args(FLAGS).arg("-o").arg(&image).arg(source);
        for arch in &architectures {
            command.args(["-gencode", &format!("arch=compute_{arch},code=sm_{arch}")]);
        }
        command.args(["-gencode", &format!("arch=compute_{last},code=compute_{last}")]);
        output(&mut command);
        let beside = kept.with_extension(format!("{}", std::process::id()));
        std::fs::copy(&image, &beside).and_then(|_| std::fs::rename(&beside, &kept)).unwrap_or_else(|fault| panic!("{}: {fault}", kept.display()));
        std::fs::read(&image).unwrap_or_else(|fault| panic!("{}: {fault}", image.display()))
    });
    (made, format!("nvcc {release} for {} and PTX", names.join(", ")))
}

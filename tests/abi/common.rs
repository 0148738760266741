//! Where things are: the repository, the shared library beside the test, a folder for what is built.
#![allow(dead_code)]
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The `libpassrl.so` that cargo built with this test, in the test's own folder `target/<profile>/deps`. (The one a folder above is that of
/// the last `cargo build`, which may be older.)
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let library = test.parent().expect("target/<profile>/deps").join("libpassrl.so");
    assert!(library.exists(), "{} is missing; cargo builds it with every integration test", library.display());
    library
}

/// A folder of this test's own, below cargo's.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder below target/tmp");
    folder
}

/// Compiles one C file and links it to the library, which it will find by its SONAME.
pub fn c_program(folder: &str, source: &str, flags: &[&str]) -> PathBuf {
    let folder = scratch(folder);
    let link = folder.join("libpassrl.so.0");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(library(), &link).expect("a link to the library");
    let name = Path::new(source).file_stem().expect("a file's stem");
    let program = folder.join(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-frounding-math", "-I"]);
    cc.arg(format!("{ROOT}/include")).arg("-o").arg(&program).arg(format!("{ROOT}/{source}")).arg(library()).args(flags);
    must(cc.arg(format!("-Wl,-rpath,{}", folder.display())).args(["-lm", "-lpthread", "-ldl"]));
    program
}

/// Runs a program to its end; its output, and a sentence where it fails.
pub fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|e| format!("{command:?} does not start: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{command:?}: {}\n{out}{err}", output.status))
}

/// As `run`, and it must succeed; its standard output.
pub fn must(command: &mut Command) -> String {
    match run(command) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(sentence) => panic!("{sentence}"),
    }
}

/// Compares text with a committed file; `BLESS=1` rewrites it.
pub fn committed(path: &str, new: &str) {
    let full = format!("{ROOT}/{path}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&full, new).expect("the committed file is written");
    }
    let old = std::fs::read_to_string(&full).unwrap_or_default();
    for (line, (a, b)) in old.lines().zip(new.lines()).enumerate() {
        assert!(a == b, "{path}:{}: committed \"{a}\", now \"{b}\". If that is meant, BLESS=1 rewrites the file", line + 1);
    }
    assert!(
        old == new,
        "{path} has {} lines, now {}. If that is meant, BLESS=1 rewrites the file",
        old.lines().count(),
        new.lines().count()
    );
}

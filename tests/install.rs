//! `make install` into an empty prefix, which is then moved: programs outside the repository find the library by CMake and by pkg-config, and run.
#[path = "abi/common.rs"]
mod common;

use common::{ROOT, library, must, run, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;

fn there(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|said| said.status.success());
    if !found {
        println!("SKIPPED: {tool} is not installed; sudo apt-get install {tool}");
    }
    found
}

/// `make install` of the library that was built with this test, and of nothing older.
fn install(variables: &[String]) -> String {
    let library = format!("LIB={}", library().display());
    must(Command::new("make").current_dir(ROOT).args(["--no-print-directory", "-o", "library", "install", &library]).args(variables))
}

/// An empty folder outside the repository.
fn outside(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("passrl-install-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}

/// Files and links below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() && !entry.is_symlink() {
            files(&entry, found);
        } else {
            found.push(entry);
        }
    }
}

/// A prefix that was installed elsewhere and then moved to `folder/moved`.
fn moved_prefix(folder: &Path) -> PathBuf {
    install(&[format!("PREFIX={}", folder.join("first").display())]);
    std::fs::rename(folder.join("first"), folder.join("moved")).expect("the prefix can be moved");
    folder.join("moved")
}

/// What the installed examples must print.
fn examples_say(programs: &Path) {
    let said = must(&mut Command::new(programs.join("c_minimal")));
    assert!(said.contains("A: 1.989669 1.989669 0.224898 0.224898\n"), "{said}");
    let said = must(&mut Command::new(programs.join("trainer")));
    assert!(said.contains("iteration 200: right answers "), "{said}");
    let said = must(&mut Command::new(programs.join("packed_ranks")));
    assert!(said.contains("the bits of one call"), "{said}");
}

fn version() -> String {
    let header = std::fs::read_to_string(format!("{ROOT}/include/passrl.h")).expect("the header");
    let part = |name: &str| {
        let line = header.lines().find_map(|l| l.strip_prefix(&format!("#define PASSRL_VERSION_{name} ")));
        line.expect("the header has its version").trim().to_owned()
    };
    format!("{}.{}.{}", part("MAJOR"), part("MINOR"), part("PATCH"))
}

#[test]
fn what_is_installed_names_no_prefix() {
    let (folder, version) = (scratch("install-dest"), version());
    let _ = std::fs::remove_dir_all(&folder);
    install(&[format!("DESTDIR={}", folder.display()), "PREFIX=/opt/somewhere".into(), "LIBDIR=lib/x86_64-linux-gnu".into()]);
    let mut found = Vec::new();
    files(&folder, &mut found);
    let mut names: Vec<String> = found.iter().map(|path| path.strip_prefix(&folder).expect("below it").display().to_string()).collect();
    names.sort();
    let lib = "opt/somewhere/lib/x86_64-linux-gnu";
    let mut wanted = vec!["opt/somewhere/include/passrl.h".to_owned(), "opt/somewhere/include/passrl.hpp".to_owned(), "opt/somewhere/include/passrl_mpi.h".to_owned()];
    wanted.extend(["cmake/passrl/passrl-config-version.cmake", "cmake/passrl/passrl-config.cmake"].map(|name| format!("{lib}/{name}")));
    wanted.extend([String::new(), ".0".into(), format!(".{version}")].map(|end| format!("{lib}/libpassrl.so{end}")));
    wanted.push(format!("{lib}/libpassrl_tvmffi.so"));
    wanted.push(format!("{lib}/pkgconfig/passrl.pc"));
    wanted.extend(["LICENSE-APACHE", "LICENSE-MIT", "third-party-licences.md"].map(|name| format!("opt/somewhere/share/doc/passrl/{name}")));
    assert_eq!(names, wanted);
    for path in found.iter().filter(|path| path.extension().is_some_and(|end| end == "cmake" || end == "pc")) {
        let text = std::fs::read_to_string(path).expect("text");
        assert!(!text.contains("/opt/somewhere") && !text.contains('@'), "{}:\n{text}", path.display());
    }
    let link = |name: &str| std::fs::read_link(folder.join(lib).join(name)).expect("a link").display().to_string();
    assert_eq!((link("libpassrl.so"), link("libpassrl.so.0")), ("libpassrl.so.0".into(), format!("libpassrl.so.{version}")));
}

#[test]
fn cmake_finds_it_and_the_examples_run() {
    if !there("cmake") || !there("g++") {
        return;
    }
    let folder = outside("cmake");
    let (prefix, source, build) = (moved_prefix(&folder), folder.join("source"), folder.join("build"));
    must(Command::new("cp").arg("-r").arg(format!("{ROOT}/bindings/cpp/examples")).arg(&source));
    // Every warning counts in what people copy.
    let flags = "-Wall -Wextra -Wpedantic -Werror";
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&source).arg("-B").arg(&build).arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    must(configure.args(["-DCMAKE_BUILD_TYPE=Debug", &format!("-DCMAKE_C_FLAGS={flags}"), &format!("-DCMAKE_CXX_FLAGS={flags} -Wconversion -Wshadow")]));
    must(Command::new("cmake").arg("--build").arg(&build).arg("--parallel").arg("2"));
    examples_say(&build);

    // Versions that are not served are not found, and a damaged tree is told.
    let project = folder.join("project");
    std::fs::create_dir_all(&project).expect("a folder");
    let find = |words: &str| {
        let text = format!("cmake_minimum_required(VERSION 3.16)\nproject(p LANGUAGES NONE)\nfind_package(passrl {words})\nmessage(\"found: ${{passrl_FOUND}}\")\n");
        std::fs::write(project.join("CMakeLists.txt"), text).expect("a project");
        let _ = std::fs::remove_dir_all(project.join("b"));
        let mut cmake = Command::new("cmake");
        cmake.arg("-S").arg(&project).arg("-B").arg(project.join("b")).arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
        run(&mut cmake).map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let version = version();
    for (words, found) in [("", 1), (&version, 1), (&format!("{version} EXACT"), 1), ("0.0.9", 0), ("99", 0), ("1.0", 0), ("0.1...<0.2", 1), ("0.2...1", 0)] {
        let said = find(&format!("{words} QUIET")).expect("cmake runs");
        assert!(said.contains(&format!("found: {found}\n")), "find_package(passrl {words}): {said}");
    }
    std::fs::remove_file(prefix.join("include/passrl.hpp")).expect("the header was there");
    let said = find("").expect_err("a header is missing");
    assert!(said.contains("include/passrl.hpp is"), "{said}");
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

#[test]
fn pkg_config_finds_it_and_the_examples_run() {
    if !there("pkg-config") || !there("g++") {
        return;
    }
    let folder = outside("pkg-config");
    let prefix = moved_prefix(&folder);
    let ask = |what: &str| {
        let said = must(Command::new("pkg-config").args(["--define-prefix", what, "passrl"]).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ask("--modversion"), [version()]);
    let (cflags, libs) = (ask("--cflags"), ask("--libs"));
    for (compiler, standard, name) in [("cc", "-std=c11", "c_minimal.c"), ("g++", "-std=c++20", "trainer.cpp"), ("g++", "-std=c++20", "packed_ranks.cpp")] {
        let program = folder.join(name.split('.').next().expect("a stem"));
        let mut compile = Command::new(compiler);
        compile.current_dir(&folder).args([standard, "-O1", "-o"]).arg(&program).arg(format!("{ROOT}/bindings/cpp/examples/{name}"));
        must(compile.args(&cflags).args(&libs).arg("-lm").arg(format!("-Wl,-rpath,{}", prefix.join("lib").display())));
    }
    examples_say(&folder);
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

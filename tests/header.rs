//! The header: what cbindgen makes of src/abi, clean in every dialect, and the same thing to C, to bindgen and to Rust.
#[path = "abi/common.rs"]
mod common;
#[path = "abi/items.rs"]
mod items;

use common::{ROOT, committed, library, must, scratch};
use items::{CONSTANTS, LAYOUTS};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Version of Cargo.toml in its three numbers.
fn version() -> [u32; 3] {
    let mut parts = env!("CARGO_PKG_VERSION").split('.').map(|p| p.parse().expect("a version of three numbers"));
    std::array::from_fn(|_| parts.next().expect("three numbers"))
}

/// The header as cbindgen makes it from the files of src/abi alone: no constant of an inner layer can slip in.
fn generated() -> String {
    let mut config = cbindgen::Config::from_file(format!("{ROOT}/include/cbindgen.toml")).expect("include/cbindgen.toml");
    let mut macros = config.after_includes.take().expect("after_includes");
    for (name, number) in ["@MAJOR@", "@MINOR@", "@PATCH@"].iter().zip(version()) {
        assert!(macros.matches(name).count() == 1, "include/cbindgen.toml must hold {name} exactly once");
        macros = macros.replace(name, &number.to_string());
    }
    config.after_includes = Some(macros);
    let mut files: Vec<_> = std::fs::read_dir(format!("{ROOT}/src/abi")).expect("src/abi").map(|f| f.expect("a file").path()).collect();
    // cbindgen would follow mod.rs to the files beside it and declare everything twice.
    files.retain(|file| !file.ends_with("mod.rs"));
    files.sort();
    let builder = files.into_iter().fold(cbindgen::Builder::new().with_config(config), |builder, file| builder.with_src(file));
    let mut bytes = Vec::new();
    builder.generate().expect("cbindgen reads src/abi").write(&mut bytes);
    String::from_utf8(bytes).expect("a header is text")
}

fn header() -> String {
    std::fs::read_to_string(format!("{ROOT}/include/passrl.h")).expect("include/passrl.h")
}

/// Macros of the header and their text.
fn macros() -> BTreeMap<String, String> {
    let text = header();
    let defines = text.lines().filter_map(|l| l.strip_prefix("#define "));
    defines.map(|l| l.split_once(' ').unwrap_or((l, ""))).map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Functions that the header declares.
fn functions() -> BTreeSet<String> {
    let text = header();
    let declarations = text.split("PASSRL_API").skip(1).filter_map(|rest| rest.split_once('('));
    let names = declarations.filter_map(|(before, _)| before.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next());
    names.filter(|name| name.starts_with("passrl_")).map(str::to_string).collect()
}

#[test]
fn header_is_current() {
    committed("include/passrl.h", &generated());
}

#[test]
fn everything_is_declared_once() {
    let text = header();
    let code: String = text.lines().filter(|l| !l.starts_with("//") && !l.starts_with(" *")).collect::<Vec<_>>().join("\n");
    for name in functions() {
        let declared = [" ", "*"].map(|before| code.matches(&format!("{before}{name}(")).count());
        assert_eq!(declared.iter().sum::<usize>(), 1, "{name} is not declared exactly once");
    }
    for name in macros().keys() {
        let defined = text.lines().filter(|l| l.strip_prefix("#define ").is_some_and(|rest| rest.split(' ').next() == Some(name))).count();
        // PASSRL_API has one definition a compiler.
        assert!(defined == 1 || name == "PASSRL_API", "{name} is defined {defined} times");
    }
}

#[test]
fn names_are_ours() {
    let macros = macros();
    assert!(macros.len() > 120, "{} macros found", macros.len());
    let foreign: Vec<_> = macros.keys().filter(|name| !name.starts_with("PASSRL_")).collect();
    assert!(foreign.is_empty(), "macros without the prefix PASSRL_: {foreign:?}");
    for line in header().lines() {
        let named = line.strip_prefix("typedef ").and_then(|l| l.split_whitespace().nth(1));
        assert!(named.is_none_or(|name| name.starts_with("passrl_") || name.starts_with("int32_t")) || line.contains("passrl_"), "{line}");
    }
}

#[test]
fn version_is_that_of_cargo_toml() {
    let [major, minor, patch] = version();
    let folder = scratch("header-version");
    let source = folder.join("version.c");
    let text = "#include \"passrl.h\"\n#include <stdio.h>\nint main(void) { printf(\"%d %d %d %d %s %d\", PASSRL_VERSION_MAJOR, PASSRL_VERSION_MINOR, \
                PASSRL_VERSION_PATCH, PASSRL_VERSION, passrl_version(), passrl_abi_version() == PASSRL_ABI_VERSION); return 0; }\n";
    std::fs::write(&source, text).expect("a C file");
    let program = folder.join("version");
    must(Command::new("cc").args(["-I", &format!("{ROOT}/include"), "-o"]).arg(&program).arg(&source).arg(library()));
    let said = must(Command::new(&program).env("LD_LIBRARY_PATH", soname_folder()));
    let number = major * 1_000_000 + minor * 1_000 + patch;
    assert_eq!(said, format!("{major} {minor} {patch} {number} {major}.{minor}.{patch} 1"));
}

/// A folder in which the library is found by its SONAME.
fn soname_folder() -> std::path::PathBuf {
    let folder = scratch("header-soname");
    let name = folder.join(format!("libpassrl.so.0.{}", std::process::id()));
    let link = folder.join("libpassrl.so.0");
    let _ = std::fs::remove_file(&name);
    std::os::unix::fs::symlink(library(), &name).expect("a link to the library");
    std::fs::rename(&name, &link).expect("the link in place");
    folder
}

#[test]
fn clean_in_every_dialect_and_twice() {
    let folder = scratch("header-dialects");
    let text = "#include \"passrl.h\"\n#include \"passrl.h\"\n#include <math.h>\n#include <limits.h>\n#include \"passrl.h\"\n\
                passrl_view one_view(void);\npassrl_view one_view(void) { passrl_view v; passrl_config c; (void)c.clip; v.data = 0; v.ndim = 1; return v; }\n";
    let dialects = [("gcc", "c", ["c99", "c11", "c17"]), ("g++", "cpp", ["c++11", "c++17", "c++20"])];
    for (compiler, suffix, standards) in dialects {
        let source = folder.join(format!("twice.{suffix}"));
        std::fs::write(&source, text.replace("(void)c.clip", "c.clip = (double)INT_MAX; (void)c")).expect("a source file");
        for standard in standards {
            must(
                Command::new(compiler)
                    .args([
                        &format!("-std={standard}"),
                        "-Wall",
                        "-Wextra",
                        "-Wpedantic",
                        "-Werror",
                        "-c",
                        "-I",
                        &format!("{ROOT}/include"),
                        "-o",
                    ])
                    .arg(folder.join(format!("{standard}.o")))
                    .arg(&source),
            );
        }
    }
}

#[test]
fn two_units_link() {
    let folder = scratch("header-units");
    for (suffix, compiler) in [("c", "gcc"), ("cpp", "g++")] {
        let (a, b) = (folder.join(format!("a.{suffix}")), folder.join(format!("b.{suffix}")));
        std::fs::write(&a, "#include \"passrl.h\"\nint one(void);\nint main(void) { return one() + (int)passrl_abi_version() - 2; }\n")
            .expect("a.c");
        std::fs::write(&b, "#include \"passrl.h\"\nint one(void);\nint one(void) { return (int)passrl_numerics_version(); }\n")
            .expect("b.c");
        let program = folder.join(format!("units-{suffix}"));
        must(Command::new(compiler).args(["-I", &format!("{ROOT}/include"), "-o"]).arg(&program).args([&a, &b]).arg(library()));
        must(Command::new(&program).env("LD_LIBRARY_PATH", soname_folder()));
    }
}

#[test]
fn exports_are_the_reviewed_list() {
    let declared = functions();
    assert!(declared.contains("passrl_plan_run") && declared.contains("passrl_last_error"), "functions found in the header: {declared:?}");
    let listed = must(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let exported: BTreeSet<String> = listed.lines().filter_map(|l| l.split_whitespace().nth(2)).map(str::to_string).collect();
    assert_eq!(exported, declared, "symbols of libpassrl.so and functions of include/passrl.h");
    let lines: String = exported.iter().map(|name| format!("{name}\n")).collect();
    committed("tests/abi/symbols.txt", &lines);
}

#[test]
fn dynamic_section() {
    let text = must(Command::new("readelf").args(["-W", "-d"]).arg(library()));
    assert!(text.contains("Library soname: [libpassrl.so.0]"), "no SONAME libpassrl.so.0:\n{text}");
    assert!(text.contains("SYMBOLIC"), "not linked -Bsymbolic:\n{text}");
    assert!(text.contains("NODELETE"), "not linked -z nodelete:\n{text}");
    assert!(!text.contains("TEXTREL") && !text.contains("RPATH") && !text.contains("RUNPATH"), "{text}");
    let needed: BTreeSet<&str> =
        text.lines().filter(|l| l.contains("(NEEDED)")).filter_map(|l| l.split_once('[')?.1.strip_suffix(']')).collect();
    let known = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];
    assert!(needed.contains("libc.so.6") && needed.iter().all(|n| known.contains(n)), "needed libraries: {needed:?}");
    let symbols = must(Command::new("nm").args(["-D", "--undefined-only", "--with-symbol-versions"]).arg(library()));
    let versions = symbols.lines().filter_map(|l| l.split_once("GLIBC_")).map(|(_, v)| v.trim());
    let parse = |v: &str| v.split('.').map(|p| p.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    let floor = versions.map(parse).max().expect("symbols of glibc");
    println!("needed: {needed:?}; floor: GLIBC_{}.{}", floor[0], floor.get(1).unwrap_or(&0));
    assert!(floor <= vec![2, 36], "the library needs glibc {floor:?}");
}

/// The header as bindgen reads it, on one line an item, without comments.
fn bindgen_reading() -> String {
    let build = || {
        bindgen::Builder::default()
            .header(format!("{ROOT}/include/passrl.h"))
            .allowlist_item("passrl_.*|PASSRL_.*")
            .generate_comments(false)
            .formatter(bindgen::Formatter::None)
            .layout_tests(true)
            .generate()
    };
    match std::panic::catch_unwind(build) {
        Ok(Ok(bindings)) => bindings.to_string(),
        Ok(Err(error)) => panic!("bindgen does not read include/passrl.h: {error}"),
        Err(_) => panic!(
            "NOT COMPARED: bindgen found no libclang. Install it (Debian: libclang1-14 and libclang-common-14-dev, or libclang-dev) and test again"
        ),
    }
}

/// Number in `["<what>"] [... - <n>usize]`.
fn asserted(reading: &str, what: &str) -> usize {
    let at = reading.find(&format!("\"{what}\"")).unwrap_or_else(|| panic!("bindgen says nothing of \"{what}\""));
    let (_, rest) = reading[at..].split_once(" - ").expect("a layout test of bindgen");
    rest.split("usize").next().and_then(|n| n.trim().parse().ok()).expect("a number")
}

/// Fields of a struct in bindgen's words, with their types.
fn fields(reading: &str, name: &str) -> Vec<(String, String)> {
    let (_, rest) = reading.split_once(&format!("pub struct {name} {{")).unwrap_or_else(|| panic!("bindgen knows no struct {name}"));
    let body = rest.split_once('}').expect("a struct's end").0;
    let field = |text: &str| {
        let (name, kind) = text.trim().trim_end_matches(',').split_once(':').expect("name and type");
        (name.trim().to_string(), kind.trim().replace(":: std :: os :: raw :: ", "").replace(":: std :: option :: ", "").replace(' ', ""))
    };
    body.split("pub ").map(str::trim).filter(|f| !f.is_empty()).map(field).collect()
}

#[test]
fn layouts_are_the_same_to_c_and_rust() {
    let reading = bindgen_reading();
    assert!(LAYOUTS.len() == 10, "{} structs are expected here", LAYOUTS.len());
    let mut text = String::from(
        "# struct size align / field offset type, as bindgen reads include/passrl.h. From the first release on: additions only.\n",
    );
    for layout in LAYOUTS {
        let name = layout.name;
        assert_eq!(asserted(&reading, &format!("Size of {name}")), layout.size, "size of {name}");
        assert_eq!(asserted(&reading, &format!("Alignment of {name}")), layout.align, "alignment of {name}");
        text += &format!("{name} {} {}\n", layout.size, layout.align);
        let found = fields(&reading, name);
        let names: Vec<&str> = found.iter().map(|f| f.0.as_str()).collect();
        assert_eq!(names, layout.fields.iter().map(|f| f.0).collect::<Vec<_>>(), "fields of {name}");
        for ((field, kind), (_, offset)) in found.iter().zip(layout.fields) {
            assert_eq!(asserted(&reading, &format!("Offset of field: {name}::{field}")), *offset, "offset of {name}.{field}");
            text += &format!("    {field} {offset} {kind}\n");
        }
    }
    let structs = reading.matches("pub struct passrl_").count();
    assert_eq!(structs, LAYOUTS.len() + 2, "structs of the header: those compared, passrl_context and passrl_plan");
    committed("tests/abi/layout.txt", &text);
}

#[test]
fn constants_are_the_same_to_c_and_rust() {
    let reading = bindgen_reading();
    let ours: BTreeMap<&str, i64> = CONSTANTS.iter().copied().collect();
    assert!(ours.len() == CONSTANTS.len() && ours.len() > 120, "{} constants are expected here", ours.len());
    let mut read = BTreeMap::new();
    for item in reading.split("pub const ").skip(1).filter(|item| item.starts_with("PASSRL_")) {
        let (name, value) =
            item.split_once(" : ").and_then(|(n, rest)| Some((n, rest.split_once(" = ")?.1.split_once(" ;")?.0))).expect("a constant");
        read.insert(name, value.replace(' ', "").parse::<i64>().unwrap_or_else(|_| panic!("{name} = {value}")));
    }
    for (name, value) in &ours {
        assert_eq!(read.get(name), Some(value), "{name} as bindgen reads it");
    }
    let more: Vec<_> = read.keys().filter(|name| !ours.contains_key(*name) && !name.starts_with("PASSRL_VERSION")).collect();
    assert!(more.is_empty(), "constants of the header that tests/abi/items.rs does not list: {more:?}");
    let lines: String = ours.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    committed("tests/abi/constants.txt", &lines);
}

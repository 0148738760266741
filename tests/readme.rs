//! README.md says what the library does: its C block runs, its tables of fields and presets are the library's, its links lead somewhere.
use passrl::abi::{config::*, types::passrl_config, util::passrl_last_error};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn readme() -> String {
    std::fs::read_to_string(format!("{ROOT}/README.md")).expect("README.md")
}

fn section<'a>(readme: &'a str, title: &str) -> &'a str {
    let rest = readme.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("README has no section {title}"));
    rest.split("\n## ").next().expect("a split has a first part")
}

/// Cells of the table rows that begin with a name in backticks.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().filter(|line| line.starts_with("| `")).map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// "`a`, `b`" -> a, b.
fn names(cell: &str) -> Vec<String> {
    cell.split(',').map(|word| word.trim().trim_matches('`').to_owned()).collect()
}

fn defaults() -> passrl_config {
    // SAFETY: all zeros is a value of this plain struct, and init is given its size.
    unsafe {
        let mut config = std::mem::zeroed::<passrl_config>();
        assert_eq!(passrl_config_init(&mut config, size_of::<passrl_config>() as u32), 0);
        config
    }
}

fn bytes(config: &passrl_config) -> &[u8] {
    // SAFETY: a plain struct without padding (its layout is asserted in src/abi/types.rs).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(config).cast(), size_of::<passrl_config>()) }
}

fn set(config: &mut passrl_config, key: &str, value: &str) -> Result<(), String> {
    let (key, value) = (CString::new(key).expect("no zero byte"), CString::new(value).expect("no zero byte"));
    // SAFETY: live struct, zero-terminated strings; the sentence is read at once.
    unsafe {
        match passrl_config_set(config, key.as_ptr(), value.as_ptr()) {
            0 => Ok(()),
            _ => Err(CStr::from_ptr(passrl_last_error()).to_string_lossy().into_owned()),
        }
    }
}

#[test]
fn fields_and_defaults_are_the_librarys() {
    let readme = readme();
    let mut told = BTreeSet::new();
    for row in rows(section(&readme, "Fields")) {
        let (keys, values) = (names(row[0]), names(row[1]));
        assert_eq!(keys.len(), values.len(), "{row:?}");
        for (key, value) in keys.iter().zip(&values) {
            let mut config = defaults();
            set(&mut config, key, value).unwrap_or_else(|sentence| panic!("README: {sentence}"));
            assert!(bytes(&config) == bytes(&defaults()), "README: {value} is not the default of {key}");
            told.insert(key.clone());
        }
        // Words in backticks after a field of choices are its values; anything else there is a field.
        if row[1].starts_with('`') && keys.len() == 1 {
            for word in row[2].split('`').skip(1).step_by(2) {
                set(&mut defaults(), &keys[0], word).unwrap_or_else(|sentence| panic!("README: {sentence}"));
            }
        }
    }
    // Every field of the struct is told of, `compat` apart, which no value but the default is served of.
    let header = std::fs::read_to_string(format!("{ROOT}/include/passrl.h")).expect("include/passrl.h");
    for (name, also) in [("passrl_config", ""), ("passrl_stream", "process_0.")] {
        let body = header
            .split(&format!("typedef struct {name} {{"))
            .nth(1)
            .and_then(|b| b.split(&format!("}} {name};")).next())
            .expect("the struct");
        for line in body.lines().filter(|l| l.trim_end().ends_with(';') && !l.trim().starts_with("//")) {
            let field = line.trim().trim_end_matches(';').rsplit(' ').next().and_then(|w| w.split('[').next()).expect("a field");
            if !["struct_size", "reserved0", "reserved", "streams", "name", "compat"].contains(&field) {
                assert!(told.contains(field) || told.contains(&format!("{also}{field}")), "README does not tell of {name}.{field}");
            }
        }
    }
}

#[test]
fn presets_are_the_librarys() {
    let readme = readme();
    let told: Vec<String> = rows(section(&readme, "Presets")).iter().map(|row| names(row[0])[0].clone()).collect();
    // SAFETY: static strings.
    let real: Vec<String> =
        (0..passrl_preset_count()).map(|i| unsafe { CStr::from_ptr(passrl_preset_name(i)) }.to_string_lossy().into_owned()).collect();
    assert_eq!(told[..], real[..told.len()]);
    // The page of all of them is written from the library: BLESS=1 writes it.
    let mut page = String::from(
        "# Presets\n\nA preset only fills fields; change any of them afterwards. A released preset's fields never change: a framework's new behaviour gets a dated name.\n\
         Discounts (`gamma`, `lam`, `step_gamma`) are the framework's defaults where it has some; set those of your run. Where a framework's numbers differ all the same: \
         [migration.md](migration.md), \"What is not reproduced\".\n\
         `passrl presets NAME` prints the fields of one; docs/migration.md says how to call it. What the batch gives comes beside extents and groups.\n\n\
         | name | the batch gives | source |\n| --- | --- | --- |\n",
    );
    for (i, name) in real.iter().enumerate() {
        // SAFETY: a static string.
        let source = unsafe { CStr::from_ptr(passrl_preset_source(i as i32)) }.to_string_lossy();
        let (source, gives) = source.rsplit_once("; ").unwrap_or_else(|| panic!("{name} does not say what the batch gives"));
        page += &format!("| `{name}` | {gives} | {source} |\n");
    }
    let path = format!("{ROOT}/docs/presets.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).expect("docs/presets.md can be written");
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == page, "docs/presets.md is not the library's: BLESS=1 cargo test --test readme");
    let count = format!("{} presets", real.len());
    assert!(readme.contains(&count), "README does not say that there are {count}");
}

#[test]
fn links_lead_somewhere() {
    for link in readme().split("](").skip(1).map(|rest| rest.split(')').next().expect("a split has a first part")) {
        assert!(link.starts_with("http") || Path::new(ROOT).join(link).exists(), "README links to {link}, which is not there");
    }
}

/// Worked example of the paper's formulas: one group of three rollouts, PRM, defaults.
const WORKED: [f64; 12] = [
    1.989668793,
    1.989668793,
    0.224898493,
    0.224898493,
    0.579672813,
    0.579672813,
    0.579672813,
    -4.816441028,
    -4.264801964,
    0.0,
    -3.464095615,
    -3.464095615,
];

const PROGRAM: &str = r#"
#include "passrl.h"
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    float scores[6] = {1, -1, 0.5f, 0.25f, 0.25f, -0.5f}, outcome[3] = {1, 0, 0}, format[3] = {1, 1, 0}, advantages[12];
    int32_t cu[4] = {0, 4, 7, 12}, offsets[4] = {0, 2, 3, 6}, ends[6] = {2, 4, 3, 1, 2, 5};
    uint8_t mask[12] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1}, ok[3] = {1, 1, 0};
    passrl_context *context; passrl_plan *plan; passrl_config config; passrl_limits limits; passrl_batch batch; passrl_outputs outputs;
    passrl_status status; size_t bytes;
    BLOCK
    if (status) return fprintf(stderr, "%s\n", passrl_last_error()), 1;
    for (int i = 0; i < 12; i++) printf("%.9g\n", advantages[i]);
    return 0;
}
"#;

#[test]
fn the_c_block_runs() {
    if Command::new("cc").arg("--version").output().is_err() {
        println!("SKIPPED: README's C block: no C compiler (cc)");
        return;
    }
    let readme = readme();
    let block = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("README has a C block");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    // `deps`, where cargo puts the shared library of this very build; the copy one folder up is that of the last `cargo build`.
    let library = std::env::current_exe().expect("a path").parent().expect("target/<profile>/deps").to_owned();
    let (source, program) = (folder.join("readme.c"), folder.join("readme"));
    std::fs::write(&source, PROGRAM.replace("BLOCK", block)).expect("target/tmp is writable");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", &format!("{ROOT}/include"), "-o"])
        .args([&program, &source])
        .arg(library.join("libpassrl.so"))
        .arg("-Wl,--allow-shlib-undefined")
        .output()
        .expect("cc runs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    // The SONAME is libpassrl.so.0, which cargo does not make.
    let named = folder.join("libpassrl.so.0");
    let _ = std::fs::remove_file(&named);
    std::os::unix::fs::symlink(library.join("libpassrl.so"), &named).expect("target/tmp is writable");
    let ran = Command::new(&program).env("LD_LIBRARY_PATH", &folder).output().expect("the program runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let got: Vec<f64> = String::from_utf8_lossy(&ran.stdout).lines().map(|l| l.parse().expect("a number")).collect();
    assert_eq!(got.len(), WORKED.len());
    assert!(got.iter().zip(WORKED).all(|(g, w)| (g - w).abs() < 5e-7), "{got:?}");
}

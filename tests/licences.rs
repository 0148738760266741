//! Every crate linked into the library has a licence that a trainer can live with, and is named in docs/third-party-licences.md (BLESS=1 rewrites it).
//! `deny.toml` says the same to those who have cargo-deny.
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Also the list in deny.toml.
const ALLOWED: [&str; 11] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
];

struct Linked {
    name: String,
    version: String,
    licence: String,
    copyright: String,
}

/// What `cargo metadata` says for one platform, so that the answer is the same on every machine.
fn metadata() -> Value {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// The crates behind normal dependencies, the root and procedural macros left out: what ends up in libpassrl.so.
fn linked(metadata: &Value) -> Vec<Linked> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), p)).collect();
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"]).iter().map(|n| (text(&n["id"]), n)).collect();
    let root = text(&metadata["resolve"]["root"]);
    let (mut seen, mut open) = (BTreeSet::from([root]), vec![root]);
    while let Some(id) = open.pop() {
        for dependency in list(&nodes[id]["deps"]) {
            let normal = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let id = text(&dependency["pkg"]);
            let at_compile_time = list(&packages[id]["targets"]).iter().any(|t| list(&t["kind"]).iter().any(|k| k == "proc-macro"));
            if normal && !at_compile_time && seen.insert(id) {
                open.push(id);
            }
        }
    }
    seen.remove(root);
    let mut linked: Vec<Linked> = seen.into_iter().map(|id| describe(packages[id])).collect();
    linked.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    linked
}

fn describe(package: &Value) -> Linked {
    Linked {
        name: text(&package["name"]).to_owned(),
        version: text(&package["version"]).to_owned(),
        licence: text(&package["license"]).replace('/', " OR "),
        copyright: copyright(Path::new(text(&package["manifest_path"])).parent().expect("a manifest is in a folder")),
    }
}

/// The copyright lines of the crate's licence files: what the MIT and BSD licences ask to be kept.
fn copyright(folder: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("the crate's folder").map(|f| f.expect("a file").path()).collect();
    files.retain(|f| f.file_name().is_some_and(|n| n.to_string_lossy().to_uppercase().starts_with("LICEN")) && f.is_file());
    files.sort();
    let mut lines = BTreeSet::new();
    for file in files {
        let content = std::fs::read_to_string(file).unwrap_or_default();
        let notices = content.lines().map(str::trim).filter(|l| l.starts_with("Copyright ") && l.chars().any(|c| c.is_ascii_digit()));
        lines.extend(notices.map(str::to_owned));
    }
    lines.into_iter().collect::<Vec<_>>().join("; ")
}

/// An SPDX expression of OR, AND, WITH and parentheses, all of whose ways out are looked at: one allowed way is enough.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "\u{1}");
    let words: Vec<String> = spaced.split_whitespace().map(|w| w.replace('\u{1}', " WITH ")).collect();
    let mut at = 0;
    let verdict = alternatives(&words, &mut at);
    verdict && at == words.len()
}

fn alternatives(words: &[String], at: &mut usize) -> bool {
    let mut any = both(words, at);
    while words.get(*at).is_some_and(|w| w == "OR") {
        *at += 1;
        any |= both(words, at);
    }
    any
}

fn both(words: &[String], at: &mut usize) -> bool {
    let mut all = single(words, at);
    while words.get(*at).is_some_and(|w| w == "AND") {
        *at += 1;
        all &= single(words, at);
    }
    all
}

fn single(words: &[String], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if word != "(" {
        return ALLOWED.contains(&word.as_str());
    }
    let verdict = alternatives(words, at);
    let closed = words.get(*at).is_some_and(|w| w == ")");
    *at += 1;
    verdict && closed
}

fn refused(linked: &[Linked]) -> Vec<String> {
    linked.iter().filter(|c| !allowed(&c.licence)).map(|c| format!("{} {}: `{}`", c.name, c.version, c.licence)).collect()
}

fn notice(linked: &[Linked]) -> String {
    let mut page = String::from(
        "# Third-party licences\n\nThe crates whose code is part of `libpassrl.so` (x86-64 Linux). The Rust standard library, MIT OR Apache-2.0, is linked in as well.\n\
         Kept current by `tests/licences.rs`; `BLESS=1 cargo test --test licences` rewrites it. Texts: `LICENSE-MIT`, `LICENSE-APACHE` and each crate's own files.\n\n\
         | crate | version | licence | copyright |\n| --- | --- | --- | --- |\n",
    );
    for c in linked {
        let copyright = if c.copyright.is_empty() { "none stated in its licence files" } else { &c.copyright };
        let _ = writeln!(page, "| {} | {} | {} | {} |", c.name, c.version, c.licence, copyright);
    }
    page
}

#[test]
fn linked_crates_are_permissive_and_named() {
    let linked = linked(&metadata());
    // Not an empty graph: these three are what Cargo.toml names.
    for name in ["half", "libc", "libloading"] {
        assert!(linked.iter().any(|c| c.name == name), "{name} is not in the graph that was looked at");
    }
    assert!(!linked.iter().any(|c| c.name == "criterion"), "a dev-dependency is taken for linked");
    let refused = refused(&linked);
    assert!(refused.is_empty(), "licences that are not on the list: {}", refused.join("; "));

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/third-party-licences.md");
    let new = notice(&linked);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &new).expect("docs is writable");
    }
    let old = std::fs::read_to_string(path).unwrap_or_default();
    assert!(old == new, "docs/third-party-licences.md is not current; run BLESS=1 cargo test --test licences");
}

#[test]
fn the_check_refuses_what_it_should() {
    for good in [
        "MIT",
        "MIT OR Apache-2.0",
        "(MIT OR GPL-3.0-only) AND Unicode-3.0",
        "GPL-2.0-only OR ISC",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0-only",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in
        ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT OR ISC) AND LGPL-2.1", "MPL-2.0", "MIT MIT", "(MIT", "Apache-2.0 WITH other"]
    {
        assert!(!allowed(bad), "{bad}");
    }
    // A graph with a copyleft crate behind a normal dependency is refused by its name; behind a dev-dependency it is not looked at.
    let graph = |kind: &str| {
        let json = r#"{"packages": [{"id": "root", "name": "root", "targets": []}, {"id": "x", "name": "x", "version": "1.0.0", "license": "GPL-3.0-only",
            "manifest_path": "HERE/Cargo.toml", "targets": [{"kind": ["lib"]}]}], "resolve": {"root": "root", "nodes": [{"id": "root",
            "deps": [{"pkg": "x", "dep_kinds": [{"kind": KIND}]}]}, {"id": "x", "deps": []}]}}"#;
        let json = json.replace("KIND", kind).replace("HERE", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str::<Value>(&json).expect("JSON")
    };
    assert_eq!(refused(&linked(&graph("null"))), ["x 1.0.0: `GPL-3.0-only`"]);
    assert!(linked(&graph("\"dev\"")).is_empty());
}

#[test]
fn deny_toml_has_the_same_list() {
    let deny = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml")).expect("deny.toml");
    let list = deny.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).expect("licenses.allow");
    let theirs: BTreeSet<&str> = list.split(',').map(|w| w.trim().trim_matches('"')).filter(|w| !w.is_empty()).collect();
    assert_eq!(theirs, BTreeSet::from(ALLOWED));
}

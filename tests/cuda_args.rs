//! What the host hands to the kernels is what they take: every struct of kernels/args.cuh as a C++ compiler lays it out, and as Rust does.
use passrl::backend::cuda::args::LAYOUT;
use std::collections::BTreeMap;

/// Sizes and offsets that bindgen reads from the header ("Size of Args", "Offset of field: Args::plan").
fn read() -> BTreeMap<String, usize> {
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/args.cuh");
    let bindings = bindgen::Builder::default().header(header).clang_args(["-x", "c++", "-std=c++17"]).layout_tests(true).generate();
    let text: String = bindings.unwrap_or_else(|fault| panic!("{header}: {fault}")).to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeMap::new();
    for (label, separator) in [("Size of ", "() - "), ("Offset of field: ", ") - ")] {
        for piece in text.split(&format!("[\"{label}")).skip(1) {
            let name = piece.split('"').next().expect("a name");
            let number = piece.split(separator).nth(1).and_then(|rest| rest.split("usize").next()).expect("a number");
            found.insert(format!("{label}{name}"), number.trim().parse().unwrap_or_else(|_| panic!("{name}: {number:?}")));
        }
    }
    found
}

#[test]
fn structs_are_laid_out_alike_on_both_sides() {
    let mut there = read();
    assert!(there.len() > 200, "{} sizes and offsets found", there.len());
    let mut wrong = Vec::new();
    let mut compare = |label: String, here: usize| match there.remove(&label) {
        Some(number) if number == here => (),
        Some(number) => wrong.push(format!("{label} is {here} in Rust, {number} in args.cuh")),
        None => wrong.push(format!("{label} is not in args.cuh")),
    };
    for (name, size, fields) in LAYOUT {
        compare(format!("Size of {name}"), *size);
        for (field, offset) in *fields {
            compare(format!("Offset of field: {name}::{field}"), *offset);
        }
    }
    wrong.extend(there.keys().map(|label| format!("{label} is not in args.rs")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

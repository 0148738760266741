//! The committed header is what cbindgen makes of src/abi (BLESS=1 rewrites it).
fn generated() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let config = cbindgen::Config::from_file(format!("{root}/include/cbindgen.toml")).expect("include/cbindgen.toml");
    let bindings = cbindgen::Builder::new().with_crate(root).with_config(config).generate().expect("cbindgen reads src/abi");
    let mut bytes = Vec::new();
    bindings.write(&mut bytes);
    String::from_utf8(bytes).expect("a header is text")
}

#[test]
fn header_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/include/passrl.h");
    let new = generated();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &new).expect("include/passrl.h is written");
    }
    let old = std::fs::read_to_string(path).unwrap_or_default();
    assert!(old == new, "include/passrl.h is not what src/abi says; run BLESS=1 cargo test --test header");
}

//! Build script of the crate: link arguments of the shared library (and, with the CUDA backend, the compilation of the kernels).
fn main() {
    println!("cargo::rerun-if-changed=kernels/build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os == "linux" {
        // A Rust cdylib has no SONAME; without one C programs record the path they were linked with. `-Bsymbolic` binds our own
        // references to ourselves beside another version in the process; `nodelete` keeps thread-local destructors' code mapped.
        for arg in ["-Wl,-soname,libpassrl.so.0", "-Wl,-Bsymbolic", "-Wl,-z,nodelete"] {
            println!("cargo::rustc-cdylib-link-arg={arg}");
        }
    }
}

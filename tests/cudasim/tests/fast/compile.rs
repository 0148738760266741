//! Which functions of a source are taken for entry points, and what is said of a source that does not compile.
use cudasim::compile::{entries, kernels, source_hash};
use std::path::Path;

#[test]
fn entry_points_are_found() {
    let text = "extern \"C\" __global__ void one(int a) { }\n\
        extern \"C\" __global__ void __launch_bounds__(256, 2) two(const struct A a, f(*p)(int)) { }\n\
        extern \"C\" __global__ __launch_bounds__((64 * 2)) void\nthree (int) { }\n\
        extern \"C\" __global__ void declared(int);\n\
        extern \"C\" __global__ void declared(int x) { }\n\
        extern \"C\" __global__ void only_declared(int);\n";
    let found: Vec<(String, String)> = entries(text);
    let want = [("one", "1024"), ("two", "256"), ("three", "(64 * 2)"), ("declared", "1024")];
    assert_eq!(found, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

/// What CUDA does not have is refused, so that what is tested can be shipped.
#[test]
fn sources_that_are_refused() {
    let Ok(driver) = cudasim::folder() else { return println!("SKIPPED: {}", cudasim::folder().unwrap_err()) };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refused");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (body, says) in [
        ("extern \"C\" __global__ void k(double *p) { atomicAdd(p, 1.0); }", "atomicAdd"),
        ("extern \"C\" __global__ void k(int *p) { __shared__ int s[4]; p[0] = s[0]; }", "use_the_macro_SHARED_instead"),
        ("extern \"C\" __global__ void k(int *p) { p[0] = __no_such_thing(3); }", "__no_such_thing"),
        ("static void f() {}", "no `extern \"C\" __global__ void name("),
    ] {
        let source = folder.join("k.cu");
        std::fs::write(&source, body).expect("written");
        let why = kernels(&source, &cudasim::sources(), &driver, &folder.join("k.so"), false, 0, &[]).expect_err(body);
        assert!(why.contains(says), "{body}: {why}");
    }
}

#[test]
fn the_hash_names_a_state_of_the_sources() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hashed");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("b.cuh"), "b").expect("written");
    std::fs::write(folder.join("a.cu"), "a").expect("written");
    std::fs::write(folder.join("ignored.rs"), "x").expect("written");
    let hash = source_hash(&folder).expect("readable");
    let fnv = b"a.cuab.cuhb".iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    assert_eq!(hash, fnv);
    std::fs::write(folder.join("b.cuh"), "c").expect("written");
    assert_ne!(source_hash(&folder).expect("readable"), hash);
    // The kernels that the tests of this crate run were compiled with this number.
    let Some(_gpu) = crate::common::gpu(false) else { return };
    assert_eq!(cudasim::source_hash(), 0x1234);
}

//! Compiles the simulated driver and, in both builds, the library's kernels into OUT_DIR/fast, and puts that folder on the library path of
//! `cargo test` (Cargo does, for link-search paths): cudarc finds libcuda.so there with nothing to set. Where it cannot, the crate builds
//! all the same, and the tests say why they are skipped.
use std::path::Path;

#[path = "src/compile.rs"]
#[allow(dead_code)]
mod compile;

fn main() {
    for path in ["build.rs", "src/compile.rs", "sim", "../../kernels"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed=CXX");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let fast = Path::new(&out).join("fast");
    let why = match build(&fast) {
        Ok(()) => String::new(),
        Err(why) => {
            println!("cargo::warning=no simulated CUDA driver: {}", why.replace('\n', " "));
            why
        }
    };
    // Never where it was not built: a half-made library would be found.
    if why.is_empty() {
        println!("cargo::rustc-link-search=native={}", fast.display());
    }
    std::fs::write(Path::new(&out).join("why_not.txt"), why).expect("OUT_DIR is writable");
}

fn build(out: &Path) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(out);
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") || std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        return Err("it is written for x86-64 Linux (it switches stacks in assembly)".to_owned());
    }
    compile::compiler()?;
    std::fs::create_dir_all(out).map_err(|e| e.to_string())?;
    let sim = Path::new("sim");
    compile::driver(sim, out).unwrap_or_else(|why| panic!("{why}"));
    let folder = Path::new("../../kernels");
    let source = folder.join("passrl.cu");
    if !source.exists() {
        println!("cargo::warning=kernels/passrl.cu is not there: the simulated driver has no kernels");
        return Ok(());
    }
    let hash = compile::source_hash(folder).unwrap_or_else(|why| panic!("{why}"));
    // A kernel that does not compile is an error, not a reason to skip its tests. Both builds at once.
    std::thread::scope(|scope| {
        let jobs = [false, true].map(|checked| {
            let library = out.join(if checked { "kernels-checked.so" } else { "kernels-fast.so" });
            let source = &source;
            scope.spawn(move || compile::kernels(source, sim, out, &library, checked, hash, &[]))
        });
        for job in jobs {
            job.join().expect("no panic").unwrap_or_else(|why| panic!("{why}"));
        }
    });
    Ok(())
}

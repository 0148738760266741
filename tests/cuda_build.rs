//! How the kernels come to a device: the image built in, NVRTC, the cache; and machines where there is no CUDA, or not enough of it. Each of the latter in a process of
//! its own, whose loader finds what the test puts there.
#[path = "abi/common.rs"]
mod common;
#[path = "cuda/world.rs"]
mod world;

use common::{ROOT, must, run, scratch};
use harness::device;
use passrl::abi::constants::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use passrl::backend::cuda::image;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::{cases, harness};
use world::{context, describe, destroy_context, simulated};

#[test]
fn the_simulated_driver_runs_the_source_that_the_library_embeds() {
    let Some(_lock) = simulated() else { return };
    assert_eq!(image::HASH, cudasim::source_hash());
    assert!(image::source().contains("passrl_prepare(") && !image::source().contains("#include"), "every include is written out");
    let context = context(|_| ()).expect("a context");
    let text = describe(context);
    for part in ["cuda backend, device 0", "compute capability 9.0", "driver for CUDA 13.0", "NVRTC 12.99, kept nowhere", &format!("source {:016x}", image::HASH)] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    destroy_context(context);
}

/// A device of the simulated driver below what the kernels need.
#[test]
fn a_device_below_the_lowest_architecture_is_refused() {
    let Some(_lock) = simulated() else { return };
    cudasim::attribute(75, 7);
    cudasim::attribute(76, 5);
    let (status, said) = context(|_| ()).expect_err("refused");
    cudasim::reset();
    cudasim::attribute(75, 9);
    cudasim::attribute(76, 0);
    assert!(status == PASSRL_ERR_NO_DEVICE && said.contains("compute capability 7.5; the kernels need 8.0"), "{status} {said}");
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("a path")
}

/// A context with a folder for the cache; what it says of its kernels.
fn cached(folder: &Path) -> Result<String, (i32, String)> {
    let folder = text(folder);
    let context = context(|o| o.cache_dir = folder.as_ptr())?;
    let said = describe(context);
    destroy_context(context);
    Ok(said)
}

#[test]
fn images_are_kept_and_read_again_whatever_is_in_the_folder() {
    let Some(_lock) = simulated() else { return };
    let folder = scratch(&format!("cuda-cache-{}", std::process::id())).join("deeper");
    let _ = std::fs::remove_dir_all(&folder);
    let first = cached(&folder).expect("a context");
    assert!(first.contains("NVRTC 12.99, kept in "), "{first}");
    let files = || std::fs::read_dir(&folder).expect("made").map(|f| f.expect("a file").path()).collect::<Vec<_>>();
    let [file] = files().try_into().expect("one file, none half-written");
    assert!(cached(&folder).expect("a context").contains("NVRTC 12.99, read from "), "the second is read");
    // Damage of every kind: made again, and good afterwards.
    let whole = std::fs::read(&file).expect("readable");
    let damaged: Vec<Vec<u8>> = vec![
        Vec::new(),
        whole[..whole.len() - 1].to_vec(),
        whole[..20].to_vec(),
        [&whole[..], b"x"].concat(),
        whole.iter().enumerate().map(|(i, b)| if i == whole.len() - 5 { b ^ 1 } else { *b }).collect(),
        whole.iter().enumerate().map(|(i, b)| if i == 8 { b ^ 1 } else { *b }).collect(),
        whole.iter().enumerate().map(|(i, b)| if (24..40).contains(&i) { 0xff } else { *b }).collect(),
    ];
    for (i, bytes) in damaged.iter().enumerate() {
        std::fs::write(&file, bytes).expect("writable");
        assert!(cached(&folder).expect("a context").contains("NVRTC 12.99, kept in "), "damage {i} was read");
        assert_eq!(std::fs::read(&file).expect("readable"), whole, "damage {i} was not mended");
    }
    // An image that the driver refuses is made again.
    cudasim::fault("cuModuleLoadDataEx", 0, 209);
    assert!(cached(&folder).expect("a context").contains("NVRTC 12.99, kept in "));
    // A file that others may write is not trusted.
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("ours");
    assert!(cached(&folder).expect("a context").contains("NVRTC 12.99, kept in "));
    // A folder that cannot be one.
    let blocked = folder.join("file");
    std::fs::write(&blocked, "").expect("writable");
    let said = cached(&blocked).expect("a context all the same");
    assert!(said.contains("NVRTC 12.99, not kept in "), "{said}");
    // Without a cache nothing is written.
    let before = files().len();
    destroy_context(context(|_| ()).expect("a context"));
    assert_eq!(files().len(), before);
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}

#[test]
fn processes_that_fill_one_cache_at_once_do_not_disturb_one_another() {
    let Some(_lock) = simulated() else { return };
    let folder = scratch(&format!("cuda-race-{}", std::process::id()));
    let start = || probe(&[("PASSRL_PROBE_CACHE", folder.as_os_str().to_owned()), ("LD_LIBRARY_PATH", cudasim::folder().expect("built").into())]).spawn().expect("starts");
    let all: Vec<_> = (0..6).map(|_| start()).collect();
    for child in all {
        let output = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("0 passrl ") && said.contains("NVRTC 12.99"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(std::fs::read_dir(&folder).expect("made").count(), 1, "one image and nothing half-written");
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_compiler_that_fails_or_is_none_is_said() {
    let Some(_lock) = simulated() else { return };
    let nowhere = CString::new("/nowhere/libnvrtc.so").expect("a path");
    let (status, said) = context(|o| o.nvrtc = nowhere.as_ptr()).expect_err("refused");
    assert!(status == PASSRL_ERR_DRIVER && said.contains("options.nvrtc is \"/nowhere/libnvrtc.so\", which does not load"), "{status} {said}");
    let empty = text(&library_of("nvrtc-empty", "int nothing;"));
    let (status, said) = context(|o| o.nvrtc = empty.as_ptr()).expect_err("refused");
    assert!(status == PASSRL_ERR_DRIVER && said.contains("has no nvrtcVersion"), "{status} {said}");
    let failing = probe(&[("PASSRL_TEST_NVRTC_FAILS", "1".into()), ("LD_LIBRARY_PATH", cudasim::folder().expect("built").into())]).output().expect("runs");
    let said = String::from_utf8_lossy(&failing.stdout).into_owned();
    assert!(said.contains("-304 ") && said.contains("numerics.cuh(7): error: this one is made to fail"), "{said}");
    // An option of newer compilers is left out where it is refused.
    let old = probe(&[("PASSRL_TEST_NVRTC_OLD", "1".into()), ("LD_LIBRARY_PATH", cudasim::folder().expect("built").into())]).output().expect("runs");
    let said = String::from_utf8_lossy(&old.stdout).into_owned();
    assert!(said.contains("0 passrl ") && said.contains("NVRTC 12.99"), "{said}");
    // The image built in, where there is one; else the sentence says that there is none.
    match context(|o| o.kernels = PASSRL_KERNELS_BUILT_IN) {
        Ok(context) => {
            assert!(describe(context).contains("kernels: built in by nvcc"), "{}", describe(context));
            destroy_context(context);
            // One that the driver refuses gives way to NVRTC.
            for code in [200, 209, 218, 222] {
                cudasim::fault("cuModuleLoadDataEx", 0, code);
                let context = self::context(|o| o.kernels = PASSRL_KERNELS_ANY).expect("a context");
                let said = describe(context);
                assert!(said.contains("kernels: NVRTC 12.99") && said.contains("the driver refuses the image built in"), "{said}");
                destroy_context(context);
            }
        }
        Err((status, said)) => {
            println!("SKIPPED: the image built in: the library was built without nvcc (tests/setup.sh cuda brings it)");
            assert!(status == PASSRL_ERR_DRIVER && said.contains("no image built in (no nvcc when the library was built)"), "{status} {said}");
        }
    }
}

/// A program in C, on the committed header and the shipped library.
#[test]
fn a_c_program_shapes_on_the_device() {
    let Some(_lock) = simulated() else { return };
    let program = common::c_program("cuda-shape", "tests/cuda/shape.c", &[]);
    let nvrtc = device::compiler().nvrtc.expect("the stand-in").into_string().expect("a path");
    let said = must(Command::new(program).arg(nvrtc).env("LD_LIBRARY_PATH", cudasim::folder().expect("built")).env("CUDASIM_STRICT", "1"));
    assert!(said.contains("60 tokens, the same bits"), "{said}");
}

/// NVRTC of the project's own environment, where it is.
fn nvrtc() -> Option<PathBuf> {
    let pythons = std::fs::read_dir(format!("{ROOT}/.venv-cuda/lib")).ok()?;
    pythons.flatten().map(|p| p.path().join("site-packages/nvidia/cu13/lib/libnvrtc.so.13")).find(|path| path.exists())
}

/// The compiler itself: every kernel of the embedded source becomes code for a GPU, which the simulated driver finds in it by name.
#[test]
fn nvrtc_compiles_the_embedded_source() {
    let Some(_lock) = simulated() else { return };
    let Some(nvrtc) = nvrtc() else {
        println!("SKIPPED: NVRTC itself: not in .venv-cuda (tests/setup.sh cuda brings it)");
        return;
    };
    let path = text(&nvrtc);
    // Kept below target: it takes a while.
    let folder = text(&scratch("cuda-nvrtc"));
    let context = context(|o| (o.nvrtc, o.cache_dir) = (path.as_ptr(), folder.as_ptr())).unwrap_or_else(|(status, said)| panic!("{status}: {said}"));
    let said = describe(context);
    assert!(said.contains("NVRTC 13."), "{said}");
    destroy_context(context);
}

/// A library of one line of C.
fn library_of(name: &str, source: &str) -> PathBuf {
    let folder = scratch(&format!("{name}-{}", std::process::id()));
    std::fs::write(folder.join("source.c"), source).expect("writable");
    must(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(folder.join("libcuda.so")).arg(folder.join("source.c")));
    std::fs::copy(folder.join("libcuda.so"), folder.join("libcuda.so.1")).expect("copied");
    folder.join("libcuda.so")
}

/// This test program once more, as a process that makes one context and prints what comes of it.
fn probe(environment: &[(&str, std::ffi::OsString)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", "probed", "--nocapture", "--include-ignored"]).env("PASSRL_PROBE", "1").env_remove("LD_LIBRARY_PATH");
    command.envs(environment.iter().map(|(name, value)| (*name, value.clone())));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

/// What `probe` runs; alone it does nothing.
#[test]
fn probed() {
    if std::env::var_os("PASSRL_PROBE").is_none() {
        return;
    }
    let cache = std::env::var_os("PASSRL_PROBE_CACHE").map(|folder| text(Path::new(&folder)));
    for _ in 0..2 {
        let made = context(|o| {
            if let Some(cache) = &cache {
                o.cache_dir = cache.as_ptr();
            }
        });
        match made {
            Ok(context) => {
                println!("0 {}", describe(context));
                destroy_context(context);
            }
            Err((status, said)) => println!("{status} {said}"),
        }
    }
    // The CPU serves all the same.
    let options: passrl_context_options = harness::library().initial();
    let context = context(|o| *o = options).expect("a CPU context");
    assert!(describe(context).contains("cpu backend"));
    destroy_context(context);
}

#[test]
fn without_a_driver_or_with_half_of_one_there_is_a_sentence() {
    let _ = device::compiler();
    let said_by = |folder: &Path| {
        let output = run(&mut probe(&[("LD_LIBRARY_PATH", folder.as_os_str().to_owned())])).unwrap_or_else(|fault| panic!("{}: {fault}", folder.display()));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let twice = |said: &str, words: &str| assert_eq!(said.matches(words).count(), 2, "{words:?} twice in {said}");
    // What a driver has, said by a library that has nothing else.
    let names = ["cuInit", "cuGetErrorName", "cuGetErrorString", "cuDeviceGetCount"];
    let function = |name: &str| match name {
        "cuInit" => "int cuInit(unsigned flags) { (void)flags; return INIT; }\n".to_string(),
        "cuDeviceGetCount" => "int cuDeviceGetCount(int *count) { *count = 0; return 0; }\n".to_string(),
        name => format!("int {name}(int error, const char **text) {{ *text = error == 34 ? \"CUDA_ERROR_STUB_LIBRARY\" : \"CUDA_ERROR_SOMETHING\"; return 0; }}\n"),
    };
    let rest: String = image_calls().iter().filter(|name| !names.contains(&name.as_str())).map(|name| format!("int {name}(void) {{ return 1; }}\n")).collect();
    let own: String = names.iter().map(|name| function(name)).collect();
    let driver = |init: &str| format!("{own}{rest}").replace("INIT", init);
    let folder = |library: PathBuf| library.parent().expect("a folder").to_owned();

    let none = scratch("cuda-nothing");
    let real = !run(&mut probe(&[("LD_LIBRARY_PATH", none.as_os_str().to_owned())])).is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("no CUDA driver"));
    if real {
        println!("SKIPPED: a machine without a driver: this one has one");
    } else {
        twice(&said_by(&none), "-300 passrl_context_create: no CUDA driver (libcuda.so.1) on this machine; use backend = PASSRL_CPU");
    }
    twice(&said_by(&folder(library_of("cuda-empty", "int nothing;"))), "-300 passrl_context_create: the libcuda.so that is found first is no CUDA driver: it has not even cuInit");
    let old = driver("0").replace("int cuModuleLoadDataEx(void)", "int unnamed(void)");
    twice(&said_by(&folder(library_of("cuda-old", &old))), "-300 passrl_context_create: the CUDA driver on this machine has no cuModuleLoadDataEx (0 more are missing); it is older than CUDA 12.0");
    twice(&said_by(&folder(library_of("cuda-stub", &driver("34")))), "-300 passrl_context_create: cuInit failed: CUDA_ERROR_STUB_LIBRARY (34), CUDA_ERROR_STUB_LIBRARY; a toolkit's stub libcuda.so");
    twice(&said_by(&folder(library_of("cuda-forked", &driver("3")))), "-302 passrl_context_create: cuInit failed: CUDA_ERROR_SOMETHING (3), CUDA_ERROR_SOMETHING; this process was forked");
    twice(&said_by(&folder(library_of("cuda-mismatch", &driver("803")))), "-300 passrl_context_create: cuInit failed: CUDA_ERROR_SOMETHING (803)");
    twice(&said_by(&folder(library_of("cuda-no-device", &driver("0")))), "-300 passrl_context_create: the CUDA driver knows no device");
}

/// The driver functions that the library looks for, as its source lists them.
fn image_calls() -> Vec<String> {
    let source = std::fs::read_to_string(format!("{ROOT}/src/backend/cuda/driver.rs")).expect("the source");
    let list = source.split("const NEEDED").nth(1).and_then(|rest| rest.split("];").next()).expect("the list");
    let names: Vec<String> = list.split(" c\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_string).collect();
    assert!(names.len() > 20, "{names:?}");
    names
}

/// Every driver function that the sources call is in the list that is looked up first: one that is not would be a panic on an older driver.
#[test]
fn every_driver_call_is_looked_up_first() {
    let needed = image_calls();
    let folder = format!("{ROOT}/src/backend/cuda");
    let mut called = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(folder).expect("the sources") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        let names = text.split("sys::cu").skip(1).map(|rest| format!("cu{}", rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()));
        called.extend(names.filter(|name| name != "culib"));
    }
    assert_eq!(called.into_iter().collect::<Vec<_>>(), { let mut all = needed; all.sort(); all });
}

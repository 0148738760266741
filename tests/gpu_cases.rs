//! The cases of the tests as a file of structs and memory, which `tests/gpu/check` runs on a machine with a GPU and no Rust; and that command itself, on the
//! simulated driver with some of the cases. `PASSRL_GPU_CASES=FILE cargo test --test gpu_cases` writes the file whole.

use harness::{Floats, GroupsAs, How, Outputs, library, limits, place, serve};
use passrl::abi::constants::*;
use passrl::abi::types::passrl_view;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::{cases, harness};

/// The forms in which the table of cases is put before the CUDA backend, as in tests/cuda.rs.
fn hows() -> Vec<(&'static str, How)> {
    let how = How::default();
    vec![
        ("", how),
        (" padded", How { padded: true, spare: 3, mask: PASSRL_I64, wide_offsets: true, output: Floats::F32, ..how }),
        (" in place", How { in_place: true, ..how }),
        (" bf16, left", How { padded: true, pad_left: true, spare: 2, output: Floats::Bf16, mask: PASSRL_BF16, ..how }),
        (" f16, offsets", How { output: Floats::F16, groups_as: GroupsAs::Offsets, wide_offsets: true, mask: PASSRL_BOOL, ..how }),
        (" strided, lean", How { stride: 3, lean: true, mask: PASSRL_F32, ..how }),
        (" other floats, strided rows", How { padded: true, other_floats: true, stride: 4, mask: PASSRL_I32, dirt: 0xff, ..how }),
    ]
}

/// The bytes of a struct of the ABI.
fn bytes<T>(of: &T) -> Vec<u8> {
    // SAFETY: structs of the ABI have no padding that matters: what is read back are their fields.
    unsafe { std::slice::from_raw_parts((&raw const *of).cast::<u8>(), size_of::<T>()) }.to_vec()
}

fn part(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u64).to_le_bytes());
    to.extend(bytes);
}

/// A record: name, configuration, limits, batch and outputs as they are in memory; then the views that these point to (address, bytes), then the memory
/// that those point to (address, bytes). `None`: the plan is refused.
fn record(name: &str, case: &cases::Case, how: &How) -> Option<Vec<u8>> {
    let config = harness::config(library(), &case.cfg);
    let limits = limits(&case.batch, how);
    library().plan(&config, &limits, how).ok()?;
    let mut placed = place(&case.cfg, &case.batch, how);
    let mut outputs = Outputs::new(&placed, how);
    let raw = outputs.raw();
    let mut record = Vec::new();
    for bytes in [name.as_bytes().to_vec(), bytes(&config), bytes(&limits), bytes(&placed.batch), bytes(&raw)] {
        part(&mut record, &bytes);
    }
    let (mut views, mut memory, mut counts) = (Vec::new(), Vec::new(), [0u64; 2]);
    for arena in [&mut placed.arena, outputs.arena_mut()] {
        for view in arena.views_mut() {
            let view: &passrl_view = view;
            views.extend((&raw const *view).addr().to_le_bytes());
            part(&mut views, &bytes(view));
            counts[0] += 1;
        }
        for block in &arena.memory {
            memory.extend(block.at.addr().to_le_bytes());
            // SAFETY: the block's own bytes; what a view cannot reach was written by the arena too.
            part(&mut memory, unsafe { std::slice::from_raw_parts(block.at, block.bytes()) });
            counts[1] += 1;
        }
    }
    for (count, bytes) in counts.into_iter().zip([views, memory]) {
        record.extend(count.to_le_bytes());
        record.extend(bytes);
    }
    Some(record)
}

/// Writes every case in the first two forms, and in one of the others. `every`: of so many cases one. The number of records.
fn write(path: &Path, every: usize) -> usize {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    file.write_all(b"passrl-1").expect("a file that can be written");
    let (hows, mut count) = (hows(), 0);
    for (n, case) in serve(cases::all()).iter().filter(|case| !case.cfg.strict).enumerate().filter(|(n, _)| n % every == 0) {
        for (label, how) in [&hows[0], &hows[1], &hows[2 + n / every % (hows.len() - 2)]] {
            if let Some(record) = record(&format!("{}{label}", case.name), case, how) {
                let mut framed = Vec::new();
                part(&mut framed, &record);
                file.write_all(&framed).expect("a file that can be written");
                count += 1;
            }
        }
    }
    file.flush().expect("a file that can be written");
    count
}

#[test]
fn the_check_of_a_device_runs_on_the_simulated_driver() {
    if let Some(path) = std::env::var_os("PASSRL_GPU_CASES").map(PathBuf::from) {
        println!("{} cases in {}", write(&path, 1), path.display());
        return;
    }
    if let Err(why) = cudasim::folder() {
        println!("SKIPPED: tests/gpu/check --simulate: {why}");
        return;
    }
    if !Command::new("python3").arg("--version").output().is_ok_and(|said| said.status.success()) {
        println!("SKIPPED: tests/gpu/check --simulate: python3 is not installed");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gpu-check-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder below target/tmp");
    let (file, json) = (folder.join("cases.bin"), folder.join("check.json"));
    let count = write(&file, 24);
    assert!(count > 50, "{count} cases");
    let check = |cases: &Path, more: &[&str]| {
        let built = std::env::current_exe().expect("a test has a path").with_file_name("libpassrl.so");
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gpu/check")).arg("--simulate");
        command.arg("--simulator").arg(cudasim::folder().expect("asked above")).arg("--library").arg(built).arg("--cases").arg(cases).arg("--json").arg(&json).args(more);
        command.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("python3 runs")
    };
    let said = check(&file, &[]);
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{text}");
    assert!(text.contains(&format!("{count} of {count} cases have the bits of the CPU")), "{text}");
    let json = std::fs::read_to_string(&json).expect("the check writes JSON");
    assert!(json.contains("\"simulated\": true") && json.contains(&format!("\"cases\": {count}")), "{json}");
    // One bit of one result is found, and the case named.
    let said = check(&file, &["--spoil", "eta_is_a_difference_dense", "eta_is_a_difference_dense"]);
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(1) && text.contains("eta_is_a_difference_dense: array "), "{said:?}");
    let mut spoilt = std::fs::read(&file).expect("written above");
    spoilt[7] = b'!';
    std::fs::write(&file, spoilt).expect("a file that can be written");
    let said = check(&file, &[]);
    assert!(said.status.code() == Some(1) && String::from_utf8_lossy(&said.stderr).contains("another version"), "{said:?}");
    std::fs::remove_dir_all(&folder).expect("made above");
}

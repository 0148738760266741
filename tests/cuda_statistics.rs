//! Statistics on the device: the partials of every case, byte by byte those of the CPU backend, phase after phase.

use harness::{How, device, library, place, serve};
use passrl::abi::types::passrl_batch;
use std::ffi::c_void;
use std::ptr::null_mut;
use testkit::{cases, harness, oracle};

type Init = unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> i32;
type Add = unsafe extern "C" fn(*const c_void, i32, *const passrl_batch, *mut c_void, usize, *mut c_void, usize, *mut c_void) -> i32;

/// The buffer after phases 0 and 1, as words.
fn statistics(cfg: &oracle::Config, batch: &oracle::Batch, how: &How) -> Result<Vec<Vec<u64>>, String> {
    let library = library();
    let plan = library.plan(&harness::config(library, cfg), &harness::limits(batch, how), how).map_err(|(_, said)| said)?;
    let (init, add): (Init, Add) = (library.get("passrl_partials_init"), library.get("passrl_partials_add"));
    let bytes = plan.size("passrl_partials_size");
    let mut placed = place(cfg, batch, how);
    let call = |status: i32| if status < 0 { Err(library.last_error()) } else { Ok(()) };
    let mut found = Vec::new();
    let words = |bytes: &[u8]| bytes.chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().expect("eight bytes"))).collect();
    if !how.cuda {
        let mut buffer = vec![0u64; bytes.div_ceil(8)];
        let workspace = plan.workspace(how);
        // SAFETY: a live plan, a buffer and a workspace of its sizes.
        call(unsafe { init(plan.plan, buffer.as_mut_ptr().cast(), bytes) })?;
        for phase in 0..2 {
            // SAFETY: as above.
            call(unsafe { add(plan.plan, phase, &placed.batch, buffer.as_mut_ptr().cast(), bytes, workspace.at, workspace.bytes, null_mut()) })?;
            found.push(buffer.clone());
        }
        return Ok(found);
    }
    let driver = device::driver()?;
    driver.use_device();
    let mirror = device::Mirror::of(&mut [&mut placed.arena]);
    let buffer = device::Block::dirty(bytes, how.dirt);
    let workspace = device::Block::dirty(plan.size("passrl_plan_workspace_size"), how.dirt);
    // SAFETY: as above, in device memory.
    call(unsafe { init(plan.plan, buffer.pointer(), bytes) })?;
    for phase in 0..2 {
        // SAFETY: as above.
        call(unsafe { add(plan.plan, phase, &placed.batch, buffer.pointer(), bytes, workspace.pointer(), workspace.bytes, null_mut()) })?;
        driver.wait(null_mut());
        found.push(words(&buffer.read()));
    }
    mirror.back(&mut [&mut placed.arena]);
    Ok(found)
}

/// The cases that `PASSRL_CASES` names (parts of names, by commas); all where it is not set.
fn wanted(name: &str) -> bool {
    std::env::var("PASSRL_CASES").map_or(true, |parts| parts.split(',').any(|part| name.contains(part)))
}

fn table(how: How) {
    if let Err(why) = device::driver() {
        return println!("SKIPPED: the CUDA backend: {why}");
    }
    let _lock = cudasim::lock();
    let (mut failures, mut ran) = (Vec::new(), 0);
    for case in serve(cases::all()).iter().filter(|case| wanted(case.name) && !case.cfg.strict && harness::in_pieces(&case.cfg)) {
        let cpu = statistics(&case.cfg, &case.batch, &how);
        let cuda = statistics(&case.cfg, &case.batch, &How { cuda: true, ..how });
        ran += 1;
        match (cpu, cuda) {
            (Ok(cpu), Ok(cuda)) => {
                for (phase, (cpu, cuda)) in cpu.iter().zip(&cuda).enumerate() {
                    if let Some(at) = (0..cpu.len()).find(|at| cpu[*at] != cuda[*at]) {
                        failures.push(format!("{}: word {at} of {} after phase {phase}: {:#x} on CUDA, {:#x} on the CPU", case.name, cpu.len(), cuda[at], cpu[at]));
                        break;
                    }
                }
            }
            (Err(_), Err(_)) => ran -= 1,
            (cpu, cuda) => failures.push(format!("{}: CPU {:?}, CUDA {:?}", case.name, cpu.err(), cuda.err())),
        }
    }
    let report = cudasim::report();
    assert!(report.is_empty(), "the simulated driver reports:\n{report}\n{}", failures.join("\n"));
    assert!(failures.is_empty(), "{} of {ran} cases differ:\n{}", failures.len(), failures.join("\n"));
    assert!(ran > 100 || std::env::var("PASSRL_CASES").is_ok(), "{ran} cases ran");
}

#[test]
fn partials_are_those_of_the_cpu_packed() {
    table(How::default());
}

#[test]
fn partials_are_those_of_the_cpu_padded() {
    table(How { padded: true, spare: 3, wide_offsets: true, ..How::default() });
}

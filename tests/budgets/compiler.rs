//! What nvcc says of the kernels on every architecture: registers and spills of each entry point, and of the functions that are called; and how many f64
//! instructions the code for sm_80 has, as nvdisasm lists it. The compiled code is kept in target/budgets, by the hash of the source.
use crate::Row;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Those of kernels/build.rs.
const ARCHITECTURES: [u32; 6] = [80, 86, 89, 90, 100, 120];

/// All of them, or those that PASSRL_ARCHITECTURES names ("80 90").
pub fn architectures() -> Vec<u32> {
    let asked = std::env::var("PASSRL_ARCHITECTURES").unwrap_or_default();
    let wanted: Vec<u32> = asked.split([' ', ',']).filter_map(|arch| arch.parse().ok()).collect();
    ARCHITECTURES.into_iter().filter(|arch| wanted.is_empty() || wanted.contains(arch)).collect()
}
const FLAGS: [&str; 5] = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

/// The folder of nvcc and its tools, where `tests/setup.sh cuda all` or the environment brings them.
fn tools() -> Result<PathBuf, String> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(|home| Path::new(&home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = std::fs::read_dir(root.join(".venv-cuda/lib")).into_iter().flatten().flatten().map(|python| python.path().join("site-packages/nvidia/cu13/bin"));
    let found = homes.chain(std::env::split_paths(&path)).chain(own).find(|folder| folder.join("nvcc").is_file());
    found.ok_or_else(|| "no nvcc: bring it with `tests/setup.sh cuda all`".to_owned())
}

/// One architecture's code and the report of its making.
fn compiled(tools: &Path, arch: u32) -> Result<(PathBuf, String), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let hash = cudasim::compile::source_hash(&root.join("kernels"))?;
    let folder = root.join("target/budgets");
    std::fs::create_dir_all(&folder).map_err(|fault| fault.to_string())?;
    let code = folder.join(format!("{hash:016x}-sm_{arch}.cubin"));
    let log = code.with_extension("log");
    if let Ok(text) = std::fs::read_to_string(&log) {
        return Ok((code, text));
    }
    println!("nvcc compiles for sm_{arch}");
    let mut command = Command::new(tools.join("nvcc"));
    command.args(FLAGS).args(["-cubin", "-Xptxas", "-v", "-arch", &format!("sm_{arch}"), "-o"]).arg(&code).arg(root.join("kernels/passrl.cu"));
    let done = command.output().map_err(|fault| format!("{command:?}: {fault}"))?;
    let text = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        return Err(format!("{command:?} ended with {}\n{text}", done.status));
    }
    std::fs::write(&log, &text).map_err(|fault| fault.to_string())?;
    Ok((code, text))
}

/// The number before `word` in a line.
fn before(line: &str, word: &str) -> Option<f64> {
    line.split(word).next().filter(|head| head.len() < line.len())?.split_whitespace().last()?.parse().ok()
}

/// Registers and spilled bytes by function, in the order of `ptxas -v`; `None`: it is called by others and has no registers of its own.
fn functions(report: &str) -> Vec<(String, f64, Option<f64>)> {
    let mut found: Vec<(String, f64, Option<f64>)> = Vec::new();
    let mut entry = None;
    for line in report.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            entry = rest.split('\'').next().map(str::to_owned);
        } else if let Some(rest) = line.split("Function properties for ").nth(1) {
            found.push((rest.trim().to_owned(), 0.0, None));
        } else if let (Some(stores), Some(loads), Some(last)) = (before(line, " bytes spill stores"), before(line, " bytes spill loads"), found.last_mut()) {
            last.1 = stores + loads;
        } else if let (Some(registers), Some(name)) = (line.split("Used ").nth(1).and_then(|rest| before(rest, " registers")), &entry) {
            if let Some(own) = found.iter_mut().rev().find(|(of, _, _)| of == name) {
                own.2 = Some(registers);
            }
        }
    }
    found
}

/// Instructions on doubles by entry point or function: D… of the listing, and conversions from and to F64.
fn doubles(tools: &Path, code: &Path) -> Result<Vec<(String, u32)>, String> {
    let mut command = Command::new(tools.join("nvdisasm"));
    let done = command.arg("-c").arg(code).output().map_err(|fault| format!("{command:?}: {fault}"))?;
    if !done.status.success() {
        return Err(format!("{command:?} ended with {}", done.status));
    }
    let mut found: Vec<(String, u32)> = Vec::new();
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        if let Some(section) = line.trim().strip_prefix(".section\t.text.").or(line.trim().strip_prefix(".section .text.")) {
            found.push((section.split([',', '\t', ' ']).next().unwrap_or_default().to_owned(), 0));
        }
        let Some(last) = found.last_mut() else { continue };
        // "/*0a30*/  @P0 DADD R4, R2, R6 ;"
        let Some(text) = line.split("*/").nth(1) else { continue };
        let word = text.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or_default();
        let double = ["DADD", "DMUL", "DFMA", "DSETP", "DMNMX", "MUFU.RCP64H", "MUFU.RSQ64H"].iter().any(|name| word.starts_with(name));
        last.1 += u32::from(double || (word.contains("F64") && !word.starts_with("MUFU")));
    }
    Ok(found)
}

pub fn rows() -> Result<Vec<Row>, String> {
    let tools = tools()?;
    let mut rows = Vec::new();
    for arch in architectures() {
        let (code, report) = compiled(&tools, arch)?;
        let case = format!("nvcc, sm_{arch}");
        let (mut called, mut most) = (0.0, 0);
        let all = functions(&report);
        assert!(all.iter().any(|(name, _, registers)| name == "passrl_shape" && registers.is_some()), "nvcc's report names no passrl_shape:\n{report}");
        for (name, spilled, registers) in &all {
            match registers {
                Some(registers) => {
                    rows.push(Row::new(&case, &format!("registers a thread of {name}"), *registers, Some(64.0), "registers"));
                    rows.push(Row::new(&case, &format!("spills of {name}"), *spilled, Some(0.0), "bytes"));
                }
                None => {
                    called += spilled;
                    most += u32::from(*spilled > 0.0);
                }
            }
        }
        rows.push(Row::new(&case, "spills of functions that kernels call, together", called, Some(0.0), "bytes"));
        rows.push(Row::new(&case, "functions that kernels call and that spill", f64::from(most), Some(0.0), "functions"));
        if arch == 80 {
            for (name, count) in doubles(&tools, &code)?.into_iter().filter(|(name, _)| name.starts_with("passrl_")) {
                rows.push(Row::new(&case, &format!("f64 instructions in the code of {name}"), f64::from(count), None, "instructions"));
            }
        }
    }
    Ok(rows)
}

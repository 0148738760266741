//! How the simulated driver and kernel libraries are compiled: g++ alone. Part of the build script and of the library.
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const DRIVER: [&str; 10] = ["control", "memory", "check", "traffic", "fibers", "launch", "streams", "context", "module", "copies"];
const COMMON: [&str; 7] = ["-std=c++17", "-gdwarf-4", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fno-stack-protector"];
/// Kernels read memory as they please, as device code does, and throw nothing. The sanitizers' findings are told by launch.cpp: what x86 forgives,
/// or does otherwise than a GPU.
const KERNELS: [&str; 5] =
    ["-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", "-fsanitize=alignment,shift-exponent,bounds,integer-divide-by-zero", "-fsanitize=float-cast-overflow"];
/// Accesses stay what the source says: a vector's copy one access, a loop's accesses apart.
const CHECKED: [&str; 7] = [
    "-fsanitize=thread",
    "--param=tsan-instrument-func-entry-exit=0",
    "-fno-tree-vectorize",
    "-fno-tree-sra",
    "-fno-store-merging",
    "-fno-tree-loop-distribute-patterns",
    "-DCUDASIM_CHECKED",
];

/// The compiler, or why it cannot be used.
pub fn compiler() -> Result<String, String> {
    let name = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let output = Command::new(&name).arg("--version").output().map_err(|e| format!("{name} is missing ({e}); bring it with: sudo apt-get install g++"))?;
    match output.status.success() {
        true => Ok(name),
        false => Err(format!("{name} --version ended with {}", output.status)),
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?} ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// Writes libcuda.so.1, and libcuda.so beside it (the name that cudarc tries first), into `out`. `sources`: the folder sim.
pub fn driver(sources: &Path, out: &Path) -> Result<(), String> {
    let one = out.join("driver.cpp");
    let includes: String = DRIVER.iter().map(|name| format!("#include \"{name}.cpp\"\n")).collect();
    std::fs::write(&one, includes).map_err(|e| e.to_string())?;
    let library = out.join("libcuda.so.1");
    let mut command = Command::new(compiler()?);
    command.args(COMMON).args(["-O2", "-Wall", "-Wextra", "-shared", "-Wl,-soname,libcuda.so.1", "-Wl,-Bsymbolic", "-I"]).arg(sources);
    command.arg(format!("-Wl,--version-script={}", sources.join("exports.map").display())).arg("-o").arg(&library).arg(&one).args(["-ldl", "-lrt"]);
    run(&mut command)?;
    let link = out.join("libcuda.so");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink("libcuda.so.1", link).map_err(|e| e.to_string())
}

/// Compiles a kernel source into `library`, for the driver in the folder `driver`. `hash`: of the sources; `options`: more for g++ (-D…, -I…).
pub fn kernels(source: &Path, sim: &Path, driver: &Path, library: &Path, checked: bool, hash: u64, options: &[&str]) -> Result<(), String> {
    let cxx = compiler()?;
    let header = sim.join("cudasim.h");
    let begin = |command: &mut Command| {
        command.args(COMMON).args(KERNELS).arg("-I").arg(sim).arg("-include").arg(&header).args(options);
    };
    let mut scan = Command::new(&cxx);
    begin(&mut scan);
    let text = run(scan.args(["-E", "-P", "-DCUDASIM_SCAN", "-x", "c++"]).arg(source))?;
    let found = entries(&text);
    if found.is_empty() {
        return Err(format!("{}: no `extern \"C\" __global__ void name(` in it", source.display()));
    }
    let mut unit = format!("#include \"{}\"\n", source.canonicalize().map_err(|e| e.to_string())?.display());
    unit.push_str("extern \"C\" __attribute__((visibility(\"hidden\"))) const char __ehdr_start[], _end[];\n");
    unit.push_str("static const struct Cudasim { Cudasim() { cudasim::register_library({CUDASIM_SOURCE_HASH, CUDASIM_IS_CHECKED, __ehdr_start, _end}); } } cudasim_library;\n");
    for (name, bound) in found {
        let _ = writeln!(unit, "CUDASIM_REGISTER({name}, ({bound}))");
    }
    let path = library.with_extension("cpp");
    std::fs::write(&path, unit).map_err(|e| e.to_string())?;
    let mut command = Command::new(&cxx);
    begin(&mut command);
    // At level 2 they take twice as long to compile and run no faster.
    command.arg("-O1");
    if checked {
        command.args(CHECKED);
    }
    command.arg(format!("-DCUDASIM_SOURCE_HASH={hash:#x}ull")).arg(format!("-DCUDASIM_IS_CHECKED={}", u8::from(checked)));
    // The link with libtsan and libubsan is not asked for: the driver defines what the compiler calls.
    let object = library.with_extension("o");
    run(command.arg("-c").arg("-o").arg(&object).arg(&path))?;
    run(Command::new(&cxx).args(["-shared", "-o"]).arg(library).arg(&object).arg(driver.join("libcuda.so.1")))?;
    Ok(())
}

/// FNV-1a, 64 bits, over the kernel files in the order of their names: of each its name, then its content. The library's build script
/// (kernels/build.rs) says the same of the source that it embeds.
pub fn source_hash(folder: &Path) -> Result<u64, String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|e| e == "cu" || e == "cuh") {
            let content = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            files.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), content));
        }
    }
    files.sort();
    let bytes = files.iter().flat_map(|(name, content)| name.bytes().chain(content.iter().copied()));
    Ok(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

/// Entry points of a preprocessed source, with the first argument of their __launch_bounds__ (else CUDA's 1024).
pub fn entries(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for after in text.split("__global__").skip(1) {
        let mut rest = after.trim_start();
        let mut bound = "1024".to_owned();
        // `void` and __launch_bounds__(…) in either order, then the name.
        loop {
            if let Some(more) = rest.strip_prefix("__launch_bounds__") {
                let (inside, behind) = parenthesised(more.trim_start());
                bound = first_argument(inside).to_owned();
                rest = behind.trim_start();
            } else if let Some(more) = rest.strip_prefix("void").filter(|m| m.starts_with(char::is_whitespace)) {
                rest = more.trim_start();
            } else {
                break;
            }
        }
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let (_, behind) = parenthesised(rest[name.len()..].trim_start());
        // A declaration is not the kernel.
        if !name.is_empty() && behind.trim_start().starts_with('{') && !found.iter().any(|f| f.0 == name) {
            found.push((name, bound));
        }
    }
    found
}

/// The text inside the parentheses with which `text` begins, and the text behind them.
fn parenthesised(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            return if i == 0 { ("", text) } else { (&text[1..i], &text[i + 1..]) };
        }
    }
    ("", "")
}

fn first_argument(list: &str) -> &str {
    let mut depth = 0;
    for (i, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return list[..i].trim(),
            _ => (),
        }
    }
    list.trim()
}

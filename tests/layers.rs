//! The architecture, held to the sources: which layer may name which, where the ABI and CUDA live, that unsafe blocks say why.
use std::path::{Path, PathBuf};

/// A line of code with comments and the contents of strings taken out, and the line as it stands.
struct Line {
    code: String,
    whole: String,
}

/// Splits Rust text into lines of code: comments, and (for `code`) string contents, become blanks.
fn lines(text: &str) -> Vec<Line> {
    let (mut code, mut rest) = (String::new(), text.chars().peekable());
    let mut depth = 0;
    let mut before = ' ';
    while let Some(c) = rest.next() {
        let next = rest.peek().copied().unwrap_or(' ');
        let raw = !(before.is_alphanumeric() || before == '_') && c == 'r' && (next == '"' || next == '#');
        before = c;
        match (depth, c, next) {
            (0, '/', '/') => {
                while rest.peek().is_some_and(|c| *c != '\n') {
                    rest.next();
                }
            }
            (_, '/', '*') => {
                rest.next();
                depth += 1;
            }
            (1.., '*', '/') => {
                rest.next();
                depth -= 1;
            }
            (1.., '\n', _) => code.push('\n'),
            (1.., ..) => (),
            (0, 'r', _) if raw => {
                let mut hashes = 0;
                while rest.peek() == Some(&'#') {
                    rest.next();
                    hashes += 1;
                }
                if rest.next() != Some('"') {
                    continue;
                }
                let end = format!("\"{}", "#".repeat(hashes));
                let mut content = String::new();
                while let Some(c) = rest.next() {
                    content.push(c);
                    if content.ends_with(&end) {
                        break;
                    }
                }
                code.push_str(&"\n".repeat(content.matches('\n').count()));
            }
            (0, '"', _) => {
                code.push('"');
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => {
                            if rest.next() == Some('\n') {
                                code.push('\n');
                            }
                        }
                        '"' => break,
                        '\n' => code.push('\n'),
                        _ => (),
                    }
                }
                code.push('"');
            }
            // '"' and '\'' as characters; a lifetime has no closing quote two or three further on.
            (0, '\'', '"') | (0, '\'', '\\') => {
                for c in rest.by_ref().skip(usize::from(next == '\\') + 1) {
                    if c == '\'' {
                        break;
                    }
                }
            }
            _ => code.push(c),
        }
    }
    code.lines().chain(std::iter::repeat("")).zip(text.lines()).map(|(c, w)| Line { code: c.to_string(), whole: w.to_string() }).collect()
}

/// Layers of `src` that a layer may name (`crate::<layer>`), itself excepted.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("abi", &["check", "plan", "backend", "model", "numerics", "error"]),
    ("check", &["abi", "model", "error"]),
    ("plan", &["model", "numerics", "error"]),
    ("backend", &["plan", "model", "numerics", "error"]),
    ("model", &["numerics", "error"]),
    ("numerics", &["error"]),
    ("error", &[]),
];

/// What `check` may name of `abi`: structs, numbers, statuses, the reading of growing structs, the refusal of declared settings.
const CHECK_OF_ABI: &[&str] = &["types", "constants", "status", "structs", "config"];

/// Names after `crate::` in a line, `use crate::{a, b}` opened up.
fn named(code: &str) -> Vec<(String, String)> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let after = |text: &str| {
        let layer = word(text);
        let inner = text[layer.len()..].strip_prefix("::").map(word).unwrap_or_default();
        (layer, inner)
    };
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + 7..];
        match rest.strip_prefix('{') {
            Some(list) => {
                found.extend(list.split('}').next().unwrap_or(list).split(',').map(str::trim).filter(|p| !p.is_empty()).map(after))
            }
            None => found.push(after(rest)),
        }
    }
    found
}

const PRESET_NAMES: &[&str] = &[
    "\"pass\"", "\"grpo_process\"", "\"grpo_pooled\"", "\"verl.", "\"trl.", "\"openrlhf.", "\"nemo_rl.", "\"slime.", "\"miles.", "\"areal.", "\"roll.",
    "\"megatron.", "\"deepspeed_chat.", "\"skyrl.", "\"ms_swift.", "\"torchrl.", "\"prime_rl.", "\"rllm.", "\"atropos.", "\"verl_agent.",
];

/// Everything wrong with one file, as sentences. `path` is relative to the repository.
fn wrong(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let layer = inside.split('/').next().unwrap_or("").trim_end_matches(".rs");
    let lines = lines(text);
    if lines.len() >= 500 {
        found.push(format!("{path}: {} lines; split it below 500", lines.len()));
    }
    if !path.starts_with("src/") {
        return found;
    }
    // Unit tests stand last in a file.
    let tests = lines.iter().position(|l| l.code.trim() == "#[cfg(test)]").unwrap_or(lines.len());
    for (i, line) in lines.iter().enumerate() {
        let mut say = |what: &str| found.push(format!("{path}:{}: {what}: {}", i + 1, line.whole.trim()));
        let code = line.code.as_str();
        if layer != "abi" && line.whole.contains("extern \"C\"") && code.contains("extern \"") && code.contains("fn ") {
            say("extern \"C\" outside src/abi");
        }
        if !path.starts_with("src/backend/cuda/") && code.contains("cudarc") {
            say("cudarc outside src/backend/cuda");
        }
        if let Some((_, may)) = MAY_NAME.iter().find(|row| row.0 == layer) {
            // A list of names may run over several lines.
            let more = if code.contains("crate::{") && !code.contains('}') { 20 } else { 1 };
            let joined: String = lines[i..].iter().take(more).map(|l| l.code.as_str()).collect();
            for (target, inner) in named(&joined) {
                let known = MAY_NAME.iter().any(|row| row.0 == target);
                if known && target != layer && !may.contains(&target.as_str()) {
                    say(&format!("{layer} names crate::{target}"));
                }
                if layer == "check" && target == "abi" && !CHECK_OF_ABI.contains(&inner.as_str()) {
                    say(&format!("check names crate::abi::{inner}"));
                }
            }
        }
        if path != "src/model/presets/table.rs" && i < tests {
            let quoted = line.whole.split("//").next().unwrap_or("");
            if code.contains('"') && PRESET_NAMES.iter().any(|name| quoted.contains(name)) {
                say("a preset's name outside src/model/presets/table.rs");
            }
        }
        let block = ["unsafe {", "unsafe impl"].iter().any(|word| code.contains(word));
        let said = |line: &Line| line.whole.contains("SAFETY");
        if block && !lines[i.saturating_sub(3)..=i].iter().any(said) {
            say("unsafe without a SAFETY line within three lines above");
        }
    }
    found
}

fn files(folder: &Path, endings: &[&str], into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|e| e.expect("an entry").path()) {
        if path.is_dir() {
            files(&path, endings, into);
        } else if path.extension().is_some_and(|e| endings.iter().any(|x| e == *x)) {
            into.push(path);
        }
    }
}

#[test]
fn sources_keep_the_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in ["src", "kernels", "include", "tests", "bindings", "benches", "examples"] {
        files(&root.join(folder), &["rs", "c", "h", "hpp", "cu", "cuh", "cpp", "py"], &mut all);
    }
    assert!(all.len() > 50, "{} files found", all.len());
    let mut found = Vec::new();
    for path in all {
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        // The generated header is one text, however long. What builds leave beside the bindings is not source.
        if name == "include/passrl.h" || name.contains("/build/") || name.contains("/target/") || name.contains("/.venv/") {
            continue;
        }
        found.extend(wrong(&name, &std::fs::read_to_string(&path).expect("text")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Each rule is broken once; the checker must see it, and nothing in the same text put right.
#[test]
fn the_checker_sees_each_breach() {
    let breaches: &[(&str, &str, &str)] = &[
        ("src/backend/cpu/x.rs", "pub extern \"C\" fn f() {}", "extern \"C\" outside"),
        ("src/plan/x.rs", "use cudarc::driver::sys;", "cudarc outside"),
        ("src/check/x.rs", "use crate::plan::Plan;", "check names crate::plan"),
        ("src/check/x.rs", "use crate::{error::Result, backend};", "check names crate::backend"),
        ("src/check/x.rs", "let g = crate::abi::guard;", "check names crate::abi::guard"),
        ("src/check/x.rs", "use crate::{\n    error::Result,\n    backend,\n};", "check names crate::backend"),
        ("src/plan/x.rs", "fn f() { crate::backend::run(); }", "plan names crate::backend"),
        ("src/plan/x.rs", "use crate::abi::types::passrl_view;", "plan names crate::abi"),
        ("src/plan/x.rs", "use crate::check;", "plan names crate::check"),
        ("src/backend/x.rs", "use crate::abi;", "backend names crate::abi"),
        ("src/backend/x.rs", "use crate::check::view;", "backend names crate::check"),
        ("src/numerics/x.rs", "use crate::model::array::Array;", "numerics names crate::model"),
        ("src/model/x.rs", "use crate::plan::Plan;", "model names crate::plan"),
        ("src/error.rs", "use crate::model::flags;", "error names crate::model"),
        ("src/plan/x.rs", "if name == \"grpo_pooled\" {}", "a preset's name"),
        ("src/model/presets.rs", "let p = c\"verl.grpo\";", "a preset's name"),
        ("src/plan/x.rs", "let x = unsafe { *p };", "unsafe without"),
        ("src/plan/x.rs", "// SAFETY: too far away.\n\n\n\nlet x = unsafe { *p };", "unsafe without"),
        ("src/plan/x.rs", "unsafe impl Send for T {}", "unsafe without"),
    ];
    for (path, text, says) in breaches {
        let found = wrong(path, text);
        assert!(found.len() == 1 && found[0].contains(says), "{path}: {text}\nfound {found:?}");
    }
    assert!(wrong("src/plan/x.rs", &"\n".repeat(500)).len() == 1);
    assert!(wrong("tests/x.rs", &"\n".repeat(500)).len() == 1);
    let clean: &[(&str, &str)] = &[
        ("src/abi/x.rs", "pub extern \"C\" fn f() {}\nuse crate::{backend, check};"),
        ("src/plan/x.rs", "// crate::backend runs it; the preset \"pass\".\n/* use crate::abi; */\nlet s = \"crate::check\";"),
        ("src/plan/x.rs", "// SAFETY: known.\nlet x = unsafe { *p };"),
        ("src/backend/cuda/x.rs", "use cudarc::driver::sys;"),
        ("src/model/presets/table.rs", "const NAME: &CStr = c\"pass\";"),
        ("src/model/x.rs", "let c = '\"'; let d = '\\''; // cudarc\nlet raw = r#\"crate::plan \"quoted\" \"#;"),
        ("tests/x.rs", "use passrl::backend; let p = \"pass\"; unsafe { f() }"),
    ];
    for (path, text) in clean {
        assert!(wrong(path, text).is_empty(), "{text}\nfound {:?}", wrong(path, text));
    }
}

//! What a run on CUDA costs, counted by the simulated driver's checked build: launches, memory traffic, bank conflicts, balance over warps; and with
//! PASSRL_BUDGETS=all (`make budgets`) what nvcc's report says of the kernels, all of it written to target/budgets.json.
//!
//! Each row has a budget or is only stated. tests/budgets/recorded.txt holds what each row is allowed: the budget where it is met, else the number that was
//! measured, so that no row gets worse in silence. `BLESS=1 make budgets` writes it again.
#[path = "budgets/compiler.rs"]
mod compiler;
#[path = "budgets/workload.rs"]
mod workload;


use harness::device;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use testkit::harness;
use workload::{Case, Input, Random, Standing};

/// A number, what it is of, and the most that it should be (`None`: it is stated alone).
#[derive(Clone, Debug)]
pub struct Row {
    pub case: String,
    pub what: String,
    pub value: f64,
    pub budget: Option<f64>,
    pub unit: &'static str,
}

impl Row {
    pub fn new(case: &str, what: &str, value: f64, budget: Option<f64>, unit: &'static str) -> Row {
        Row { case: case.to_owned(), what: what.to_owned(), value: (value * 1000.0).round() / 1000.0, budget, unit }
    }
    fn met(&self) -> Option<bool> {
        self.budget.map(|budget| self.value <= budget)
    }
    fn key(&self) -> String {
        format!("{} | {}", self.case, self.what)
    }
    /// What the recorded file allows: the budget where it is met, else what was measured and 2% (compilers differ in what they keep in registers).
    fn allowed(&self) -> f64 {
        match (self.budget, self.met()) {
            (Some(budget), Some(true)) => budget,
            _ => (self.value * 1020.0).ceil() / 1000.0,
        }
    }
}

/// Of the rows that `make budgets` alone measures: those of the compiler, and long batches.
fn is_of_the_whole(key: &str) -> bool {
    key.starts_with("nvcc") || key.contains(", one rollout of ")
}

/// Rows that are above what is recorded, not recorded, or recorded and not measured. `whole`: all rows were to be measured.
fn broken(rows: &[Row], recorded: &str, whole: bool) -> Vec<String> {
    let line = |line: &str| line.rsplit_once(" | ").and_then(|(key, allowed)| Some((key.to_owned(), allowed.trim().parse::<f64>().ok()?)));
    let allowed: BTreeMap<String, f64> = recorded.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).filter_map(line).collect();
    let mut found = Vec::new();
    for row in rows {
        match allowed.get(&row.key()) {
            Some(most) if row.value <= *most => (),
            Some(most) => found.push(format!("{}: {} {}, recorded at most {most}", row.key(), row.value, row.unit)),
            // A long batch or an architecture of which nothing is recorded yet: the table has it.
            None if is_of_the_whole(&row.key()) => (),
            None => found.push(format!("{}: {} {}, of which nothing is recorded", row.key(), row.value, row.unit)),
        }
    }
    let measured: Vec<String> = rows.iter().map(Row::key).collect();
    let missing = allowed.keys().filter(|key| !measured.contains(key) && (whole || !is_of_the_whole(key)));
    found.extend(missing.map(|key| format!("{key}: recorded and not measured")));
    found
}

/// Two groups of 8 rollouts of some 2,500 tokens, as long as the paper's.
fn case(input: Input, padded: bool, narrow: bool) -> Case {
    let random = &mut Random(3);
    let lengths = (0..16).map(|_| 2000 + random.below(1000) as usize).collect();
    Case { input, padded, narrow, scattered: false, whiten: false, few: false, lengths, group_size: 8 }
}

fn budget_of_bytes(case: &Case) -> Option<f64> {
    let f32_alone = match case.input {
        Input::Dense => 12.5,
        // (Where groups are few, what is shared between two kernels costs more: stated alone.)
        Input::Steps if case.few => return None,
        Input::Steps => 4.3,
        Input::Kl => 17.0,
        Input::Gae => 16.5,
    };
    (!case.narrow).then_some(f32_alone)
}

fn budget_of_kernels(case: &Case) -> f64 {
    let scattered = if case.scattered { 1.0 } else { 0.0 };
    let kernels = match case.input {
        Input::Dense | Input::Steps => 2.0 + scattered,
        Input::Kl => 3.0 + scattered,
        Input::Gae => 1.0,
    };
    kernels + if case.whiten { 2.0 } else { 0.0 }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 1.0 } else { a as f64 / b as f64 }
}

/// Counts of one case's run.
fn measure(case: &Case, balance: bool) -> Vec<Row> {
    let (standing, name) = (Standing::new(case), case.name());
    let trace = standing.run();
    let chunks = standing.check();
    let all = cudasim::stats(None);
    let kernels = cudasim::launched();
    let of = |name: &str| cudasim::stats(Some(name));
    let count = |name: &str| trace.iter().filter(|call| call.starts_with(name)).count() as f64;
    if balance {
        let name = format!("{name}, one rollout of {} among {} of {}", case.lengths[0], case.lengths.len() - 1, case.lengths[1]);
        let (mut longest, mut mean, mut rows) = (0.0, 0.0, Vec::new());
        for kernel in &kernels {
            let s = of(kernel);
            longest += s.longest_warp as f64;
            mean += s.warp_requests as f64 / s.warps as f64;
            rows.push(Row::new(&name, &format!("accesses of the longest warp in {kernel}"), s.longest_warp as f64, None, "requests"));
            rows.push(Row::new(&name, &format!("accesses of a warp in {kernel}"), s.warp_requests as f64 / s.warps as f64, None, "requests"));
        }
        rows.push(Row::new(&name, "longest warp over mean", longest / mean, Some(4.0), "times"));
        return rows;
    }
    let mut rows = vec![
        Row::new(&name, "kernels", count("cuLaunchKernel"), Some(budget_of_kernels(case)), "launches"),
        Row::new(&name, "memsets", count("cuMemset"), Some(1.0), "nodes"),
    ];
    let plain = |call: &&String| ["cuCtxPushCurrent_v2", "cuLaunchKernel", "cuMemsetD8Async", "cuCtxPopCurrent_v2"].contains(&call.as_str());
    let others = trace.iter().filter(|call| !plain(call)).count();
    rows.push(Row::new(&name, "host calls other than push, memset, launches, pop", others as f64, Some(0.0), "calls"));
    if case.scattered || case.whiten {
        return rows;
    }
    // The zeros of slots that no rollout has are the caller's wish: they are no token's.
    let outputs = if case.input == Input::Gae { 2 } else { 1 };
    let padding = (outputs * case.element() * (case.slots() - case.tokens())) as u64;
    // KL, in a row of its own: the table of positions (what is set to zero, and all that passrl_sums does but reading the signal) and that of n^-k (8 bytes a chunk).
    let signal = (case.element() * case.tokens()) as u64;
    let tables = if case.input == Input::Kl { all.memset_bytes + bytes(&of("passrl_sums")) - signal + 8 * chunks } else { 0 };
    let a_token = |bytes: u64| bytes as f64 / case.tokens() as f64;
    let own = bytes(&all) + all.memset_bytes - padding - tables;
    rows.push(Row::new(&name, "global bytes a token", a_token(own), budget_of_bytes(case), "bytes"));
    if case.input == Input::Kl {
        rows.push(Row::new(&name, "bytes a token of tables", a_token(tables), None, "bytes"));
    }
    let sectors = all.read_sectors + all.write_sectors + all.atomic_sectors;
    rows.push(Row::new(&name, "sectors over the ideal", ratio(sectors, all.read_ideal + all.write_ideal + all.atomic_ideal), Some(1.1), "times"));
    rows.push(Row::new(&name, "shared wavefronts a request", ratio(all.shared_wavefronts, all.shared_requests), Some(1.1), "times"));
    for kernel in &kernels {
        rows.push(Row::new(&name, &format!("global bytes a token in {kernel}"), a_token(bytes(&of(kernel))), None, "bytes"));
    }
    rows
}

fn bytes(s: &cudasim::Stats) -> u64 {
    s.read_bytes + s.write_bytes + s.atomic_bytes
}

/// Rows of the counters, of all cases.
fn measured(whole: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    // PASSRL_BUDGETS_OF: the cases alone whose names hold it, as beside CUDASIM_PROFILE ("f32, one rollout of many tokens": the long batch).
    let asked = std::env::var("PASSRL_BUDGETS_OF").unwrap_or_default();
    let mut add = |case: &Case, balance: bool| {
        let long = if balance { ", one rollout of many tokens" } else { "" };
        if (case.name() + long).contains(&asked) {
            let more = measure(case, balance);
            print!("{}", table(&more));
            rows.extend(more);
        }
    };
    for input in [Input::Dense, Input::Steps, Input::Kl, Input::Gae] {
        for (padded, narrow) in [(false, false), (true, false), (false, true), (true, true)] {
            add(&case(input, padded, narrow), false);
        }
    }
    for padded in [false, true] {
        add(&Case { few: true, ..case(Input::Steps, padded, false) }, false);
    }
    let short = |input, scattered, whiten| Case { scattered, whiten, lengths: vec![40; 16], ..case(input, false, false) };
    for case in [short(Input::Dense, true, false), short(Input::Dense, false, true), short(Input::Kl, true, false)] {
        add(&case, false);
    }
    let long = |input| {
        let mut lengths = vec![512; 1025];
        lengths[0] = 131_072;
        Case { lengths, group_size: 5, ..case(input, false, false) }
    };
    for input in [Input::Dense, Input::Steps, Input::Kl, Input::Gae].into_iter().filter(|_| whole) {
        add(&long(input), true);
    }
    let report = cudasim::report();
    assert!(report.is_empty(), "the simulated driver reports:\n{report}");
    rows
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let budget = row.budget.map_or("-".to_owned(), |budget| budget.to_string());
        let met = row.met().map_or("stated", |met| if met { "met" } else { "NOT MET" });
        let _ = writeln!(text, "{:<62} {:<52} {:>10} {:>7} {:<12} {met}", row.case, row.what, row.value, budget, row.unit);
    }
    text
}

fn json(rows: &[Row]) -> String {
    let lines: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| serde_json::json!({"case": row.case, "what": row.what, "value": row.value, "budget": row.budget, "unit": row.unit, "met": row.met()}))
        .collect();
    serde_json::to_string_pretty(&lines).expect("plain values") + "\n"
}

#[test]
fn budgets_are_held() {
    if let Err(why) = cudasim::folder() {
        return println!("SKIPPED: budgets of the CUDA kernels: {why}");
    }
    let _lock = cudasim::lock();
    // SAFETY: no other thread of this program reads the environment here, and the driver, which does, is not loaded yet.
    unsafe {
        std::env::set_var("CUDASIM_CHECKED", "1");
        std::env::set_var("CUDASIM_TIMEOUT", "3600");
    }
    match device::driver() {
        Ok(driver) => driver.use_device(),
        Err(why) => return println!("SKIPPED: budgets of the CUDA kernels: {why}"),
    };
    assert!(cudasim::checked(), "the checked build counts");
    let whole = std::env::var("PASSRL_BUDGETS").is_ok_and(|asked| asked == "all");
    let mut rows = measured(whole);
    let counted = rows.len();
    let mut unmeasured = None;
    if whole {
        match compiler::rows() {
            Ok(more) => rows.extend(more),
            Err(why) => unmeasured = Some(why),
        }
    }
    print!("{}", table(&rows[counted..]));
    let over: Vec<&Row> = rows.iter().filter(|row| row.met() == Some(false)).collect();
    println!("{} rows, {} with a budget, {} over theirs:", rows.len(), rows.iter().filter(|row| row.budget.is_some()).count(), over.len());
    for row in over {
        println!("  {}: {} {} (budget {})", row.key(), row.value, row.unit, row.budget.unwrap_or_default());
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/budgets/recorded.txt");
    let recorded = std::fs::read_to_string(&file).unwrap_or_default();
    if whole {
        match &unmeasured {
            Some(why) => println!("NOT MEASURED: registers, spills and f64 instructions: {why}"),
            None => println!("compiled by nvcc for {}", compiler::architectures().iter().map(|arch| format!("sm_{arch}")).collect::<Vec<_>>().join(", ")),
        }
        let at = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/budgets.json");
        std::fs::write(&at, json(&rows)).expect("target is writable");
        println!("written: {}", at.display());
    }
    if std::env::var_os("BLESS").is_some() {
        let mut lines: Vec<String> = rows.iter().map(|row| format!("{} | {}", row.key(), row.allowed())).collect();
        // What was not measured this time stays.
        let measured = |line: &str| rows.iter().any(|row| line.starts_with(&format!("{} | ", row.key())));
        lines.extend(recorded.lines().filter(|line| is_of_the_whole(line) && !measured(line)).map(str::to_owned));
        let head = "# case | what | the most that is allowed: the budget where it is met, else what was measured and 2% (`BLESS=1 make budgets` writes this)\n";
        std::fs::write(&file, format!("{head}{}\n", lines.join("\n"))).expect("the repository is writable");
        return;
    }
    // Without nvcc, or of some architectures alone, the compiler's rows are not all there.
    let partly = unmeasured.is_some() || std::env::var_os("PASSRL_ARCHITECTURES").is_some();
    let broken = broken(&rows, &recorded, whole && !partly);
    assert!(broken.is_empty(), "costs of the CUDA kernels are not what tests/budgets/recorded.txt allows:\n{}", broken.join("\n"));
}

#[test]
fn what_is_above_its_record_or_has_none_is_named() {
    let row = |what: &str, value: f64, budget: f64| Row::new("dense", what, value, Some(budget), "bytes");
    let (met, over) = (row("a", 8.0, 12.5), row("b", 20.0, 12.5));
    assert_eq!((met.allowed(), over.allowed()), (12.5, 20.4));
    let recorded = "# text\ndense | a | 12.5\ndense | b | 20.4\nnvcc, sm_80 | registers | 64\n";
    let rows = |a: f64, b: f64| vec![row("a", a, 12.5), row("b", b, 12.5)];
    assert_eq!(broken(&rows(12.5, 20.3), recorded, false), [] as [&str; 0]);
    assert_eq!(broken(&rows(12.6, 20.3), recorded, false).len(), 1);
    assert_eq!(broken(&rows(12.5, 20.5), recorded, false).len(), 1);
    assert_eq!(broken(&rows(1.0, 1.0), recorded, true).len(), 1, "the compiler's row is missing");
    assert_eq!(broken(&[met.clone(), over, row("c", 1.0, 2.0)], recorded, false).len(), 1, "nothing is recorded of c");
    assert_eq!(broken(&[met], recorded, false).len(), 1, "b is not measured");
}

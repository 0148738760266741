//! The table of results, the rows of the README, the rows over their targets; `summary.json`; the record, one CSV a machine and day.
use super::machine;
use super::row::Row;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

pub fn text(rows: &[Row], load: &str) -> String {
    let mut text = format!("{}, {}, passrl {} at {}, load {load} at the begin\n", machine::name(), machine::today(), version(), machine::commit());
    text += "MB: inputs that must be read (valid tokens) + outputs written (every slot). floor: as many bytes copied (written, where nothing token-sized is\n";
    text += "read) by as many threads, with plain or non-temporal stores, the faster, timed before each call; of `long` the share of the tokens. error: of\n";
    text += "the group's largest |A|, against an f64 loop. cold: 600 MB swept before each call.\n\n";
    let _ = writeln!(
        text,
        "{:<6} {:<21} {:<5} {:>2} {:<5} {:>8} {:>10} {:>10} {:>7} {:>10} {:>7} {:>7} {:>8}",
        "size", "case", "type", "th", "cache", "MB", "ms", "best ms", "GB/s", "floor ms", "x", "target", "error"
    );
    for row in rows {
        let (size, name, dtype, threads, cache) = (row.size, &row.name, row.dtype, row.threads, row.cache);
        let (mb, ms, best, rate) = (row.bytes as f64 / 1e6, row.call * 1e3, row.best * 1e3, row.bytes as f64 / 1e9 / row.call);
        let number = |value: f64, digits: usize| if value.is_finite() { format!("{value:.digits$}") } else { String::new() };
        let (floor, times) = (number(row.floor * 1e3, 4), number(row.ratio(), 2));
        // Of what has no floor the target is in ms.
        let target = row.target.map_or(String::new(), |t| if row.floor.is_finite() { number(t / row.floor, 2) } else { number(t * 1e3, 3) });
        let over = if row.over() { " over" } else { "" };
        let _ = writeln!(
            text,
            "{size:<6} {name:<21} {dtype:<5} {threads:>2} {cache:<5} {mb:>8.1} {ms:>10.4} {best:>10.4} {rate:>7.2} {floor:>10} {times:>7} {target:>7} {:>8.0e}{over}",
            row.error
        );
    }
    text
}

/// The size `paper` in the form of the README's table.
pub fn markdown(rows: &[Row]) -> String {
    let of = |name: &str, dtype: &str, threads: usize, cache: &str| {
        let found = rows.iter().find(|r| r.size == "paper" && (r.name.as_str(), r.dtype, r.threads, r.cache) == (name, dtype, threads, cache));
        found.map_or("– | –".to_owned(), |row| format!("{:.2} | {:.1}", row.call * 1e3, row.ratio()))
    };
    let mut text = String::from(
        "| paper | 1 thread, ms | × floor | 2 threads, ms | × floor | cold, 2 threads, ms | × floor | bf16, 2 threads, ms | × floor |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut names: Vec<&str> = rows.iter().filter(|row| row.size == "paper").map(|row| row.name.as_str()).collect();
    names.dedup();
    for name in &names {
        let cells = [of(name, "f32", 1, "warm"), of(name, "f32", 2, "warm"), of(name, "f32", 2, "cold"), of(name, "bf16", 2, "warm")];
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    if names.is_empty() { String::new() } else { text }
}

/// How much faster two threads are than one, and a copy's two threads than its one, where the batch is more than a cache holds.
pub fn scaling(rows: &[Row]) -> String {
    let mut text = String::new();
    for two in rows.iter().filter(|row| row.threads == 2 && row.dtype == "f32" && ["paper", "large"].contains(&row.size)) {
        let same = |row: &&Row| (&row.name, row.size, row.dtype, row.cache, row.threads) == (&two.name, two.size, two.dtype, two.cache, 1);
        if let Some(one) = rows.iter().find(same) {
            let (call, floor) = (one.call / two.call, one.floor / two.floor);
            let _ = writeln!(text, "  {}: {}, {}: {call:.2} times (the floor: {floor:.2})", two.size, two.name, two.cache);
        }
    }
    if text.is_empty() { text } else { format!("Two threads against one, f32:\n{text}") }
}

/// Names the rows over their targets.
pub fn over(rows: &[Row]) -> String {
    let aimed = rows.iter().filter(|row| row.target.is_some()).count();
    let over: Vec<&Row> = rows.iter().filter(|row| row.over()).collect();
    let mut text = format!("{} of {aimed} rows with a target are over it{}\n", over.len(), if over.is_empty() { "" } else { ":" });
    for row in over {
        let target = row.target.expect("over it");
        let _ = writeln!(text, "  {}: {:.4} ms, target {:.4} ms, {:.2} x", row.label(), row.call * 1e3, target * 1e3, row.call / target);
    }
    text
}

/// Writes `target/bench/<name>.json`: a list of rows, `target` as a multiple of the floor.
pub fn json(rows: &[Row], name: &str) -> std::io::Result<String> {
    let number = |value: f64| if value.is_finite() { json!(value) } else { Value::Null };
    let list: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name, "size": row.size, "dtype": row.dtype, "threads": row.threads, "cache": row.cache,
                "ms": row.call * 1e3, "floor_ms": number(row.floor * 1e3), "ratio": number(row.ratio()),
                "target": row.target.map_or(Value::Null, |t| number(t / row.floor)), "bytes": row.bytes,
                "target_ms": row.target.map_or(Value::Null, |t| number(t * 1e3)), "best_ms": row.best * 1e3, "tokens": row.tokens,
                "floor": row.floor_kind, "error": row.error,
            })
        })
        .collect();
    let folder = folder("target/bench")?;
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_string_pretty(&list)? + "\n")?;
    Ok(path.display().to_string())
}

/// Writes `benches/record/<machine>/<date>.csv`.
pub fn record(rows: &[Row], load: &str) -> std::io::Result<String> {
    let mut text = String::from(
        "machine,date,commit,load,version,size,case,dtype,threads,cache,tokens,bytes,ms,best_ms,gb_per_s,floor,floor_ms,times_floor,target_ms\n",
    );
    let machine = machine::name().replace(',', ";");
    let (today, commit) = (machine::today(), machine::commit());
    for row in rows {
        let _ = writeln!(
            text,
            "{machine},{today},{commit},{load},{},{},{},{},{},{},{},{},{:.5},{:.5},{:.3},{},{:.5},{:.3},{}",
            version(),
            row.size,
            row.name,
            row.dtype,
            row.threads,
            row.cache,
            row.tokens,
            row.bytes,
            row.call * 1e3,
            row.best * 1e3,
            row.bytes as f64 / 1e9 / row.call,
            row.floor_kind,
            row.floor * 1e3,
            row.ratio(),
            row.target.map_or(String::new(), |t| format!("{:.5}", t * 1e3))
        );
    }
    let path = folder(&format!("benches/record/{}", machine::slug()))?.join(format!("{today}.csv"));
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn folder(name: &str) -> std::io::Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

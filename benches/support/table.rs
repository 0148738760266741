//! The table of results, and its record: one CSV a machine and day.
use std::fmt::Write as _;

pub struct Row {
    pub size: &'static str,
    pub case: &'static str,
    pub threads: usize,
    pub tokens: usize,
    pub bytes: usize,
    /// Medians, in seconds.
    pub call: f64,
    /// The fastest call: what a shared machine disturbs least.
    pub best: f64,
    pub copy: f64,
    pub copy_kind: &'static str,
    pub error: f64,
}

pub fn text(rows: &[Row], load: &str) -> String {
    let mut text = format!("{}, {}, passrl {}, load {load} at the begin\n", machine(), today(), env!("CARGO_PKG_VERSION"));
    text += "Warm medians. MB: inputs read (valid tokens) + outputs written (every slot). copy: as many bytes, as many threads,\n";
    text += "the better of memcpy and non-temporal stores, timed in turn with the call. error: against an f64 loop, of the group's largest |A|.\n\n";
    let _ = writeln!(
        text,
        "{:<6} {:<14} {:>7} {:>9} {:>8} {:>9} {:>9} {:>7} {:>10} {:>7} {:>8}",
        "size", "input", "threads", "Mtokens", "MB", "ms", "best ms", "GB/s", "copy GB/s", "x copy", "error"
    );
    for row in rows {
        let (mb, rate) = (row.bytes as f64 / 1e6, row.bytes as f64 / 1e9);
        let _ = writeln!(
            text,
            "{:<6} {:<14} {:>7} {:>9.2} {:>8.1} {:>9.3} {:>9.3} {:>7.2} {:>10.2} {:>7.2} {:>8.0e}",
            row.size,
            row.case,
            row.threads,
            row.tokens as f64 / 1e6,
            mb,
            row.call * 1e3,
            row.best * 1e3,
            rate / row.call,
            rate / row.copy,
            row.call / row.copy,
            row.error
        );
    }
    text
}

/// Writes `benches/record/<machine>/<date>.csv`.
pub fn record(rows: &[Row], load: &str) -> std::io::Result<String> {
    let slug: String = machine().to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug: Vec<&str> = slug.split('-').filter(|part| !part.is_empty()).collect();
    let folder = format!("{}/benches/record/{}", env!("CARGO_MANIFEST_DIR"), slug.join("-"));
    std::fs::create_dir_all(&folder)?;
    let mut text =
        String::from("machine,date,load,version,size,input,threads,tokens,bytes,ms,best_ms,gb_per_s,copy,copy_gb_per_s,times_copy\n");
    for row in rows {
        let rate = row.bytes as f64 / 1e9;
        let _ = writeln!(
            text,
            "{},{},{load},{},{},{},{},{},{},{:.4},{:.4},{:.3},{},{:.3},{:.3}",
            machine().replace(',', ";"),
            today(),
            env!("CARGO_PKG_VERSION"),
            row.size,
            row.case,
            row.threads,
            row.tokens,
            row.bytes,
            row.call * 1e3,
            row.best * 1e3,
            rate / row.call,
            row.copy_kind,
            rate / row.copy,
            row.call / row.copy
        );
    }
    let path = format!("{folder}/{}.csv", today());
    std::fs::write(&path, text)?;
    Ok(path)
}

/// What the machine was doing in the last minute: above 0.5 the cores were shared and two-thread figures mean little.
pub fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|l| l.split(' ').next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|l| l.strip_prefix("model name")).map_or("unknown processor", |l| l.trim_start_matches([' ', '\t', ':']));
    let widest = info
        .lines()
        .find(|l| l.starts_with("flags"))
        .map_or("", |l| ["avx512f", "avx2", "sse4_2"].into_iter().find(|f| l.split(' ').any(|w| w == *f)).unwrap_or(""));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{name} {widest} {cores} cores")
}

/// YYYY-MM-DD, UTC.
fn today() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    // Days to civil date (Hinnant).
    let days = (seconds / 86_400) as i64 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    format!("{:04}-{month:02}-{day:02}", year_of_era + era * 400 + i64::from(month <= 2))
}

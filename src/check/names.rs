//! Fields, values and presets by name; unknown ones are answered with the nearest.
use crate::abi::status::*;
use crate::abi::types::{passrl_config, passrl_stream};
use crate::error::Result;
use crate::model::config::*;
use crate::model::presets::{PRESETS, Preset, stream_name};
use crate::refuse;
use std::ffi::CStr;
use std::mem::offset_of;

/// Edit distance, to find the name that was meant.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The three nearest names, capital letters taken for small ones.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let name = name.to_lowercase();
    let mut ranked: Vec<(usize, &str)> = names.map(|n| (distance(&name, n), n)).collect();
    ranked.sort();
    ranked.dedup();
    ranked.iter().take(3).map(|(_, n)| *n).collect::<Vec<_>>().join(", ")
}

pub fn preset(name: &str) -> Result<&'static Preset> {
    let text = |p: &'static Preset| p.name.to_str().unwrap_or("");
    match PRESETS.iter().find(|p| text(p) == name) {
        Some(preset) => Ok(preset),
        None => refuse!(PASSRL_ERR_UNKNOWN_NAME, "preset \"{name}\" is unknown; nearest: {}", nearest(name, PRESETS.iter().map(text))),
    }
}

type Setter<T> = fn(&mut T, &str, &str) -> Result<()>;

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
    match value.trim().parse() {
        Ok(number) => Ok(number),
        Err(_) => refuse!(PASSRL_ERR_VALUE, "{key} is \"{value}\"; it must be a number"),
    }
}

fn truth(key: &str, value: &str) -> Result<i32> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(1),
        "0" | "false" | "no" | "off" => Ok(0),
        _ => refuse!(PASSRL_ERR_VALUE, "{key} is \"{value}\"; it must be true or false"),
    }
}

fn chosen<T: Choice>(key: &str, value: &str) -> Result<i32> {
    let value = value.trim();
    match T::ALL.iter().find(|row| row.2 == value) {
        Some(row) => Ok(row.1),
        None => refuse!(PASSRL_ERR_VALUE, "{key} is \"{value}\"; it is one of: {}", nearest_all::<T>(value)),
    }
}

/// All values of a field, nearest first.
fn nearest_all<T: Choice>(value: &str) -> String {
    let value = value.to_lowercase();
    let mut ranked: Vec<(usize, &str)> = T::ALL.iter().map(|row| (distance(&value, row.2), row.2)).collect();
    ranked.sort();
    ranked.iter().map(|(_, n)| *n).collect::<Vec<_>>().join(", ")
}

/// A field as a number that orders as its values do, so that ranks can tell each other the least and the largest.
trait Word: Copy {
    fn word(self) -> i64;
    fn text(word: i64) -> String;
}

impl Word for i32 {
    fn word(self) -> i64 {
        self as i64
    }
    fn text(word: i64) -> String {
        word.to_string()
    }
}

impl Word for f64 {
    fn word(self) -> i64 {
        let bits = self.to_bits() as i64;
        if bits < 0 { bits ^ i64::MAX } else { bits }
    }
    fn text(word: i64) -> String {
        format!("{:?}", f64::from_bits((if word < 0 { word ^ i64::MAX } else { word }) as u64))
    }
}

fn text_like<F: Word>(_: F, word: i64) -> String {
    F::text(word)
}

fn name_of<C: Choice>(word: i64) -> String {
    C::from_number(word as i32).map_or_else(|| word.to_string(), |c| c.name().to_string())
}

struct Field<T> {
    name: &'static str,
    /// The first byte of the struct behind it.
    end: usize,
    set: Setter<T>,
    word: fn(&T) -> i64,
    text: fn(&T, i64) -> String,
}

const fn bytes<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! fields {
    ($T:ty; $($field:ident: $kind:tt $(<$C:ty>)?),* $(,)?) => {
        &[$(Field {
            name: stringify!($field),
            end: offset_of!($T, $field) + bytes(|c: &$T| &c.$field),
            set: |c: &mut $T, key: &str, value: &str| { c.$field = fields!(@ $kind $(<$C>)? key, value); Ok(()) },
            word: |c: &$T| c.$field.word(),
            text: fields!(@@ $kind $(<$C>)? $T, $field),
        }),*]
    };
    (@@ chosen <$C:ty> $T:ty, $field:ident) => { |_: &$T, word| name_of::<$C>(word) };
    (@@ $kind:tt $T:ty, $field:ident) => { |c: &$T, word| text_like(c.$field, word) };
    (@ number $key:ident, $value:ident) => { number($key, $value)? };
    (@ truth $key:ident, $value:ident) => { truth($key, $value)? };
    (@ chosen <$C:ty> $key:ident, $value:ident) => { chosen::<$C>($key, $value)? };
}

const FIELDS: &[Field<passrl_config>] = fields!(passrl_config;
    num_process: number, num_extra: number, kind: chosen<Kind>, pool: chosen<Pool>, fusion: chosen<Fusion>, chunk: chosen<Chunk>,
    boundary_rule: chosen<BoundaryRule>, merge_equal_steps: truth, average_over: chosen<AverageOver>, bridge_scope_gaps: truth,
    chunk_value: chosen<ChunkValue>, credit: chosen<Credit>, divide_scope: chosen<DivideScope>, whiten: chosen<Whiten>,
    whiten_ddof: number, whiten_epsilon_mode: chosen<EpsilonMode>, whiten_shift: truth, fill_padding: truth, strict: truth,
    compat: truth, opd_lambda: number, eta: number, gamma: number, lam: number, k: number, temperature: number,
    whiten_epsilon: number, clip: number, kl_in_reward: chosen<KlInReward>, kl_place: chosen<KlPlace>, scan_mask: chosen<ScanMask>,
    gae_over: chosen<GaeOver>, divide_by: chosen<DivideBy>, step_sets: chosen<StepSets>, step_value: chosen<StepValue>,
    token_baseline: chosen<TokenBaseline>, kl_coef: number,
    kl_log_ratio_clamp: number, kl_clamp: number, lam_returns: number, lam_length_alpha: number, step_gamma: number, rho_clip: number,
    c_clip: number,
);

const STREAM_FIELDS: &[Field<passrl_stream>] = fields!(passrl_stream;
    weight: number, epsilon: number, center: chosen<Center>, scale: chosen<Scale>, ddof: number, epsilon_mode: chosen<EpsilonMode>,
    loo_unit: chosen<LooUnit>, singleton: chosen<Singleton>, missing: chosen<Missing>, place: chosen<Place>,
    zero_variance: chosen<ZeroVariance>, count_by: chosen<CountBy>, clip_value: number, clip_standardized: number,
);

/// What sets a row of the stream table: the key, the first byte of the row behind what it sets, how.
type StreamKey = (&'static str, usize, Setter<passrl_stream>);

/// What a row of the stream table can be set by: its fields, and the shorthand.
fn stream_keys() -> impl Iterator<Item = StreamKey> {
    let shorthand = ("standardize", offset_of!(passrl_stream, scale) + size_of::<i32>(), standardize as Setter<passrl_stream>);
    std::iter::once(shorthand).chain(STREAM_FIELDS.iter().map(|f| (f.name, f.end, f.set)))
}

/// The first byte of a configuration behind what ends at `end` of row `row` of its stream table.
const fn end_of(row: usize, end: usize) -> usize {
    offset_of!(passrl_config, streams) + row * size_of::<passrl_stream>() + end
}

/// What a caller of an older header can do about a field that its configuration does not have.
const RECOMPILE: &str = "the caller was compiled with an older header, which has no such field: recompile with this library's passrl.h";

/// Does the caller's configuration of `size` bytes have every field in which this one differs from the defaults? Fields that it does not have count as the defaults.
pub fn preset_fits(preset: &str, config: &passrl_config, size: usize) -> Result<()> {
    let known = size_of::<passrl_config>();
    if size >= known {
        return Ok(());
    }
    let defaults = crate::abi::config::from_model(&crate::model::presets::DEFAULT.config());
    let fields = FIELDS.iter().map(|f| f.end);
    let rows = (0..MAX_STREAMS).flat_map(|row| STREAM_FIELDS.iter().map(move |f| end_of(row, f.end)));
    for ((index, end), (ours, default)) in fields.chain(rows).enumerate().zip(words(config).into_iter().zip(words(&defaults))) {
        if end > size && ours != default {
            let (name, text) = word_text(config, index);
            return refuse!(
                PASSRL_ERR_STRUCT_SIZE,
                "struct_size is {size}, and preset \"{preset}\" sets {name} = {}, which ends at byte {end} of the {known} of this library's passrl_config; {RECOMPILE}",
                text(ours)
            );
        }
    }
    Ok(())
}

/// Every field of a configuration as a word, in the order of `word_text`.
pub fn words(config: &passrl_config) -> Vec<i64> {
    let rows = config.streams.iter().flat_map(|row| STREAM_FIELDS.iter().map(|f| (f.word)(row)));
    FIELDS.iter().map(|f| (f.word)(config)).chain(rows).collect()
}

/// Name of the field behind word `index`, and a word of it as text.
pub fn word_text(config: &passrl_config, index: usize) -> (String, impl Fn(i64) -> String + '_) {
    let of_stream = index.checked_sub(FIELDS.len()).map(|i| (i / STREAM_FIELDS.len(), &STREAM_FIELDS[i % STREAM_FIELDS.len()]));
    let name = match of_stream {
        None => FIELDS[index].name.to_string(),
        Some((row, field)) => format!("{}.{}", stream_name(row), field.name),
    };
    (name, move |word| match of_stream {
        None => (FIELDS[index].text)(config, word),
        Some((row, field)) => (field.text)(&config.streams[row], word),
    })
}

/// The operators of docs/formulas.md 2.2 are shorthand for (center, scale).
const OPERATORS: &[(&str, Center, Scale)] = &[
    ("mean_std", Center::Group, Scale::Group),
    ("abs_max", Center::None, Scale::AbsMax),
    ("mean", Center::Group, Scale::None),
    ("leave_one_out", Center::LeaveOneOut, Scale::None),
    ("none", Center::None, Scale::None),
];

fn standardize(stream: &mut passrl_stream, key: &str, value: &str) -> Result<()> {
    let value = value.trim();
    match OPERATORS.iter().find(|row| row.0 == value) {
        Some((_, center, scale)) => {
            (stream.center, stream.scale) = (center.number(), scale.number());
            Ok(())
        }
        None => refuse!(PASSRL_ERR_VALUE, "{key} is \"{value}\"; nearest: {}", nearest(value, OPERATORS.iter().map(|row| row.0))),
    }
}

/// Rows of the stream table that a shorthand `base_suffix` or `w_suffix` speaks of.
fn rows(suffix: &str) -> Option<std::ops::Range<usize>> {
    Some(match suffix {
        "process" => 0..MAX_PROCESS,
        "outcome" => OUTCOME..OUTCOME + 1,
        "format" => FORMAT..FORMAT + 1,
        _ => return None,
    })
}

/// Sets what `key` names. The caller's configuration has `config.struct_size` bytes: what lies beyond them could not be kept.
pub fn set(config: &mut passrl_config, key: &str, value: &str) -> Result<()> {
    let (key, size, known) = (key.trim(), config.struct_size as usize, size_of::<passrl_config>());
    let kept = |name: &str, end: usize| match end <= size {
        true => Ok(()),
        false => refuse!(
            PASSRL_ERR_STRUCT_SIZE,
            "config.struct_size is {size}, and {name} ends at byte {end} of the {known} of this library's passrl_config; {RECOMPILE}"
        ),
    };
    if let Some(field) = FIELDS.iter().find(|f| f.name == key) {
        kept(key, field.end)?;
        return (field.set)(config, key, value);
    }
    let stream_field = |name: &str| stream_keys().find(|row| row.0 == name);
    let target = match key.split_once('.') {
        Some((stream, field)) => stream_field(field).and_then(|found| {
            let index = (0..MAX_STREAMS).find(|i| stream_name(*i) == stream);
            index.map(|i| (i..i + 1, found)).or_else(|| rows(stream).map(|r| (r, found)))
        }),
        None => key
            .strip_prefix("w_")
            .and_then(|suffix| rows(suffix).zip(stream_field("weight")))
            .or_else(|| key.strip_prefix("standardize_").and_then(|suffix| rows(suffix).zip(stream_field("standardize"))))
            .or_else(|| stream_field(key).filter(|_| key != "weight").map(|found| (0..MAX_STREAMS, found))),
    };
    let Some((range, (field, end, set))) = target else {
        let shorthands = ["w_process", "w_outcome", "w_format", "standardize_process", "standardize_outcome", "standardize_format"];
        let dotted: Vec<String> =
            (0..MAX_STREAMS).flat_map(|i| stream_keys().map(move |row| format!("{}.{}", stream_name(i), row.0))).collect();
        let names = FIELDS.iter().map(|f| f.name).chain(stream_keys().map(|row| row.0).filter(|n| *n != "weight")).chain(shorthands);
        return refuse!(
            PASSRL_ERR_UNKNOWN_NAME,
            "key \"{key}\" is unknown; nearest: {}",
            nearest(key, names.chain(dotted.iter().map(String::as_str).filter(|_| key.contains('.'))))
        );
    };
    range.into_iter().try_for_each(|i| {
        kept(&format!("{}.{field}", stream_name(i)), end_of(i, end))?;
        set(&mut config.streams[i], key, value)
    })
}

/// Name of a status.
pub fn status(number: passrl_status) -> &'static CStr {
    macro_rules! names {
        ($($name:ident)*) => {
            match number {
                $($name => {
                    const BYTES: &[u8] = concat!(stringify!($name), "\0").as_bytes();
                    CStr::from_bytes_with_nul(BYTES).unwrap_or(c"")
                })*
                _ => c"unknown status",
            }
        };
    }
    names!(PASSRL_OK PASSRL_ERR_NULL PASSRL_ERR_VALUE PASSRL_ERR_STRUCT_SIZE PASSRL_ERR_UNKNOWN_NAME PASSRL_ERR_CONFLICT PASSRL_ERR_NOT_YET
        PASSRL_ERR_SHAPE PASSRL_ERR_DTYPE PASSRL_ERR_LAYOUT PASSRL_ERR_OVERLAP PASSRL_ERR_LIMIT PASSRL_ERR_OFFSETS PASSRL_ERR_WORKSPACE
        PASSRL_ERR_FINGERPRINT PASSRL_ERR_NO_DEVICE PASSRL_ERR_DEVICE PASSRL_ERR_FORK PASSRL_ERR_RESOURCE PASSRL_ERR_DRIVER PASSRL_ERR_DATA
        PASSRL_ERR_COLLECTIVE PASSRL_ERR_INTERNAL PASSRL_FINDING_NONFINITE PASSRL_FINDING_MISSING PASSRL_FINDING_BAD_STEPS
        PASSRL_FINDING_SINGLETON PASSRL_FINDING_TOO_LARGE PASSRL_FINDING_BAD_OFFSETS)
}

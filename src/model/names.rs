//! What the caller calls the rows of the stream table. In fixed memory: a run's sentence is made without an allocation.
use super::config::MAX_STREAMS;
use super::presets::stream_name;
use std::fmt::{Display, Formatter, Result};

/// Bytes of a name, its terminating zero among them.
pub const NAME_BYTES: usize = 32;

#[derive(Clone, Copy, Debug)]
pub struct StreamNames {
    text: [[u8; NAME_BYTES]; MAX_STREAMS],
    len: [u8; MAX_STREAMS],
}

impl StreamNames {
    /// The rows have the table's names.
    pub const TABLE: StreamNames = StreamNames { text: [[0; NAME_BYTES]; MAX_STREAMS], len: [0; MAX_STREAMS] };

    /// Names a row. A name of the table says nothing new, a row copied from another one's least of all.
    pub fn set(&mut self, row: usize, name: &str) {
        if name.len() < NAME_BYTES && (0..MAX_STREAMS).all(|other| stream_name(other) != name) {
            self.text[row][..name.len()].copy_from_slice(name.as_bytes());
            self.len[row] = name.len() as u8;
        }
    }

    /// "accuracy (extra_0)"; "extra_0" where the caller has no name of its own for the row.
    pub fn of(&self, row: usize) -> impl Display + '_ {
        Named(std::str::from_utf8(&self.text[row][..self.len[row] as usize]).unwrap_or(""), stream_name(row))
    }
}

struct Named<'a>(&'a str, &'static str);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            "" => f.write_str(self.1),
            own => write!(f, "{own} ({})", self.1),
        }
    }
}

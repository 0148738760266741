//! The last error of each thread: one sentence in a fixed buffer, no heap. A leaf: everything may use it.
use std::cell::RefCell;
use std::fmt::{self, Write};

/// A refusal or failure: the status that the C caller gets. Its sentence is already in the thread's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused(pub i32);

pub type Result<T> = std::result::Result<T, Refused>;

/// Statuses that a backend may give (the ABI's numbers are held to them).
pub const NO_DEVICE: i32 = -300;
pub const DEVICE: i32 = -301;
pub const FORK: i32 = -302;
pub const RESOURCE: i32 = -303;
pub const DRIVER: i32 = -304;
pub const NOT_YET: i32 = -105;
pub const COLLECTIVE: i32 = -500;

const CAPACITY: usize = 1024;

struct Sentence {
    bytes: [u8; CAPACITY],
    len: usize,
    function: &'static str,
}

thread_local! {
    static LAST: RefCell<Sentence> = const { RefCell::new(Sentence { bytes: [0; CAPACITY], len: 0, function: "" }) };
}

impl Write for Sentence {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            // One byte stays for the terminating zero; a character is written whole or not at all.
            if self.len + c.len_utf8() >= CAPACITY {
                return Err(fmt::Error);
            }
            c.encode_utf8(&mut self.bytes[self.len..]);
            self.len += c.len_utf8();
        }
        Ok(())
    }
}

/// Names the ABI function whose sentences follow, and forgets the last one.
pub fn enter(function: &'static str) {
    LAST.with_borrow_mut(|last| {
        last.function = function;
        last.len = 0;
        last.bytes[0] = 0;
    });
}

/// Writes the sentence `function: arguments`.
pub fn set(arguments: fmt::Arguments<'_>) {
    LAST.with_borrow_mut(|last| {
        last.len = 0;
        let function = last.function;
        // A sentence longer than the buffer is cut; that is all an error here could mean.
        let _ = write!(last, "{function}: ").and_then(|()| last.write_fmt(arguments));
        let end = last.len;
        last.bytes[end] = 0;
    });
}

/// A sentence as `last_text` gave it.
pub fn say(sentence: &str) {
    LAST.with_borrow_mut(|last| {
        last.len = 0;
        let _ = last.write_str(sentence);
        let end = last.len;
        last.bytes[end] = 0;
    });
}

/// The zero-terminated sentence; valid until this thread's next call.
pub fn last() -> *const std::ffi::c_char {
    LAST.with_borrow(|last| last.bytes.as_ptr().cast())
}

/// The sentence as text, for Rust callers and tests.
pub fn last_text() -> String {
    LAST.with_borrow(|last| String::from_utf8_lossy(&last.bytes[..last.len]).into_owned())
}

/// `Err(Refused(status))` with the sentence given as to `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! refuse {
    ($status:expr, $($text:tt)*) => {{
        $crate::error::set(format_args!($($text)*));
        Err($crate::error::Refused($status))
    }};
}

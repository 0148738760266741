//! Dense group numbers from keys.
use super::view::{self, Want};
use crate::abi::status::*;
use crate::abi::types::passrl_view;
use crate::error::Result;
use crate::model::array::DType;
use crate::model::context::Where;
use crate::refuse;
use std::collections::HashMap;

/// Numbers in order of first appearance; returns how many.
pub fn dense_index(keys: Option<&passrl_view>, index: Option<&passrl_view>) -> Result<i64> {
    let (Some(keys), Some(index)) = (keys, index) else {
        return refuse!(PASSRL_ERR_NULL, "{} is NULL", if keys.is_none() { "keys" } else { "index" });
    };
    let keys = view::array(Where::Host, keys, "keys", view::I64, Want::AnyLine)?;
    // SAFETY: a view by the reference.
    let Some(index) = (unsafe { view::output(Where::Host, index, "index", view::INTS, Want::Line(keys.shape[0]))? }) else { return Ok(0) };
    if super::outputs::touch(&keys, &index) && !super::outputs::same(&keys, &index) {
        return refuse!(PASSRL_ERR_OVERLAP, "index and keys share memory; give each its own, or the same i64 view for both");
    }
    let (from, to) = (keys.whole(), index.whole());
    let mut numbers: HashMap<i64, i64> = HashMap::new();
    for i in 0..from.len() {
        let next = numbers.len() as i64;
        let number = *numbers.entry(from.int(i)).or_insert(next);
        // SAFETY: the caller's output, used by this call alone.
        unsafe {
            match to.dtype() {
                DType::I32 => to.put(i, number as i32),
                _ => to.put(i, number),
            }
        }
    }
    Ok(numbers.len() as i64)
}

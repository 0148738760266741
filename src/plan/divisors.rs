//! What G is multiplied by in Divide-Length, and a context's memory of such tables: made once, they serve every plan of the same exponent that needs no more entries.
use crate::error::{RESOURCE, Result};
use crate::model::config::{Config, DivideBy};
use crate::numerics::table::{discounted_count_table, power_table};
use crate::refuse;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// n^-k or 1 / (1 + gamma + ... + gamma^(n-1)), for n = rollout_tokens down to 1: chunk j of K reads entry `rollout_tokens - K + j`. Empty: k = 0.
#[derive(Clone, Default)]
pub struct Divisors {
    /// Of a table for longer rollouts the end is the table for shorter ones.
    table: Arc<Vec<f64>>,
    from: usize,
}

impl Deref for Divisors {
    type Target = [f64];

    #[inline]
    fn deref(&self) -> &[f64] {
        &self.table[self.from..]
    }
}

/// Which table: the rule, and the bits of k or gamma.
type Key = (DivideBy, u64);

/// Tables kept, and the entries of the longest that is (1 MiB).
const KEPT: usize = 8;
const LONGEST: usize = 1 << 17;

/// The tables that plans of a context have asked for, the latest first.
#[derive(Default)]
pub struct Tables(Mutex<Vec<(Key, Arc<Vec<f64>>)>>);

impl Tables {
    /// The divisors of a plan for rollouts of up to `longest` tokens.
    pub fn divisors(&self, config: &Config, longest: usize) -> Result<Divisors> {
        if config.k == 0.0 {
            return Ok(Divisors::default());
        }
        let parameter = match config.divide_by {
            DivideBy::Count => config.k,
            DivideBy::DiscountedCount => config.gamma,
        };
        let key = (config.divide_by, parameter.to_bits());
        if longest > LONGEST {
            return Ok(Divisors { table: Arc::new(table(config, longest)?), from: 0 });
        }
        // Never waited for: a child forked while another thread held it would wait for ever. Without it the plan makes a table of its own.
        let mut kept = self.0.try_lock().ok();
        let place = kept.as_ref().and_then(|kept| kept.iter().position(|(k, t)| *k == key && t.len() >= longest));
        let table = match (&mut kept, place) {
            (Some(kept), Some(place)) => {
                kept[..=place].rotate_right(1);
                Arc::clone(&kept[0].1)
            }
            _ => Arc::new(table(config, longest)?),
        };
        if let (Some(kept), None) = (&mut kept, place) {
            kept.retain(|(k, _)| *k != key);
            kept.insert(0, (key, Arc::clone(&table)));
            kept.truncate(KEPT);
        }
        let from = table.len() - longest;
        Ok(Divisors { table, from })
    }
}

fn table(config: &Config, longest: usize) -> Result<Vec<f64>> {
    // Asked for first: a table that memory has no room for is refused in words instead of ending the process.
    if Vec::<f64>::new().try_reserve_exact(longest + 1).is_err() {
        return refuse!(
            RESOURCE,
            "limits.rollout_tokens is {longest}, whose table of n^-k takes {} bytes, more than there are; state the true length, or k = 0",
            (longest + 1) * 8
        );
    }
    let mut table = match config.divide_by {
        DivideBy::Count => power_table(config.k, longest + 1),
        DivideBy::DiscountedCount => discounted_count_table(config.gamma, longest + 1),
    };
    table.drain(..1);
    table.reverse();
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::presets;

    fn config(k: f64) -> Config {
        Config { k, ..presets::DEFAULT.config() }
    }

    #[test]
    fn a_kept_table_serves_shorter_rollouts_with_the_same_bits() {
        let tables = Tables::default();
        let long = tables.divisors(&config(0.7), 1000).unwrap();
        let short = tables.divisors(&config(0.7), 16).unwrap();
        assert!(Arc::ptr_eq(&long.table, &short.table), "made once");
        assert_eq!(*short, *Tables::default().divisors(&config(0.7), 16).unwrap());
        assert_eq!((short.len(), short[15]), (16, 1.0));
        let longer = tables.divisors(&config(0.7), 2000).unwrap();
        assert_eq!((longer.len(), long.len()), (2000, 1000));
        assert!(Arc::ptr_eq(&longer.table, &tables.divisors(&config(0.7), 1500).unwrap().table), "the longer one takes its place");
    }

    #[test]
    fn tables_differ_by_rule_and_parameter_and_the_oldest_goes() {
        let tables = Tables::default();
        let first = tables.divisors(&config(0.1), 8).unwrap();
        let by_count = tables.divisors(&Config { divide_by: DivideBy::DiscountedCount, gamma: 0.1, ..config(1.0) }, 8).unwrap();
        assert_ne!(*first, *by_count);
        for i in 0..KEPT {
            tables.divisors(&config(1.0 + i as f64 / 8.0), 8).unwrap();
        }
        let again = tables.divisors(&config(0.1), 8).unwrap();
        assert!(!Arc::ptr_eq(&first.table, &again.table) && *first == *again, "made anew, the same bits");
        assert_eq!(tables.0.lock().unwrap().len(), KEPT);
    }

    #[test]
    fn a_lock_that_is_held_is_not_waited_for() {
        let tables = Tables::default();
        let held = tables.0.lock().unwrap();
        assert_eq!(tables.divisors(&config(0.7), 8).unwrap().len(), 8);
        drop(held);
        assert!(tables.divisors(&config(0.0), 8).unwrap().is_empty());
        assert_eq!(tables.divisors(&config(0.7), LONGEST + 1).unwrap().len(), LONGEST + 1);
    }
}

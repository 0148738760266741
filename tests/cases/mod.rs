//! The one table of named cases, the worked examples of docs/formulas.md §6, and a seeded generator that mixes everything.

mod baselines;
mod build;
mod count_by;
mod credit;
mod features;
mod given;
mod hostile;
mod kl_reward;
mod random;
mod random_estimators;
mod sets;
mod steps;
mod terms;
mod worked;

use crate::oracle::{Batch, Config};
pub use build::{build, Input, Rng, Spec};
pub use random::random;
pub use random_estimators::random_estimators;
pub use worked::{worked_examples, Worked};

#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub cfg: Config,
    pub batch: Batch,
}

pub fn all() -> Vec<Case> {
    let mut table = features::cases();
    table.extend(hostile::cases());
    table.extend(worked_examples().into_iter().map(|w| w.case));
    table.extend(sets::cases());
    table.extend(terms::cases());
    table.extend(kl_reward::cases());
    table.extend(credit::cases());
    table.extend(steps::cases());
    table.extend(baselines::cases());
    table.extend(count_by::cases());
    table.extend(given::cases());
    table
}

/// A case on a generated batch; `edit` changes what is special about it.
fn case(name: &'static str, spec: Spec, edit: impl FnOnce(&mut Config, &mut Batch)) -> Case {
    let (mut cfg, mut batch) = build(&spec);
    edit(&mut cfg, &mut batch);
    Case { name, cfg, batch }
}

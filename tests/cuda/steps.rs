//! Steps where a block has a whole group (passrl_steps), and where a block has a rollout.
use super::*;

/// How many multiprocessors the simulated device says that it has; of few of them a batch's groups are enough to have a block each (passrl_steps).
pub const MULTIPROCESSORS: i32 = 16;

/// Every case of steps with scores whose groups stand together, where any number of groups is enough: those that ask for nothing else a token have a block a group.
#[test]
fn every_case_has_the_bits_of_the_cpu_where_a_block_has_a_group() {
    if skipped() || !simulated() {
        return;
    }
    use harness::{Floats, GroupsAs};
    let how = How { groups_as: GroupsAs::Offsets, ..How::default() };
    let _lock = cudasim::lock();
    cudasim::attribute(MULTIPROCESSORS, 0);
    let hows = [
        (" packed", how),
        (" padded, bf16, left, lean", How { padded: true, pad_left: true, spare: 2, lean: true, reports: true, output: Floats::Bf16, groups_as: GroupsAs::Constant, wide_offsets: true, ..how }),
    ];
    table_of(&hows, |batch| batch.rollouts.iter().any(|r| !r.step_scores.is_empty()));
    cudasim::attribute(MULTIPROCESSORS, 132);
    assert!(cudasim::stats(Some("passrl_steps")).launches > 30, "cases of steps have a block a group");
}

/// Groups of steps where they are many beside the device's multiprocessors (a block a group) and where they are few (a block a rollout): groups that are looked at as a whole,
/// with more steps than a block has room for, with rollouts of no step, no token or empty steps, absent or in no set, with bad values, streams and steps; as many rollouts as
/// a block has warps and more.
#[test]
fn many_groups_of_steps_and_few_have_the_bits_of_the_cpu() {
    use harness::{Floats, GroupsAs};
    use oracle::{Center, Kind, LooUnit, Missing, Place, Scale};
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let batch = |groups: usize, size: usize, spoilt: bool| {
        let rollout = |n: usize| {
            let (g, m) = (n / size, n % size);
            // Chunks in one tile of 32, at its edge, in several; one group in five is much larger than the others.
            let steps = if g % 5 == 4 { 150 + m } else if m == 1 { 31 } else { [7, 31, 32, 33, 64, 70, 1][(g + m) % 7] };
            let ends: Vec<i64> = (0..steps).scan(0, |end, j| { *end += 1 + (j * 7 + n) as i64 % 5; Some(*end) }).collect();
            let mut r = oracle::Rollout {
                len: ends[steps - 1] as usize + n % 3,
                group: g,
                in_stats: n % 11 != 5,
                outcome: Some((n * 7 % 5) as f32 * 0.5 - 1.0),
                format: Some((n % 2) as f32),
                format_ok: Some(n % 9 != 4),
                step_scores: vec![(0..steps).map(|j| if g % 6 == 3 { 0.25 } else { (j * 5 % 17) as f32 * 0.375 - m as f32 }).collect()],
                step_ends: Some(ends),
                ..oracle::Rollout::default()
            };
            let (ends, scores) = (r.step_ends.as_mut().expect("steps"), &mut r.step_scores[0]);
            match if spoilt && m == 1 { g } else { 0 } {
                1 => scores[3] = f32::NAN,
                2 => r.outcome = Some(f32::INFINITY),
                3 => r.outcome = Some(f32::NAN),
                4 => ends[2] = ends[1] - 1,
                5 => ends[2] = ends[1],
                6 => *ends.last_mut().expect("some") = r.len as i64 + 1,
                7 => { ends.clear(); scores.clear(); }
                8 => { ends.clear(); scores.clear(); r.len = 0; }
                9 => r.absent = true,
                10 => r.format = Some(f32::NEG_INFINITY),
                11 => ends[0] = 0,
                12 => ends[0] = -3,
                _ => (),
            }
            r
        };
        Batch { num_groups: groups, rollouts: (0..groups * size).map(rollout).collect(), ..Batch::default() }
    };
    let plain = Config { kind: Kind::Prm, ..Config::default() };
    let mut by_rollout = plain.clone();
    (by_rollout.process[0].center, by_rollout.process[0].loo_unit) = (Center::LeaveOneOut, LooUnit::Rollout);
    let mut by_element = Config { gamma: 0.875, ..plain.clone() };
    (by_element.process[0].center, by_element.process[0].scale) = (Center::LeaveOneOut, Scale::LeaveOneOut);
    (by_element.outcome.center, by_element.outcome.place, by_element.outcome.missing) = (Center::LeaveOneOut, Place::Last, Missing::Exclude);
    let clipped = Config { clip: 0.25, temperature: 0.5, fill_padding: false, k: 0.0, ..plain.clone() };
    let how = How { lean: true, reports: true, output: Floats::F32, groups_as: GroupsAs::Constant, ..How::default() };
    let hows = [
        ("packed", how),
        ("padded, bf16", How { padded: true, spare: 3, output: Floats::Bf16, ..how }),
        ("offsets, f16, all outputs", How { lean: false, output: Floats::F16, groups_as: GroupsAs::Offsets, wide_offsets: true, ..how }),
    ];
    let mut failures = Vec::new();
    // (A real device's count is what it is: 1,100 groups are enough for it, 13 are too few.)
    let sizes = if simulated() { vec![(13, 3, 26), (13, 3, 27), (9, 8, 18), (7, 17, 14)] } else { vec![(1100, 3, 0), (13, 3, 0)] };
    for (groups, size, processors) in sizes {
        for (n, (label, cfg)) in [("plain", &plain), ("by rollout", &by_rollout), ("by element", &by_element), ("clipped", &clipped)].into_iter().enumerate() {
            // (Of many rollouts one setting of each way to their results.)
            for (form, how) in hows.iter().filter(|_| size == 3 || n % 2 == 0) {
                for spoilt in [false, true] {
                    if simulated() {
                        assert_eq!(found(), "");
                        cudasim::reset();
                        cudasim::attribute(MULTIPROCESSORS, processors);
                    }
                    schedule(n as u64 + u64::from(spoilt));
                    let name = format!("{groups} groups of {size}, {processors} multiprocessors, {label}, {form}, spoilt {spoilt}");
                    failures.extend(check(&name, cfg, &batch(groups, size, spoilt), how));
                    if simulated() {
                        let blocks = |kernel: &str| cudasim::stats(Some(kernel)).blocks as usize;
                        // (Of offsets a group may have all rollouts, and at most 64 are one block's.)
                        let many = 2 * groups >= processors as usize && (how.groups_as == GroupsAs::Constant || groups * size <= 64);
                        assert_eq!((blocks("passrl_steps"), blocks("passrl_prepare") > 0), if many { (groups, false) } else { (0, true) }, "{name}");
                    }
                }
            }
        }
    }
    schedule(0);
    let report = found();
    if simulated() {
        cudasim::attribute(MULTIPROCESSORS, 132);
    }
    assert!(report.is_empty(), "the simulated driver reports:\n{report}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

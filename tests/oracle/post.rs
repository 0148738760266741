//! §2.6: temperature, whitening, clip.
use super::load::Loaded;
use super::sets::{inverse, stats};
use super::*;

/// On the in-scope tokens of rollouts that are not forced to 0.
pub fn post(cfg: &Config, batch: &Batch, loaded: &[Loaded], out: &mut Output) {
    let live: Vec<usize> = (0..out.rollouts.len()).filter(|&i| !out.rollouts[i].forced_zero).collect();
    for &i in &live {
        for &t in &loaded[i].toks {
            out.rollouts[i].advantages[t] /= cfg.temperature;
        }
    }
    let mut set = Vec::new();
    for &i in live.iter().filter(|&&i| batch.rollouts[i].in_stats) {
        match cfg.whiten {
            Whiten::None => {}
            Whiten::Tokens => set.extend(loaded[i].toks.iter().map(|&t| out.rollouts[i].advantages[t] as f32 as f64)),
            Whiten::Rollouts => set.push((out.rollouts[i].path_score / cfg.temperature) as f32 as f64),
        }
    }
    let s = stats(&set, cfg.whiten_ddof);
    for &i in &live {
        for &t in &loaded[i].toks {
            let a = &mut out.rollouts[i].advantages[t];
            if s.n > 0 {
                // The one admitted intermediate rounding: whitening reads A as f32.
                let from_mean = if s.max == s.min { 0.0 } else { *a as f32 as f64 - s.mean };
                *a = from_mean * inverse(s.var, cfg.whiten_epsilon, cfg.whiten_epsilon_mode);
                if !cfg.whiten_shift {
                    *a += s.mean;
                }
            }
            let clipped = a.clamp(-cfg.clip, cfg.clip);
            out.report.clipped += u64::from(clipped != *a);
            *a = clipped;
        }
    }
}

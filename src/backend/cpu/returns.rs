//! Per-step discounted return-to-go over chunks (eq. 3, eq. 7) and Divide-Length (Algorithm 3); GAE over tokens. Positions are counted from the rollout's
//! end, so that gaps, padding and compressed input cannot shift the tiles (numerics contract 5.5).
use crate::numerics::simd::{Simd, dispatch};

const TILE: usize = 32;

/// y_j <- sum over j' >= j of c^(j'-j) y_j', in tiles of 32 positions from the end: log steps inside a tile, one carry between tiles. `powers[m]` = c^m.
pub fn scan(simd: Simd, y: &mut [f64], powers: &[f64; 33]) {
    match simd {
        // SAFETY: `Simd::Avx2` is only made where the processor has AVX2.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 | Simd::Avx512 => unsafe { super::tile::scan_avx2(y, powers) },
        _ => plain(y, powers, 0.0),
    }
}

/// The scan in plain Rust, from a carry on.
pub fn plain(y: &mut [f64], powers: &[f64; 33], carry: f64) {
    {
        let c1 = powers[1];
        let c2 = c1 * c1;
        let c4 = c2 * c2;
        let c8 = c4 * c4;
        let c16 = c8 * c8;
        let mut carry = carry;
        let mut end = y.len();
        // Zeros beyond the tile stand for "no position there".
        let mut tile = [0.0f64; TILE + 16];
        let mut rising = [0.0f64; TILE];
        for (i, power) in rising.iter_mut().enumerate() {
            *power = powers[TILE - i];
        }
        while end >= TILE {
            let part = &mut y[end - TILE..end];
            tile[..TILE].copy_from_slice(part);
            for (d, c) in [(1, c1), (2, c2), (4, c4), (8, c8), (16, c16)] {
                for i in 0..TILE {
                    tile[i] += c * tile[i + d];
                }
            }
            for i in 0..TILE {
                part[i] = tile[i] + rising[i] * carry;
            }
            carry = part[0];
            end -= TILE;
        }
        if end > 0 {
            let part = &mut y[..end];
            tile[..end].copy_from_slice(part);
            tile[end..].fill(0.0);
            for (d, c) in [(1, c1), (2, c2), (4, c4), (8, c8), (16, c16)] {
                for i in 0..end {
                    tile[i] += c * tile[i + d];
                }
            }
            for i in 0..end {
                part[i] = tile[i] + powers[end - i] * carry;
            }
        }
    }
}

/// y within one tile, of at most 32 positions, before a carry is added; in place.
pub fn tile(y: &mut [f64], powers: &[f64; 33]) {
    let mut c = powers[1];
    for d in [1, 2, 4, 8, 16] {
        // Rising order: what is read further on has not been written yet. Beyond the tile stands 0, as in `plain`.
        for i in 0..y.len() {
            y[i] += c * y.get(i + d).copied().unwrap_or(0.0);
        }
        c = c * c;
    }
}

dispatch! {
    /// D_j = G_j (K - j + 1)^-k. `divisors` are those of this K, first chunk first.
    pub fn divide(g: &[f64], divisors: &[f64], d: &mut [f64]) {
        for ((d, g), t) in d.iter_mut().zip(g).zip(divisors) {
            *d = g * t;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::table::decay_powers;

    /// The contract's words, position by position.
    fn contract(y: &[f64], c: f64) -> Vec<f64> {
        let k = y.len();
        let powers = decay_powers(c);
        let mut p: Vec<f64> = y.iter().rev().copied().collect();
        let mut carry = 0.0;
        for tile in p.chunks_mut(32) {
            let mut cd = c;
            for d in [1, 2, 4, 8, 16] {
                let old = tile.to_vec();
                for i in d..tile.len() {
                    tile[i] = old[i] + cd * old[i - d];
                }
                cd = cd * cd;
            }
            for (i, y) in tile.iter_mut().enumerate() {
                *y += powers[i + 1] * carry;
            }
            carry = tile[tile.len() - 1];
        }
        assert_eq!(p.len(), k);
        p.into_iter().rev().collect()
    }

    #[test]
    fn scan_is_the_contract_to_the_bit_and_the_recursion_nearly() {
        for c in [1.0, 0.99, 0.5, 0.0] {
            for k in (0..140).chain([1000]) {
                let y: Vec<f64> = (0..k).map(|i| ((i * 37 % 101) as f64 - 50.0) * 0.013).collect();
                let wanted = contract(&y, c);
                for simd in [Simd::Baseline, Simd::best()] {
                    let mut got = y.clone();
                    scan(simd, &mut got, &decay_powers(c));
                    assert!(got.iter().zip(&wanted).all(|(a, b)| a.to_bits() == b.to_bits() || (*a == 0.0 && *b == 0.0)), "c {c} k {k}");
                }
                let mut g = 0.0;
                for j in (0..k).rev() {
                    g = y[j] + c * g;
                    assert!((wanted[j] - g).abs() < 1e-12);
                }
            }
        }
    }
}

//! Kernels that are right, under many schedules: the bits of a plain loop, and nothing found. Compiled into both test files.
use crate::CHECKED;
use crate::args;
use crate::common::*;

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

pub fn scan_case(rows: usize, n: usize) -> (Vec<f32>, Vec<u8>, Vec<f64>) {
    let mut random = Random(42 + n as u64);
    let r: Vec<f32> = (0..rows * n).map(|_| (random.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).collect();
    let reset: Vec<u8> = (0..rows * n).map(|_| u8::from(random.next() % 37 == 0)).collect();
    let mut want = vec![0f64; rows * n];
    for row in 0..rows {
        let mut sum = 0f64;
        for t in (0..n).rev() {
            let i = row * n + t;
            sum = f64::from(r[i]) + if reset[i] != 0 { 0. } else { f64::from(0.99f32) * sum };
            want[i] = sum;
        }
    }
    (r, reset, want)
}

pub fn worst(got: &[f32], want: &[f64]) -> f64 {
    got.iter().zip(want).map(|(a, b)| if a.is_nan() { f64::INFINITY } else { (f64::from(*a) - b).abs() }).fold(0., f64::max)
}

#[test]
fn scan_is_the_same_under_every_schedule() {
    let Some(gpu) = gpu(CHECKED) else { return };
    for (rows, n) in [(1, 1), (2, 31), (3, 256), (4, 257), (8, 1000)] {
        let (r, reset, want) = scan_case(rows, n);
        let (r, reset, out) = (gpu.upload(&r), gpu.upload(&reset), gpu.alloc::<f32>(rows * n));
        let (gamma, length) = (0.99f32, n as i64);
        let mut first: Option<Vec<u32>> = None;
        for seed in 0..6 {
            cudasim::seed(seed);
            clean(gpu.run("reverse_scan", rows as u32, 256, 64, &mut args!(r, reset, out, gamma, length)));
            let got: Vec<f32> = gpu.download(out, rows * n);
            assert!(worst(&got, &want) < 1e-5, "{rows} x {n}: {}", worst(&got, &want));
            let bits: Vec<u32> = got.iter().map(|v| v.to_bits()).collect();
            assert!(first.get_or_insert(bits.clone()) == &bits, "the schedule of seed {seed} changed the result");
        }
    }
    let counted = cudasim::stats(Some("reverse_scan"));
    assert_eq!((counted.launches, counted.blocks), (30, 6 * 18));
    assert!(counted.collectives > 0 && counted.barriers > 0);
}

#[test]
fn sums_votes_and_the_last_block() {
    let Some(gpu) = gpu(CHECKED) else { return };
    let n = 1000;
    let x: Vec<u32> = (0..n as u32).map(|i| i * 7 % 991).collect();
    let d = gpu.upload(&x);
    for seed in 0..6 {
        cudasim::seed(seed);
        let (partial, ticket, total) = (gpu.alloc::<u32>(16), gpu.zeros::<u32>(1), gpu.zeros::<u64>(1));
        let (votes, histogram) = (gpu.upload(&[0i32, 0, 1]), gpu.zeros::<u32>(8));
        clean(gpu.run("sums", 16, 64, 0, &mut args!(d, partial, ticket, total, votes, histogram, n)));
        assert_eq!(gpu.download::<u64>(total, 1), [x.iter().map(|v| u64::from(*v)).sum::<u64>()]);
        let odd = x.iter().filter(|v| *v & 1 == 1).count() as i32;
        assert_eq!(gpu.download::<i32>(votes, 3), [odd, i32::from(x.contains(&77)), 1]);
        let bins: Vec<u32> = (0..8).map(|b| x.iter().filter(|v| *v & 7 == b).count() as u32).collect();
        assert_eq!(gpu.download::<u32>(histogram, 8), bins);
    }
}

#[test]
fn collectives_give_what_cuda_says() {
    let Some(gpu) = gpu(CHECKED) else { return };
    let v: Vec<i32> = (0..32).map(|i| i * 5 % 23).collect();
    let (d, out) = (gpu.upload(&v), gpu.alloc::<i64>(16 * 32));
    for seed in 0..6 {
        cudasim::seed(seed);
        clean(gpu.run("collectives", 1, 32, 0, &mut args!(out, d)));
        let got: Vec<i64> = gpu.download(out, 16 * 32);
        let bits = |f: &dyn Fn(usize) -> bool| (0..32).map(|i| i64::from(f(i)) << i).sum::<i64>();
        for lane in 0..32 {
            let (x, at) = (i64::from(v[lane]), |i: usize| i64::from(v[i]));
            let leading = |x: i64, width: u32| if x == 0 { width } else { x.leading_zeros() - (64 - width) };
            let first_set = |x: i64| if x == 0 { 0 } else { x.trailing_zeros() + 1 };
            let half = if lane < 16 { at(lane ^ 1) } else { at(lane ^ 2) + 16 };
            let want = [
                bits(&|i| v[i] & 1 == 1),
                i64::from(v.contains(&5)),
                1,
                bits(&|i| v[i] & 3 == v[lane] & 3),
                at(3) << 40,
                if lane >= 2 { at(lane - 2) } else { x },
                if lane + 5 < 32 { at(lane + 5) } else { x },
                at(lane ^ 8),
                i64::from((x as u64).wrapping_mul(0x0101_0101_0101_0101).count_ones()) + lane as i64 + 1,
                i64::from(leading(x, 32) + leading(x << 20, 64) + first_set(x) + x.count_ones()),
                (((x as u64) << 60) as u128 * 1024 >> 64) as i64,
                x,
                half,
                ((x as u128) << 70 >> 30 >> 40) as i64,
                x + i64::from(x & 1 == 1),
                v.iter().map(|v| i64::from(*v)).sum(),
            ];
            assert_eq!(got[16 * lane..][..16], want, "lane {lane}, seed {seed}");
        }
    }
}

#[test]
fn atomics_of_every_type() {
    let Some(gpu) = gpu(CHECKED) else { return };
    for seed in 0..4 {
        cudasim::seed(seed);
        let (i, u, l) = (gpu.upload(&[i32::MIN, i32::MAX]), gpu.upload(&[0u32, u32::MAX, 0, 0]), gpu.upload(&[i64::MIN, i64::MAX]));
        let (ul, f) = (gpu.upload(&[0u64, u64::MAX, 0]), gpu.zeros::<f32>(1));
        clean(gpu.run("maxima", 1, 64, 0, &mut args!(i, u, l, ul, f)));
        assert_eq!(gpu.download::<i32>(i, 2), [23, -40]);
        let words = gpu.download::<u32>(u, 4);
        assert_eq!(words[..3], [(0..64u32).map(|t| t.wrapping_mul(0x0800_0001)).max().unwrap(), !63, 7]);
        assert!((100..164).contains(&words[3]), "{}", words[3]);
        assert_eq!(gpu.download::<i64>(l, 2), [63 - (1 << 40), -(63 << 33)]);
        assert_eq!(gpu.download::<u64>(ul, 3), [63 << 58, u64::MAX - 63, 64 << 33]);
        assert_eq!(gpu.download::<f32>(f, 1), [64.0]);
    }
}

#[test]
fn what_needs_order_and_has_it_is_clean() {
    let Some(gpu) = gpu(CHECKED) else { return };
    let p: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let (p, q) = (gpu.upload(&p), gpu.alloc::<f32>(64));
    for seed in 0..6 {
        cudasim::seed(seed);
        clean(gpu.run("async_reverse", 1, 32, 0, &mut args!(p, q)));
        assert_eq!(gpu.download::<f32>(q, 32), (0..32).map(|t| (4 * (31 - t) + 1) as f32).collect::<Vec<_>>());
        clean(gpu.run("warp_exchange", 1, 64, 0, &mut args!(q)));
        assert_eq!(gpu.download::<f32>(q, 64), (0..64).map(|t: i32| (t ^ 31) as f32 + 1.0).collect::<Vec<_>>());
        clean(gpu.run("of_templates", 1, 32, 0, &mut args!(q)));
        assert_eq!(gpu.download::<f32>(q, 1), [96.0]);
    }
}

/// Arguments are those of the call: 3 KB by value, changed by the caller before the kernel runs.
#[test]
fn arguments_are_copied_at_the_launch() {
    #[repr(C)]
    struct Arguments {
        out: u64,
        values: [f64; 400],
        count: i32,
    }
    let Some(gpu) = gpu(CHECKED) else { return };
    let out = gpu.alloc::<f32>(32);
    let mut arguments = Arguments { out, values: std::array::from_fn(|i| i as f64), count: 400 };
    assert_eq!(gpu.launch("by_value", 1, 32, 0, &mut args!(arguments)), OK);
    arguments.count = 0;
    std::hint::black_box(&mut arguments).values[0] = 1e9;
    assert_eq!(gpu.download::<f32>(out, 32), [79800.0; 32]);
    assert_eq!(cudasim::report(), "");
}

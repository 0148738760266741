//! Arrays in each other's gaps: no overlap is ever accepted, columns and parts of rows are.
use crate::api::{Act, Api};
use crate::world::World;
use passrl::abi::constants::*;
use passrl::abi::status::PASSRL_OK;
use passrl::check::outputs::touch;
use passrl::model::array::{Array, DType};

/// Where the arrays of these tests lie. Nothing is read there.
const BASE: usize = 1 << 20;
/// Bytes on either side of it that they may reach.
const REACH: usize = 256;

type Bytes = [u64; 2 * REACH / 64];

/// Every byte of an array.
fn bytes(a: &Array) -> Bytes {
    let mut set = [0; 2 * REACH / 64];
    for i in 0..a.shape[0] as isize {
        for j in 0..a.shape[1] as isize {
            let element = a.data.addr().wrapping_add_signed((i * a.stride[0] + j * a.stride[1]) * a.dtype.bytes() as isize);
            for byte in element..element + a.dtype.bytes() {
                let at = byte + REACH - BASE;
                set[at / 64] |= 1 << (at % 64);
            }
        }
    }
    set
}

fn share(a: &Bytes, b: &Bytes) -> bool {
    a.iter().zip(b).any(|(a, b)| a & b != 0)
}

fn array(at: usize, dtype: DType, shape: [usize; 2], stride: [isize; 2]) -> Array {
    Array { data: std::ptr::without_provenance_mut(at), dtype, shape, stride }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    /// Of one or two dimensions, of strides of both signs and 0, and of elements of 1 to 8 bytes.
    fn array(&mut self) -> Array {
        let dtype = [DType::U8, DType::Bf16, DType::F32, DType::I64][self.below(4)];
        let shape = [self.below(4), if self.below(3) == 0 { 1 } else { self.below(4) }];
        let most = 40 / dtype.bytes();
        let mut stride = || self.below(2 * most + 1) as isize - most as isize;
        let stride = [stride(), stride()];
        array(BASE + self.below(24), dtype, shape, stride)
    }
}

#[test]
fn no_shared_byte_is_accepted() {
    let (mut dice, mut shared, mut apart, mut refused) = (Dice(1), 0, 0, 0);
    for _ in 0..2_000_000 {
        let a = dice.array();
        let mut b = dice.array();
        if dice.below(2) == 0 {
            // Often of the same outer stride in bytes, as views of one matrix are.
            let outer = a.stride[0] * a.dtype.bytes() as isize;
            if outer % b.dtype.bytes() as isize == 0 {
                b.stride[0] = outer / b.dtype.bytes() as isize;
            }
        }
        let truth = share(&bytes(&a), &bytes(&b));
        let told = touch(&a, &b);
        assert!(told || !truth, "{a:?} and {b:?} share a byte, and are taken for apart");
        assert_eq!(told, touch(&b, &a), "{a:?} and {b:?}: the order of the two is seen");
        shared += usize::from(truth);
        apart += usize::from(!told);
        refused += usize::from(told && !truth);
    }
    println!("{shared} pairs share a byte, {apart} are accepted, {refused} refused without need");
    assert!(shared > 100_000 && apart > 100_000, "{shared} pairs share a byte, {apart} are accepted");
}

/// Of parts of the rows of one matrix, and of its columns, the answer is exact.
#[test]
fn parts_of_rows_and_columns_are_told_exactly() {
    let (mut shared, mut apart) = (0, 0);
    let mut told = |a: &Array, b: &Array| {
        let truth = share(&bytes(a), &bytes(b));
        assert_eq!(touch(a, b), truth, "{a:?} and {b:?}");
        if truth { shared += 1 } else { apart += 1 }
    };
    // Rows of 12 bytes: `many` of them from row `first` on, of each the bytes from `column` on.
    let of = |dtype: DType, first: usize, many: usize, column: usize, width: usize, up: bool| {
        let (each, last) = (dtype.bytes(), if up { 0 } else { many - 1 });
        let stride = 12 / each as isize * if up { 1 } else { -1 };
        array(BASE + 12 * (first + last) + column, dtype, [many, width], [stride, 1])
    };
    let dtypes = [DType::U8, DType::Bf16, DType::F32];
    let mut parts = Vec::new();
    for (dtype, up) in dtypes.into_iter().flat_map(|dtype| [(dtype, true), (dtype, false)]) {
        for (first, many, column) in (0..3).flat_map(|first| (2..4).flat_map(move |many| (0..12).map(move |column| (first, many, column)))) {
            let each = dtype.bytes();
            let most = (12 - column) / each;
            parts.extend([1, 2, most].into_iter().filter(|width| *width <= most && *width > 0 && column % each == 0).map(|width| of(dtype, first, many, column, width, up)));
        }
    }
    for (i, a) in parts.iter().enumerate() {
        parts[i..].iter().for_each(|b| told(a, b));
        // The same as a column of one dimension.
        let column = array(BASE + 12 + i % 8, DType::U8, [3, 1], [12, 1]);
        told(&Array { shape: [a.shape[0], 1], ..*a }, &column);
    }
    println!("{shared} pairs share a byte, {apart} do not");
    assert!(shared > 1000 && apart > 1000);
}

/// The advantages of a run with a KL signal, as bits.
fn advantages(api: &Api, edit: impl Fn(&mut World)) -> Vec<u64> {
    let mut w = World::new(api);
    edit(&mut w);
    assert_eq!(api.call(&mut w, Act::Run), PASSRL_OK, "{}", w.sentence);
    w.f64s("advantages").iter().map(|a| a.to_bits()).collect()
}

const SIGNAL: fn(usize) -> f32 = |t| -0.25 * (t % 5) as f32;

#[test]
fn columns_of_one_matrix() {
    let api = Api::load();
    let want = advantages(&api, World::kl);
    // [N, 2] f32: signal and advantages.
    let mut pairs: Vec<f32> = (0..24).flat_map(|t| [SIGNAL(t), 7.5]).collect();
    let base = pairs.as_mut_ptr();
    let mut w = World::new(&api);
    w.kl();
    for (name, column) in [("batch.signal[0]", 0), ("advantages", 1)] {
        let view = w.view(name);
        (view.data, view.stride[0]) = (base.wrapping_add(column).cast(), 2);
    }
    assert_eq!(api.call(&mut w, Act::Run), PASSRL_OK, "{}", w.sentence);
    assert!(pairs.iter().step_by(2).enumerate().all(|(t, s)| *s == SIGNAL(t)), "the signal was written");
    assert_eq!(pairs.iter().skip(1).step_by(2).map(|a| (*a as f64).to_bits()).collect::<Vec<_>>(), want);
    // Records of 8 bytes: advantages f32, signal bf16, a byte of scope, one of nothing. (The values of the signal are exact in bf16.)
    let mut records: Vec<[u8; 8]> = (0..24).map(|t| { let s = ((SIGNAL(t).to_bits() >> 16) as u16).to_ne_bytes(); [9, 9, 9, 9, s[0], s[1], 1, 77] }).collect();
    let base = records.as_mut_ptr().cast::<u8>();
    assert!(base.addr().is_multiple_of(4));
    let mut w = World::new(&api);
    w.kl();
    for (name, byte, dtype, stride) in [("advantages", 0, PASSRL_F32, 2), ("batch.signal[0]", 4, PASSRL_BF16, 4), ("batch.mask", 6, PASSRL_U8, 8)] {
        let view = w.view(name);
        (view.data, view.dtype, view.stride[0]) = (base.wrapping_add(byte).cast(), dtype, stride);
    }
    let all = advantages(&api, |w| { w.kl(); w.ints("batch.mask", PASSRL_U8, &[1; 24]) });
    assert_eq!(api.call(&mut w, Act::Run), PASSRL_OK, "{}", w.sentence);
    assert_eq!(records.iter().map(|r| (f32::from_ne_bytes([r[0], r[1], r[2], r[3]]) as f64).to_bits()).collect::<Vec<_>>(), all);
    assert!(records.iter().all(|r| r[6..] == [1, 77]), "what lies between was written");
}

#[test]
fn halves_of_rows() {
    let api = Api::load();
    let signal = |w: &mut World| { w.padded(); w.kl(); w.grid("batch.signal[0]", PASSRL_F32, 6, &(0..30).map(|t| SIGNAL(t) as f64).collect::<Vec<_>>()) };
    let want = advantages(&api, signal);
    let mut rows: Vec<f32> = (0..6).flat_map(|i| (0..5).map(move |t| SIGNAL(5 * i + t)).chain([7.5; 5])).collect();
    let base = rows.as_mut_ptr();
    let mut w = World::new(&api);
    signal(&mut w);
    for (name, column) in [("batch.signal[0]", 0), ("advantages", 5)] {
        let view = w.view(name);
        (view.data, view.stride[0]) = (base.wrapping_add(column).cast(), 10);
    }
    assert_eq!(api.call(&mut w, Act::Run), PASSRL_OK, "{}", w.sentence);
    assert_eq!(rows.chunks(10).flat_map(|row| &row[5..]).map(|a| (*a as f64).to_bits()).collect::<Vec<_>>(), want);
    assert!(rows.chunks(10).enumerate().all(|(i, row)| (0..5).all(|t| row[t] == SIGNAL(5 * i + t))), "the signal was written");
    // One element further on, the last of each row is the first of the next one's signal.
    w.view("advantages").data = base.wrapping_add(6).cast();
    assert_ne!(api.call(&mut w, Act::Run), PASSRL_OK);
    assert!(w.sentence.contains("outputs.advantages and batch.signal[0] share memory"), "{}", w.sentence);
}

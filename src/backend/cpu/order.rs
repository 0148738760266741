//! The order in which a call's items are handed to its threads: as they stand, but for those so large that a thread that came to one last would keep the others
//! waiting. These go first, the largest before all; the rest then fills up what they leave uneven.

/// Large items that are known.
const MOST: usize = 16;

/// An item is large that is more than this part of a thread's share.
const PART: usize = 8;

#[derive(Clone, Copy, Debug)]
pub struct Order {
    count: usize,
    large: Option<Large>,
}

/// Large items, the largest first, and the same rising.
#[derive(Clone, Copy, Debug)]
struct Large {
    first: [usize; MOST],
    rising: [usize; MOST],
    count: usize,
}

impl Order {
    /// As they stand.
    #[inline]
    pub fn plain(count: usize) -> Order {
        Order { count, large: None }
    }

    /// Of items that take what `size` says, in any unit.
    #[inline]
    pub fn new(count: usize, threads: usize, size: impl Fn(usize) -> usize) -> Order {
        if threads < 2 || count <= threads {
            return Order::plain(count);
        }
        Order { count, large: Some(Large::of(count, threads, size)) }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// How many of the first are large.
    pub fn large(&self) -> usize {
        self.large.as_ref().map_or(0, |large| large.count)
    }

    /// The item that is the i-th to be handed out.
    pub fn item(&self, i: usize) -> usize {
        self.large.as_ref().map_or(i, |large| large.item(i))
    }
}

impl Large {
    fn of(count: usize, threads: usize, size: impl Fn(usize) -> usize) -> Large {
        let mut first = [0; MOST];
        // The largest so far, the first of them before those as large.
        let (mut all, mut sizes, mut known) = (0, [0usize; MOST], 0);
        for i in 0..count {
            let own = size(i);
            all += own;
            if known == MOST && own <= sizes[MOST - 1] {
                continue;
            }
            known = (known + 1).min(MOST);
            let mut at = known - 1;
            while at > 0 && sizes[at - 1] < own {
                (sizes[at], first[at]) = (sizes[at - 1], first[at - 1]);
                at -= 1;
            }
            (sizes[at], first[at]) = (own, i);
        }
        let large = sizes[..known].iter().take_while(|own| **own > all / (PART * threads)).count();
        let mut rising = first;
        rising[..large].sort_unstable();
        Large { first, rising, count: large }
    }

    fn item(&self, i: usize) -> usize {
        if i < self.count {
            return self.first[i];
        }
        self.rising[..self.count].iter().fold(i - self.count, |item, large| item + usize::from(*large <= item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_comes_once_and_the_large_ones_first() {
        let mut seed = 7u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize
        };
        for case in 0..300 {
            let (count, threads) = (1 + next() % 200, 1 + case % 9);
            let sizes: Vec<usize> = (0..count).map(|_| if next() % 30 == 0 { 1000 + next() % 9000 } else { next() % 100 }).collect();
            let order = Order::new(count, threads, |i| sizes[i]);
            let items: Vec<usize> = (0..order.len()).map(|i| order.item(i)).collect();
            let mut sorted = items.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..count), "{items:?}");
            let all: usize = sizes.iter().sum();
            let mut large: Vec<usize> = sizes.iter().copied().filter(|size| threads > 1 && count > threads && *size > all / (PART * threads)).collect();
            large.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
            large.truncate(MOST);
            assert!(items.iter().map(|i| sizes[*i]).take(large.len()).eq(large.iter().copied()), "{items:?} {sizes:?}");
            // The others as they stand.
            assert!(items[large.len()..].is_sorted());
        }
        assert_eq!(Order::new(5, 2, |_| 0).item(3), 3);
        assert_eq!((0..4).map(|i| Order::new(4, 2, |i| [1, 1, 1, 90][i]).item(i)).collect::<Vec<_>>(), [3, 0, 1, 2]);
    }
}

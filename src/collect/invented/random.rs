//! Numbers that look random and are the same for the same seed.

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed ^ 0x5be2_f00d)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// 0 … 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 0 … `n`, without `n`; 0 if there is no such number.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }

    /// True in that share of cases.
    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// A whole number with that mean: the part behind the point by chance.
    pub fn whole(&mut self, mean: f64) -> u64 {
        mean as u64 + u64::from(self.chance(mean.fract()))
    }

    /// About `mean`, between `1 - spread` and `1 + spread` times it.
    pub fn about(&mut self, mean: f64, spread: f64) -> f64 {
        mean * (1.0 + spread * (2.0 * self.unit() - 1.0))
    }

    /// A latency: most near `typical`, some ten times longer, few a hundred times.
    pub fn latency(&mut self, typical: f64) -> u64 {
        let bell = self.unit() + self.unit() + self.unit() - 1.5;
        let tail = if self.chance(0.02) { 1.0 + 3.5 * self.unit() } else { 0.0 };
        (typical * (bell * 1.2 + tail).exp()) as u64
    }

    /// One of `weights`, by weight; `None` if there are none.
    pub fn pick(&mut self, weights: impl Iterator<Item = u64> + Clone) -> Option<usize> {
        let mut left = self.below(weights.clone().sum());
        for (at, weight) in weights.enumerate() {
            if left < weight {
                return Some(at);
            }
            left -= weight;
        }
        None
    }
}

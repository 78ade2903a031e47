//! CPU quotas of cgroups, and how often each was used up: what tells a thread that its cgroup holds back from one that waits
//! for another to leave the CPU.
//!
//! Only cgroups of which somebody was seen, and those above them. Which of them have a quota is looked up when they are met and
//! now and then again; one that has is read at each tick (two small files).

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::tick::Quota;

/// cgroups without a quota that are looked at again in one tick.
const LOOKS: usize = 4;

/// What is known of cgroups, by path.
#[derive(Default)]
pub struct Quotas {
    /// Where the CPU controller is mounted; `None`: nowhere.
    root: Option<Root>,
    /// Those that have a quota, and what their counters were when they were read last.
    limited: FxHashMap<String, Option<Counters>>,
    /// Met since the last reading.
    fresh: Vec<String>,
    /// Those that have none, the one that is looked at next in front.
    others: VecDeque<String>,
    /// All of these: so that a crowd of processes costs no more than its cgroups.
    met: FxHashSet<String>,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq)]
struct Root {
    path: PathBuf,
    /// Files have the names of version 1.
    first: bool,
}

/// `cpu.stat`, as far as it is about quotas.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counters {
    periods: u64,
    throttled: u64,
    throttled_ns: u64,
}

impl Quotas {
    /// Of the machine as it is mounted.
    pub fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Quotas { root: root(&mounts), ..Quotas::default() }
    }

    /// A process was seen in that cgroup.
    pub fn meet(&mut self, cgroup: &str) {
        // What lies outside our cgroup namespace has no path here; the root has no quota.
        if self.root.is_none() || !cgroup.starts_with('/') || cgroup.split('/').any(|part| part == "..") {
            return;
        }
        let ends = cgroup.match_indices('/').map(|(at, _)| at).skip(1).chain([cgroup.len()]);
        for path in ends.map(|end| &cgroup[..end]).filter(|path| path.len() > 1) {
            if !self.met.contains(path) {
                self.met.insert(path.to_owned());
                self.fresh.push(path.to_owned());
            }
        }
    }

    /// What the quotas did since the last call, used up most often first. Of one that was not read then, nothing yet.
    pub fn since(&mut self) -> Vec<Quota> {
        let Some(root) = self.root.clone() else { return Vec::new() };
        let mut quotas = Vec::new();
        self.limited.retain(|cgroup, last| {
            let (Some((quota_ns, period_ns)), Some(now)) = (root.quota(cgroup), root.counters(cgroup)) else {
                // Gone, or without a quota now: a later one is another.
                self.fresh.push(cgroup.clone());
                return false;
            };
            let before = last.replace(now).filter(|before| before.periods < now.periods);
            quotas.extend(before.map(|before| Quota {
                cgroup: cgroup.clone(),
                quota_ns,
                period_ns,
                periods: now.periods - before.periods,
                throttled: now.throttled.saturating_sub(before.throttled),
                throttled_ns: now.throttled_ns.saturating_sub(before.throttled_ns),
            }));
            true
        });
        self.look(&root);
        quotas.sort_by(|a, b| b.throttled.cmp(&a.throttled).then_with(|| a.cgroup.cmp(&b.cgroup)));
        quotas
    }

    /// Whether those that are new have a quota, and some of the others have one now.
    fn look(&mut self, root: &Root) {
        let due = LOOKS.min(self.others.len());
        for cgroup in self.fresh.drain(..).chain(self.others.drain(..due)).collect::<Vec<_>>() {
            match (root.exists(&cgroup), root.quota(&cgroup)) {
                (false, _) => {
                    self.met.remove(&cgroup);
                }
                (true, None) => self.others.push_back(cgroup),
                (true, Some(_)) => {
                    let counters = root.counters(&cgroup);
                    self.limited.insert(cgroup, counters);
                }
            }
        }
    }
}

impl Root {
    fn read(&self, cgroup: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.path.join(&cgroup[1..]).join(name)).ok()
    }

    fn exists(&self, cgroup: &str) -> bool {
        self.path.join(&cgroup[1..]).is_dir()
    }

    /// Quota and period in ns; `None` without a quota.
    fn quota(&self, cgroup: &str) -> Option<(u64, u64)> {
        match self.first {
            true => {
                let quota = self.read(cgroup, "cpu.cfs_quota_us").filter(|text| !text.starts_with('-'))?;
                parse_quota(&format!("{} {}", quota.trim(), self.read(cgroup, "cpu.cfs_period_us")?))
            }
            false => parse_quota(&self.read(cgroup, "cpu.max")?),
        }
    }

    fn counters(&self, cgroup: &str) -> Option<Counters> {
        parse_counters(&self.read(cgroup, "cpu.stat")?)
    }
}

/// Where the CPU controller is: version 1 if it is mounted, else version 2.
fn root(mountinfo: &str) -> Option<Root> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        Some((place.split(' ').nth(4)?, kind.next()?, kind.nth(1)?))
    });
    let of = |wanted: &'static str| mounts.clone().filter(move |&(_, kind, _)| kind == wanted);
    let first = of("cgroup").find(|(.., options)| options.split(',').any(|option| option == "cpu"));
    let root = |path: &str, first| Root { path: path.into(), first };
    first.map(|(path, ..)| root(path, true)).or_else(|| of("cgroup2").next().map(|(path, ..)| root(path, false)))
}

/// `20000 100000` in µs; `max 100000` is none.
fn parse_quota(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<u64>().ok()?.checked_mul(1000));
    let (quota_ns, period_ns) = (numbers.next()??, numbers.next()??);
    (period_ns > 0).then_some((quota_ns, period_ns))
}

fn parse_counters(text: &str) -> Option<Counters> {
    let field = |name: &str| {
        text.lines().find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name)?.1.trim().parse::<u64>().ok())
    };
    let throttled_ns = field("throttled_time").or_else(|| field("throttled_usec")?.checked_mul(1000));
    Some(Counters {
        periods: field("nr_periods")?,
        throttled: field("nr_throttled")?,
        throttled_ns: throttled_ns.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "usage_usec 9\nnr_periods 71\nnr_throttled 69\nthrottled_usec 9486898\nnr_bursts 0\n";

    #[test]
    fn files_of_both_versions() {
        assert_eq!(parse_quota("20000 100000\n"), Some((20_000_000, 100_000_000)));
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota("20000\n"), None);
        let counters = Counters { periods: 71, throttled: 69, throttled_ns: 9_486_898_000 };
        assert_eq!(parse_counters(STAT), Some(counters));
        let first = STAT.replace("throttled_usec 9486898", "throttled_time 9486898000");
        assert_eq!(parse_counters(&first), Some(counters));
        assert_eq!(parse_counters("usage_usec 9\n"), None, "the CPU controller is not on here");
    }

    #[test]
    fn the_controller_is_found_where_it_is_mounted() {
        let second = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "31 23 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                      32 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(root(second), Some(Root { path: "/sys/fs/cgroup".into(), first: false }));
        let both = format!("{second}{hybrid}");
        assert_eq!(root(&both), Some(Root { path: "/sys/fs/cgroup/cpu".into(), first: true }));
        assert_eq!(root("1 0 8:1 / / rw - ext4 /dev/root rw\nodd line\n"), None);
    }

    /// A made-up hierarchy; removed when it is dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sberf-quotas-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Tree(path)
        }

        fn group(&self, cgroup: &str, max: &str, stat: &str) {
            let path = self.0.join(&cgroup[1..]);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("cpu.max"), max).unwrap();
            fs::write(path.join("cpu.stat"), stat).unwrap();
        }

        fn quotas(&self) -> Quotas {
            Quotas { root: Some(Root { path: self.0.clone(), first: false }), ..Quotas::default() }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_quota_is_told_of_from_its_second_reading_on_also_when_it_is_a_parents() {
        let tree = Tree::new("told");
        tree.group("/a", "20000 100000\n", "nr_periods 10\nnr_throttled 9\nthrottled_usec 7\n");
        tree.group("/a/b", "max 100000\n", "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
        let mut quotas = tree.quotas();
        quotas.meet("/a/b");
        quotas.meet("/../outside");
        quotas.meet("/");
        assert_eq!(quotas.since(), [], "met");
        tree.group("/a", "20000 100000\n", "nr_periods 20\nnr_throttled 17\nthrottled_usec 9\n");
        let quota = Quota {
            cgroup: "/a".into(),
            quota_ns: 20_000_000,
            period_ns: 100_000_000,
            periods: 10,
            throttled: 8,
            throttled_ns: 2000,
        };
        assert_eq!(quotas.since(), [quota]);
        assert_eq!(quotas.since(), [], "nobody wanted to run");
        // Taken off, set on the other, then gone.
        tree.group("/a", "max 100000\n", "nr_periods 30\nnr_throttled 20\nthrottled_usec 9\n");
        tree.group("/a/b", "50000 100000\n", "nr_periods 1\nnr_throttled 0\nthrottled_usec 0\n");
        (0..3).for_each(|_| assert_eq!(quotas.since(), []));
        tree.group("/a/b", "50000 100000\n", "nr_periods 3\nnr_throttled 0\nthrottled_usec 0\n");
        let told = quotas.since();
        assert_eq!((told[0].cgroup.as_str(), told[0].periods, told[0].share()), ("/a/b", 2, Some(0.0)));
        fs::remove_dir_all(tree.0.join("a")).unwrap();
        assert_eq!(quotas.since(), []);
        assert!(quotas.limited.is_empty());
    }
}

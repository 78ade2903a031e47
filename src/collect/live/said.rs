//! What libbpf and the kernel's verifier say when a load fails, kept instead of printed over the screen, and what of it tells
//! most.

use std::sync::{Mutex, Once, PoisonError};

/// The latest warnings; the end of them is what tells.
static WARNINGS: Mutex<String> = Mutex::new(String::new());
const KEPT_BYTES: usize = 16 << 10;

/// What libbpf says whenever anything fails.
const NOISE: [&str; 6] = [
    "BPF token",
    "failed to load BPF skeleton",
    "failed to load object",
    "Retrying without BTF",
    "failed to load: -",
    "probe_loading",
];

/// From now on libbpf's warnings are kept.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Warn, |_, text| {
            let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
            warnings.push_str(&text);
            let excess = warnings.len().saturating_sub(KEPT_BYTES);
            let cut = (excess..=warnings.len()).find(|&at| warnings.is_char_boundary(at)).unwrap_or(0);
            warnings.drain(..cut);
        })));
    });
}

/// What was said last that tells something; then all of it is forgotten.
pub fn last() -> String {
    telling(&std::mem::take(&mut *WARNINGS.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The verifier's last words and about which program, else libbpf's own last words.
fn telling(warnings: &str) -> String {
    let lines: Vec<&str> = warnings.lines().map(str::trim).collect();
    let libbpf = |line: &&&str| line.starts_with("libbpf:") && !NOISE.iter().any(|noise| line.contains(noise));
    let plain = |line: &str| line.trim_start_matches("libbpf: ").to_owned();
    // "processed N insns" ends the verifier's log, what it took offence at stands before that and its statistics.
    if let Some(end) = lines.iter().rposition(|line| line.starts_with("processed ")) {
        let statistic = |line: &str| line.starts_with("verification time") || line.starts_with("stack depth");
        let words = lines[..end].iter().rfind(|line| !statistic(line) && !line.is_empty());
        let program = lines[end..].iter().find(|line| line.starts_with("libbpf: prog '"));
        if let (Some(words), Some(program)) = (words, program) {
            let program = program.split('\'').nth(1).unwrap_or_default();
            return format!("the verifier says of `{program}`: {words}");
        }
    }
    lines.iter().rfind(libbpf).map(|line| plain(line)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_tell_most() {
        let said = "libbpf: prog 'tasks': BPF program load failed: -EINVAL\n\
            libbpf: prog 'tasks': -- BEGIN PROG LOAD LOG --\n0: R1=ctx() R10=fp0\n\
            combined stack size of 5 calls is 576. Too large\nverification time 12 usec\nstack depth 272+8\n\
            processed 70 insns (limit 1000000)\n-- END PROG LOAD LOG --\nlibbpf: prog 'tasks': failed to load: -EINVAL\n\
            libbpf: failed to load object 'sched_bpf'\nlibbpf: failed to load BPF skeleton 'sched_bpf': -EINVAL\n";
        assert_eq!(telling(said), "the verifier says of `tasks`: combined stack size of 5 calls is 576. Too large");
    }

    #[test]
    fn without_a_verifier_libbpf_tells() {
        let said = "libbpf: Error in bpf_create_map_xattr(threads): -EINVAL. Retrying without BTF.\n\
            libbpf: map 'threads': failed to create: -EINVAL\nlibbpf: failed to load BPF skeleton 'sched_bpf': -EINVAL\n";
        assert_eq!(telling(said), "map 'threads': failed to create: -EINVAL");
        assert_eq!(telling(""), "");
        assert_eq!(telling("processed 0 insns"), "");
    }
}

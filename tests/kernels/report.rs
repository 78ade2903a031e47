//! What a guest told, as a row of the table.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bounded::output;
use crate::qemu::{End, Log};
use crate::verifier::MOST_INSNS;

/// What came of a kernel.
pub enum Outcome {
    Passed,
    Skipped(String),
    Failed(Vec<String>),
}

/// One kernel.
pub struct Row {
    name: String,
    release: String,
    seconds: f64,
    /// Lenses: name, and why it is off.
    lenses: Vec<(String, Option<String>)>,
    /// Programs: name, instructions that the verifier looked at.
    insns: Vec<(String, u64)>,
    /// Checks: name, verdict, detail.
    checks: Vec<[String; 3]>,
    /// The last check that was begun.
    begun: String,
    pub outcome: Outcome,
}

impl Row {
    pub fn skipped(name: &str, why: &str) -> Row {
        Row {
            name: name.to_owned(),
            release: String::new(),
            seconds: 0.0,
            lenses: Vec::new(),
            insns: Vec::new(),
            checks: Vec::new(),
            begun: "nothing".to_owned(),
            outcome: Outcome::Skipped(why.to_owned()),
        }
    }

    /// From the lines that the guest wrote, their words parted by tabs.
    pub fn told(name: &str, release: &str, told: &str, seconds: f64) -> Row {
        let mut row = Row { release: release.to_owned(), seconds, ..Row::skipped(name, "") };
        for line in told.lines() {
            match line.split('\t').collect::<Vec<_>>().as_slice() {
                ["lens", name, why] => {
                    row.lenses.push(((*name).to_owned(), Some((*why).to_owned()).filter(|w| w != "on")))
                }
                ["insns", name, count] => row.insns.push(((*name).to_owned(), count.parse().unwrap_or(u64::MAX))),
                ["begin", name] => (*name).clone_into(&mut row.begun),
                ["check", name, verdict, detail] => {
                    row.checks.push([name, verdict, detail].map(|word| (*word).to_owned()))
                }
                _ => {}
            }
        }
        row
    }

    /// What all that comes to. A kernel that fell over is a failure, with a word or without; a machine too slow for its limit is not.
    pub fn judge(&mut self, end: End, errors: &str, log: &Log) {
        let mut failed: Vec<String> = self
            .checks
            .iter()
            .filter(|check| check[1] == "failed")
            .map(|[name, _, why]| format!("{name}: {why}"))
            .collect();
        failed.extend(self.insns.iter().filter(|(_, count)| *count > u64::from(MOST_INSNS)).map(|(name, count)| {
            format!("{name}: the verifier looked at {count} instructions, more than {MOST_INSNS}")
        }));
        let (begun, seconds, kept) = (&self.begun, self.seconds, log.kept.display());
        let last = log.text.trim().lines().last().unwrap_or("nothing");
        match last_words(&log.text) {
            Some(words) => {
                // It may have gone on without what fell.
                let at = if end == End::Reached { "somewhere".to_owned() } else { format!("at `{begun}`") };
                failed.push(format!("the kernel fell {at}; all it said is in {kept}:\n{words}"));
            }
            None if end == End::Fell => {
                failed.push(format!("the machine was gone after {seconds:.0} s, at `{begun}`; {kept} ends in: {last}"));
            }
            None => {}
        }
        if end == End::Reached && self.checks.is_empty() {
            failed.push(format!("the guest ended without a check: {}", errors.trim()));
        }
        self.outcome = match (failed.is_empty(), end) {
            (false, _) => Outcome::Failed(failed),
            (true, End::Late) => {
                Outcome::Skipped(format!("not done after {seconds:.0} s, at `{begun}`; {kept} ends in: {last}"))
            }
            (true, _) => Outcome::Passed,
        };
    }

    /// The capture that was written inside is read outside.
    pub fn judge_capture(&mut self, capture: &Path) {
        if !capture.exists() || !matches!(self.outcome, Outcome::Passed) {
            return;
        }
        let mut export = Command::new(env!("CARGO_BIN_EXE_sberf"));
        export.arg("export").arg(capture);
        let folded = output(export, Duration::from_secs(60));
        let deep = |folded: &String| folded.lines().any(is_deep);
        let detail = match &folded {
            Ok(folded) if deep(folded) => format!("{} stacks", folded.lines().count()),
            Ok(folded) if folded.contains("[no unwind table yet]") => "tables were not made in time inside".to_owned(),
            Ok(folded) => format!("no deep stack in:\n{}", folded.chars().take(500).collect::<String>()),
            Err(why) => why.clone(),
        };
        let good = folded.as_ref().is_ok_and(|folded| deep(folded) || folded.contains("[no unwind table yet]"));
        if !good {
            self.outcome = Outcome::Failed(vec![format!("capture read outside: {detail}")]);
        }
        let verdict = if good { "ok" } else { "failed" };
        self.checks.push(["capture read outside", verdict, &detail].map(str::to_owned));
    }

    /// All of it, for people.
    pub fn print(&self) {
        if let Outcome::Skipped(why) = &self.outcome {
            println!("skipped: kernel {}: {why}", self.name);
            return;
        }
        println!("\n{} ({}), {:.0} s", self.name, self.release, self.seconds);
        self.checks.iter().for_each(|[name, verdict, detail]| println!("  {verdict:7} {name}: {detail}"));
        for (name, why) in self.lenses.iter().filter_map(|(name, why)| Some((name, why.as_ref()?))) {
            println!("  off     {name}: {why}");
        }
        let insns: Vec<String> = self.insns.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("  verifier, instructions processed: {}", insns.join(", "));
        if let Outcome::Failed(why) = &self.outcome {
            why.iter().for_each(|why| println!("  FAILED  {why}"));
        }
    }

    fn lens(&self, name: &str) -> &'static str {
        match self.lenses.iter().find(|(lens, _)| lens == name) {
            Some((_, None)) => "yes",
            Some((_, Some(_))) => "no",
            None => "–",
        }
    }

    fn cells(&self) -> [String; 7] {
        let verdict = match &self.outcome {
            Outcome::Passed if self.lenses.is_empty() => "procfs alone, says why".to_owned(),
            Outcome::Passed => "yes".to_owned(),
            Outcome::Skipped(_) => "not tried".to_owned(),
            Outcome::Failed(why) => format!("{} checks failed", why.len()),
        };
        let off: Vec<&str> =
            self.lenses.iter().filter(|(_, why)| why.is_some()).map(|(name, _)| name.as_str()).collect();
        let missing = if off.is_empty() { "–".to_owned() } else { off.join(", ") };
        let most = self.insns.iter().max_by_key(|(_, count)| *count);
        let kernel = if self.release.is_empty() { self.name.clone() } else { self.release.clone() };
        let kernel = if self.name.contains(' ') { format!("{kernel}, {}", self.name) } else { kernel };
        [
            kernel,
            verdict,
            self.lens("unwind").to_owned(),
            self.lens("block").to_owned(),
            self.lens("numa").to_owned(),
            missing,
            most.map_or_else(|| "–".to_owned(), |(name, count)| format!("{count} (`{name}`)")),
        ]
    }
}

/// Whether it is of the program that was run inside, in a recursion. Names may be missing: they are looked up when there is time.
fn is_deep(line: &str) -> bool {
    let frames: Vec<&str> = line.rsplit_once(' ').map_or(line, |(stack, _)| stack).split(';').collect();
    frames.first() == Some(&"depth") && frames.windows(2).filter(|two| two[0] == two[1]).count() > 5
}

/// Whether the kernel says that something of it broke. Lockups are not among them: the host was busy.
fn is_fall(line: &str) -> bool {
    ["Kernel panic", "Oops: ", "BUG: kernel", "BUG: unable", "BUG: scheduling", "BUG: sleeping"]
        .iter()
        .any(|word| line.contains(word))
}

/// What a kernel says that falls: of what, where, in which code, and who called that.
fn last_words(log: &str) -> Option<String> {
    const CALLERS: usize = 12;
    let mut lines = log.lines().skip_while(|line| !is_fall(line)).map(|line| {
        // Without the time.
        line.split_once("] ").map_or(line, |(_, words)| words)
    });
    let mut words = vec![lines.next()?];
    // A panic of its own accord comes with less; then another report begins.
    let until_trace: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("Call Trace:")).collect();
    let telling = |line: &&str| ["CPU: ", "RIP: ", "Code: "].iter().any(|head| line.starts_with(head)) || is_fall(line);
    words.extend(until_trace.into_iter().filter(telling));
    words.extend(lines.take_while(|line| !line.contains("end trace") && !line.starts_with("RIP: ")).take(CALLERS));
    Some(words.iter().map(|line| format!("            {line}")).collect::<Vec<_>>().join("\n"))
}

/// The rows as Markdown.
pub fn table(rows: &[Row]) -> String {
    let head = "| kernel | loads, attaches, counts right | unwind tables | disks | NUMA | off | most instructions verified |\n|---|---|---|---|---|---|---|\n";
    head.to_owned() + &rows.iter().map(|row| format!("| {} |\n", row.cells().join(" | "))).collect::<String>()
}

/// Puts the table between its markers.
pub fn write_readme(rows: &[Row]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let (open, close) = ("<!-- kernels -->\n", "<!-- /kernels -->");
    let readme = fs::read_to_string(&path).expect("README.md");
    let start = readme.find(open).expect("README.md has the marker of kernels") + open.len();
    let end = start + readme[start..].find(close).expect("and its end");
    fs::write(&path, format!("{}\n{}\n{}", &readme[..start], table(rows), &readme[end..]))
        .expect("README.md can be written");
}

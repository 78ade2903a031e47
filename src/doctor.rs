//! `sberf doctor`: loads what `top` loads, and says what works here, what does not, why, and what would mend it.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use sberf::collect::live::LiveOptions;
use sberf::collect::privileges::{Privileges, WANTED, errno_name};
use sberf::collect::{self, Source};
use sberf::tick::{Basis, Grade, Origin, Refusal, Session, Signal, Standing};

use crate::Failure;
use crate::cli::Doctor;

/// Exit codes, beside those of every command.
const PARTLY: u8 = 3;
const NOT_AT_ALL: u8 = 4;

/// Cells of a line of the table.
const WIDTH: usize = 100;

/// How `top` can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Top {
    /// With everything there is to know.
    Fully,
    /// With some of it reduced or missing.
    Partly,
    /// Without BPF: by procfs alone.
    ProcfsOnly,
}

impl Top {
    fn of(session: &Session) -> Top {
        let lacks = |signal: &&Signal| signal.kind.counts() && signal.grade() >= Grade::Reduced;
        match session.basis {
            Basis::Procfs => Top::ProcfsOnly,
            Basis::Bpf if session.signals.iter().any(|signal| lacks(&signal)) => Top::Partly,
            Basis::Bpf => Top::Fully,
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Top::Fully => 0,
            Top::Partly => PARTLY,
            Top::ProcfsOnly => NOT_AT_ALL,
        }
    }
}

/// Prints the verdicts.
pub fn run(args: &Doctor) -> Result<(), Failure> {
    let session = collect::observe(LiveOptions::default()).session();
    let privileges = Privileges::read();
    let top = Top::of(&session);
    let text = if args.json { json(&session, &privileges, top) } else { table(&session, &privileges, top) };
    io::stdout().write_all(text.as_bytes())?;
    match top.exit_code() {
        0 => Ok(()),
        code => Err(Failure::Status(code)),
    }
}

/// Reasons are told once each, by number.
#[derive(Default)]
struct Reasons<'a>(Vec<&'a Refusal>);

impl<'a> Reasons<'a> {
    fn number(&mut self, refusal: &'a Refusal) -> usize {
        match self.0.iter().position(|known| *known == refusal) {
            Some(at) => at + 1,
            None => {
                self.0.push(refusal);
                self.0.len()
            }
        }
    }
}

fn table(session: &Session, privileges: &Privileges, top: Top) -> String {
    let mut text = String::new();
    let capabilities = match privileges.capabilities() {
        none if none.is_empty() => "no capability that matters".to_owned(),
        some => some.join(" "),
    };
    let Session { version, kernel, arch, .. } = session;
    put(&mut text, 0, &format!("sberf {version}, Linux {kernel} {arch}, uid {}, {capabilities}", privileges.uid));
    text.push('\n');
    let mut reasons = Reasons::default();
    for signal in &session.signals {
        rows(&mut text, signal, &mut reasons);
    }
    text.push('\n');
    for (at, refusal) in reasons.0.iter().enumerate() {
        let errno = refusal.errno.map_or(String::new(), |errno| format!(", {}", errno_name(errno)));
        put(&mut text, 6, &format!(" [{}]  {}{errno}", at + 1, refusal.why));
        if !refusal.remedy.is_empty() {
            put(&mut text, 12, &format!("      mend: {}", refusal.remedy));
        }
    }
    if !reasons.0.is_empty() {
        text.push('\n');
    }
    put(&mut text, 0, &closing(session, top));
    if let Some(command) = setcap(privileges) {
        // Not broken: it is there to be copied.
        text.push_str(&format!("All it needs, once and for all:\n  {command}\n"));
    }
    text
}

/// The lines of one signal: a source on each.
fn rows<'a>(text: &mut String, signal: &'a Signal, reasons: &mut Reasons<'a>) {
    let (title, grade) = (signal.kind.title(), signal.grade().name());
    let mut head = format!("  {title:<18} {grade:<8}");
    if let Some(why) = &signal.nothing {
        let _ = writeln!(text, "{head} {why}");
    }
    for source in &signal.sources {
        let standing = match &source.standing {
            Standing::InUse { less: None } => "in use".to_owned(),
            Standing::InUse { less: Some(less) } => format!("in use, but [{}]", reasons.number(less)),
            Standing::Spare => "not needed".to_owned(),
            Standing::Refused(refusal) => format!("no [{}]", reasons.number(refusal)),
        };
        let _ = writeln!(text, "{head} {:<48} {standing}", source.name);
        head = format!("  {:<18} {:<8}", "", "");
    }
}

fn closing(session: &Session, top: Top) -> String {
    let of = |grade: Grade| {
        let titles = session.signals.iter().filter(|signal| signal.kind.counts() && signal.grade() == grade);
        titles.map(|signal| signal.kind.title()).collect::<Vec<_>>().join(", ")
    };
    let lists = [(Grade::Missing, "missing"), (Grade::Reduced, "reduced")];
    let lists = lists.map(|(grade, word)| (of(grade), word));
    let lists = lists.iter().filter(|(titles, _)| !titles.is_empty());
    let lists = lists.map(|(titles, word)| format!("{word}: {titles}")).collect::<Vec<_>>().join("; ");
    match top {
        Top::Fully => "sberf top works fully here.".into(),
        Top::Partly => format!("sberf top works partly here; {lists}."),
        Top::ProcfsOnly => format!("sberf top shows what procfs says here, and no more; {lists}."),
    }
}

/// The command that grants this program what it lacks, if that is how it would get it.
fn setcap(privileges: &Privileges) -> Option<String> {
    let missing = privileges.missing(&WANTED);
    let may_have = |bit: u32| privileges.bounding.is_none_or(|bounding| bounding >> bit & 1 == 1);
    let lacks = !missing.is_empty() && WANTED.iter().all(|capability| may_have(capability.bit));
    let all = WANTED.map(|capability| capability.name.to_lowercase()).join(",");
    lacks.then(|| format!("sudo setcap {all}+ep {}", quoted(&privileges.program)))
}

/// For a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// A line, broken at words; what follows is indented. Control characters do not reach the terminal.
fn put(text: &mut String, indent: usize, line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let mut used = 0;
    for word in line.split_inclusive(' ') {
        let length = word.trim_end().chars().count();
        if used > indent && used + length > WIDTH {
            text.truncate(text.trim_end().len());
            let _ = write!(text, "\n{:indent$}", "");
            used = indent;
        }
        text.push_str(word);
        used += word.chars().count();
    }
    text.push('\n');
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    version: &'a str,
    kernel: &'a str,
    arch: &'a str,
    top: Top,
    uid: u32,
    capabilities: Vec<&'static str>,
    settings: Settings,
    signals: Vec<SignalObject<'a>>,
}

#[derive(Serialize)]
struct Settings {
    perf_event_paranoid: Option<i64>,
    unprivileged_bpf_disabled: Option<i64>,
    kptr_restrict: Option<i64>,
    lockdown: &'static str,
    seccomp_filter: bool,
    no_new_privs: bool,
    user_namespace: bool,
    pid_namespace: bool,
    btf: bool,
    nosuid: bool,
}

#[derive(Serialize)]
struct SignalObject<'a> {
    name: &'static str,
    title: &'static str,
    grade: &'static str,
    counts: bool,
    in_use: Option<&'a str>,
    nothing: Option<&'a str>,
    sources: Vec<SourceObject<'a>>,
}

#[derive(Serialize)]
struct SourceObject<'a> {
    name: &'a str,
    standing: &'static str,
    why: Option<&'a str>,
    errno: Option<String>,
    remedy: Option<&'a str>,
}

fn json(session: &Session, privileges: &Privileges, top: Top) -> String {
    let report = Report {
        schema: "sberf.doctor/1",
        version: &session.version,
        kernel: &session.kernel,
        arch: &session.arch,
        top,
        uid: privileges.uid,
        capabilities: privileges.capabilities(),
        settings: Settings {
            perf_event_paranoid: privileges.perf_event_paranoid,
            unprivileged_bpf_disabled: privileges.unprivileged_bpf_disabled,
            kptr_restrict: privileges.kptr_restrict,
            lockdown: privileges.lockdown.name(),
            seccomp_filter: privileges.seccomp_filter,
            no_new_privs: privileges.no_new_privs,
            user_namespace: privileges.user_namespace,
            pid_namespace: privileges.pid_namespace,
            btf: privileges.btf,
            nosuid: privileges.nosuid,
        },
        signals: session.signals.iter().map(signal_object).collect(),
    };
    // Strings and lists only: this cannot fail.
    serde_json::to_string(&report).unwrap_or_default() + "\n"
}

fn signal_object(signal: &Signal) -> SignalObject<'_> {
    SignalObject {
        name: signal.kind.key(),
        title: signal.kind.title(),
        grade: signal.grade().name(),
        counts: signal.kind.counts(),
        in_use: signal.in_use().map(|source| source.name.as_str()),
        nothing: signal.nothing.as_deref(),
        sources: signal.sources.iter().map(source_object).collect(),
    }
}

fn source_object(source: &Origin) -> SourceObject<'_> {
    let (standing, refusal) = match &source.standing {
        Standing::InUse { less } => ("in_use", less.as_ref()),
        Standing::Spare => ("not_needed", None),
        Standing::Refused(refusal) => ("refused", Some(refusal)),
    };
    SourceObject {
        name: &source.name,
        standing,
        why: refusal.map(|refusal| refusal.why.as_str()),
        errno: refusal.and_then(|refusal| refusal.errno).map(errno_name),
        remedy: refusal.map(|refusal| refusal.remedy.as_str()).filter(|remedy| !remedy.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sberf::tick::SignalKind;

    fn signal(kind: SignalKind, standings: Vec<Standing>) -> Signal {
        let sources = standings.into_iter().enumerate();
        let sources = sources.map(|(at, standing)| Origin { name: format!("source {at}"), whole: true, standing });
        Signal { kind, sources: sources.collect(), nothing: None }
    }

    fn refused() -> Standing {
        Standing::Refused(Refusal { why: "CAP_SYSLOG missing".into(), errno: Some(libc::EPERM), remedy: "sudo".into() })
    }

    #[test]
    fn a_table_with_each_reason_once() {
        let used = Standing::InUse { less: None };
        let mut session =
            Session { version: "1".into(), kernel: "6.18".into(), arch: "x86_64".into(), ..Session::default() };
        session.signals = vec![
            signal(SignalKind::Samples, vec![refused(), used.clone(), Standing::Spare]),
            signal(SignalKind::KernelNames, vec![refused()]),
            Signal { nothing: Some("one node".into()), kind: SignalKind::NumaMoves, sources: Vec::new() },
        ];
        let all = Privileges { effective: None, ..Privileges::default() };
        let expected = "\
sberf 1, Linux 6.18 x86_64, uid 0, no capability that matters

  on-CPU samples     full     source 0                                         no [1]
                              source 1                                         in use
                              source 2                                         not needed
  kernel names       missing  source 0                                         no [1]
  NUMA moves         nothing  one node

 [1]  CAP_SYSLOG missing, EPERM
      mend: sudo

sberf top works partly here; missing: kernel names.
";
        assert_eq!(table(&session, &all, Top::of(&session)), expected);
        assert_eq!(Top::of(&session).exit_code(), PARTLY);
        session.signals.remove(1);
        assert_eq!(Top::of(&session), Top::Fully);
        session.basis = Basis::Procfs;
        assert_eq!(Top::of(&session).exit_code(), NOT_AT_ALL);
    }

    #[test]
    fn long_lines_are_broken_at_words_and_tame() {
        let mut text = String::new();
        put(&mut text, 2, &format!("{} {}\x1b[2J", "a".repeat(60), "b".repeat(60)));
        assert_eq!(text, format!("{}\n  {}\u{fffd}[2J\n", "a".repeat(60), "b".repeat(60)));
        assert_eq!((quoted("/usr/bin/sberf"), quoted("/a b/'x")), ("/usr/bin/sberf".into(), "'/a b/'\\''x'".into()));
    }
}

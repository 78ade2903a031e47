//! The captures that are in the repository: recorded on real kernels, still read, and with nothing in them that is
//! nobody's business.

use std::path::{Path, PathBuf};

use sberf::collect::capture::Reader;
use sberf::model::{Limits, Model};
use sberf::tick::{Batch, Names, Session, Tick};

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let within = |dir: &str| std::fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let files = within("assets").chain(within("tests/data"));
    let captures: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "sberf")).collect();
    assert!(captures.len() >= 2, "{captures:?}");
    captures
}

fn read(path: &Path) -> (Session, Vec<Batch>) {
    let mut reader = Reader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let session = reader.session().clone();
    let next = || reader.next_batch().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (session, std::iter::from_fn(next).collect())
}

fn ticks(batches: &[Batch]) -> impl Iterator<Item = &Tick> {
    batches.iter().filter_map(|batch| match batch {
        Batch::Tick(tick) => Some(&**tick),
        Batch::Names(_) => None,
    })
}

fn names(batches: &[Batch]) -> impl Iterator<Item = &Names> {
    batches.iter().map(|batch| match batch {
        Batch::Tick(tick) => &tick.names,
        Batch::Names(names) => names,
    })
}

#[test]
fn they_read_to_their_end_and_hold_a_machine() {
    for path in shipped() {
        let (session, batches) = read(&path);
        assert!(!session.cpus.is_empty() && !session.kernel.is_empty(), "{}", path.display());
        let size = path.metadata().unwrap().len();
        let limit = if path.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")) { 1500 } else { 200 };
        assert!(size <= limit * 1000, "{}: {size} bytes", path.display());
        let mut model = Model::new(session, Limits::default());
        for batch in batches {
            match batch {
                Batch::Tick(tick) => model.apply(*tick),
                Batch::Names(names) => model.learn(*names),
            }
        }
        assert!(model.ticks() >= 3 && model.processes().count() > 10, "{}", path.display());
    }
}

#[test]
fn ticks_follow_each_other_without_a_gap() {
    for path in shipped() {
        let (_, batches) = read(&path);
        let spans: Vec<_> = ticks(&batches).map(|tick| tick.span).collect();
        for pair in spans.windows(2) {
            assert_eq!(pair[0].end_ns, pair[1].start_ns, "{}", path.display());
        }
    }
}

#[test]
fn they_name_nobodys_home_and_no_host() {
    for path in shipped() {
        let (session, batches) = read(&path);
        let mut texts = vec![session.hostname, session.command];
        for names in names(&batches) {
            texts.extend(names.modules.iter().map(|(_, module)| module.path.clone()));
            texts.extend(
                names
                    .details
                    .iter()
                    .flat_map(|(_, detail)| (0..8).filter_map(|nth| Some(detail.line_in(nth)?.file.clone()))),
            );
            texts.extend(names.users.iter().map(|(_, user)| user.clone()));
        }
        for facts in ticks(&batches).flat_map(|tick| &tick.processes) {
            texts.extend(facts.cmdline.iter().flatten().chain(&facts.exe).chain(&facts.cgroup).cloned());
        }
        let private = |text: &&String| {
            ["/root/", "/home/", "/work/", ".ssh", "token", "@"].iter().any(|word| text.contains(word))
        };
        let found: Vec<_> = texts.iter().filter(private).collect();
        assert!(found.is_empty(), "{}: {found:?}", path.display());
        assert_eq!(texts[0], "demo");
    }
}

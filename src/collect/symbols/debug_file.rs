//! Where the debug information of a stripped file went: by build id, or by the name and checksum that the file keeps of it.
//!
//! It is looked for where the process sees its files, and then here. What is found is taken only if it says that it belongs
//! to this very file; what stands in it is as untrusted as the file itself.

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::collect::object::Object;

/// Where distributions put it.
const DEBUG_DIR: &str = "usr/lib/debug";
/// A checksum over a larger file is not computed: it takes a second.
const MAX_CHECKED: u64 = 1 << 30;
const CHUNK: usize = 1 << 20;

/// How a file is seen by a process that runs it.
pub struct Seen<'a> {
    /// Its path there.
    pub path: &'a str,
    /// The directory of the process in procfs; it may be gone.
    pub process: Option<&'a OwnedFd>,
}

/// The file with symbols and debug information that belongs to `object`.
pub fn find(object: &Object, seen: &Seen<'_>) -> Option<Object> {
    let id = object.build_id();
    let link = object.debug_link();
    if id.is_none() && link.is_none() {
        return None;
    }
    let own_root = root_of("/proc/self");
    let theirs = seen.process.and_then(|process| openat(process, "root", OPEN_DIR, Mode::empty()).ok());
    // Most processes have the root that we have.
    let theirs = theirs.filter(|theirs| !own_root.as_ref().is_some_and(|own| is_same(own, theirs)));
    let below = theirs.as_ref().and(seen.process).and_then(|process| path_below_root(process, seen.path));
    let roots = [(theirs, below.as_deref().unwrap_or(seen.path)), (own_root, seen.path)];
    roots.into_iter().filter_map(|(root, path)| Some((root?, path))).find_map(|(root, path)| {
        candidates(id.as_deref(), link.as_ref(), path).into_iter().find_map(|candidate| {
            let found = Object::open(Arc::new(open_below(&root, &candidate.path)?))?;
            belongs(object, id.as_deref(), &found, candidate.crc).then_some(found)
        })
    })
}

/// The path of a file below the root of a process: its root may be a directory of its mounts, and paths are told from the
/// root of those.
fn path_below_root(process: &OwnedFd, path: &str) -> Option<String> {
    let root = rustix::fs::readlinkat(process, "root", Vec::new()).ok()?.into_string().ok()?;
    let below = path.strip_prefix(&root)?;
    (root != "/" && below.starts_with('/')).then(|| below.to_owned())
}

/// A path below the root, and the checksum of what should be there.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    path: String,
    crc: Option<u32>,
}

fn candidates(id: Option<&[u8]>, link: Option<&(String, u32)>, path: &str) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    if let Some(path) = id.and_then(by_build_id) {
        candidates.push(Candidate { path, crc: None });
    }
    if let Some((name, crc)) = link
        && let Some((dir, _)) = path.trim_start_matches('/').rsplit_once('/')
    {
        let paths = [format!("{dir}/{name}"), format!("{dir}/.debug/{name}"), format!("{DEBUG_DIR}/{dir}/{name}")];
        candidates.extend(paths.map(|path| Candidate { path, crc: Some(*crc) }));
    }
    candidates
}

/// `usr/lib/debug/.build-id/ab/cdef….debug`.
fn by_build_id(id: &[u8]) -> Option<String> {
    let (first, rest) = id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{DEBUG_DIR}/.build-id/{first:02x}/{rest}.debug"))
}

/// Whether what was found is of that file: by build id, or by checksum where one of them has none.
fn belongs(object: &Object, id: Option<&[u8]>, found: &Object, crc: Option<u32>) -> bool {
    let has_more = found.section(".debug_info").is_some() || found.section(".symtab").is_some();
    let is_itself = is_same(object.file(), found.file());
    if !has_more || is_itself {
        return false;
    }
    match (id, found.build_id(), crc) {
        (Some(id), Some(other), _) => id == other,
        (_, _, Some(crc)) => checksum(found.file()) == Some(crc),
        _ => false,
    }
}

/// CRC-32 of a whole file.
fn checksum(file: &File) -> Option<u32> {
    let bytes = file.metadata().ok()?.len();
    if bytes > MAX_CHECKED {
        return None;
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes {
        let got @ 1.. = file.read_at(&mut chunk, at).ok()? else { return None };
        hasher.update(chunk.get(..got)?);
        at += got as u64;
    }
    Some(hasher.finalize())
}

const OPEN_DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn root_of(process: &str) -> Option<OwnedFd> {
    rustix::fs::open(format!("{process}/root"), OPEN_DIR, Mode::empty()).ok()
}

fn is_same(one: impl AsFd, other: impl AsFd) -> bool {
    let id = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    matches!((fstat(one), fstat(other)), (Ok(one), Ok(other)) if id(one) == id(other))
}

/// Opens a regular file below a directory that stands for a root: links on the way do not lead out of it.
fn open_below(root: &OwnedFd, path: &str) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(root, path, flags, Mode::empty(), resolve).ok()?);
    let regular = FileType::from_raw_mode(fstat(&file).ok()?.st_mode) == FileType::RegularFile;
    regular.then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::symbols::oracle::Built;
    use std::path::Path;

    const SOURCE: &str =
        "static int quiet(int n) { return n * 3; } int main(int n, char **v) { return quiet(n) + !v; }";

    fn open(path: &Path) -> Object {
        Object::open(Arc::new(File::open(path).unwrap())).unwrap()
    }

    /// Strips the program; its debug information goes to `fixture.debug` beside it, named by a link.
    fn split(flags: &[&str]) -> Option<Built> {
        let built = Built::c("cc", SOURCE, &[&["-g", "-O0"], flags].concat())?;
        let done = built.tool("objcopy", &["--only-keep-debug", "fixture", "fixture.debug"])
            && built.tool("objcopy", &["--strip-all", "--add-gnu-debuglink=fixture.debug", "fixture"]);
        done.then_some(built)
    }

    fn found(built: &Built) -> Option<Object> {
        find(&open(&built.path), &Seen { path: built.path.to_str().unwrap(), process: None })
    }

    #[test]
    fn by_the_link_and_only_what_belongs_to_it() {
        // By build id, and by checksum where there is none.
        for flags in [["-Wl,--build-id=sha1"], ["-Wl,--build-id=none"]] {
            let Some(built) = split(&flags) else { return };
            assert!(found(&built).is_some_and(|found| found.section(".debug_info").is_some()), "{flags:?}");
            let hidden = built.dir().join(".debug");
            std::fs::create_dir(&hidden).unwrap();
            std::fs::rename(built.dir().join("fixture.debug"), hidden.join("fixture.debug")).unwrap();
            assert!(found(&built).is_some(), "{flags:?}");
            // Another program's, under the same name.
            let other = Built::c("cc", "int main(void) { return 7; }", &["-g", flags[0]]).unwrap();
            std::fs::copy(&other.path, hidden.join("fixture.debug")).unwrap();
            assert!(found(&built).is_none(), "{flags:?}");
            // What is no file at all.
            std::fs::remove_file(hidden.join("fixture.debug")).unwrap();
            assert!(built.tool("mkfifo", &[".debug/fixture.debug"]));
            assert!(found(&built).is_none(), "{flags:?}");
        }
    }

    #[test]
    fn by_build_id_below_the_root() {
        assert_eq!(by_build_id(&[0xab, 0xcd, 0x01]).as_deref(), Some("usr/lib/debug/.build-id/ab/cd01.debug"));
        assert_eq!((by_build_id(&[]), by_build_id(&[1])), (None, None));
        let path = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
        let Some(libc) = path.exists().then(|| open(path)) else { return };
        let id = libc.build_id().and_then(|id| by_build_id(&id)).unwrap();
        match (Path::new("/").join(&id).exists(), find(&libc, &Seen { path: path.to_str().unwrap(), process: None })) {
            (true, Some(found)) => assert_eq!(found.build_id(), libc.build_id()),
            (false, None) => eprintln!("skipped in part: no debug information of the C library here"),
            (there, found) => panic!("{id}: there: {there}, found: {}", found.is_some()),
        }
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("inside"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../../etc/passwd", dir.path().join("up")).unwrap();
        std::os::unix::fs::symlink("/inside", dir.path().join("within")).unwrap();
        let root = rustix::fs::open(dir.path(), OPEN_DIR, Mode::empty()).unwrap();
        assert!(open_below(&root, "absolute").is_none() && open_below(&root, "up").is_none());
        assert!(open_below(&root, "within").is_some() && open_below(&root, "../inside").is_some());
        assert!(open_below(&root, "").is_none() && open_below(&root, ".").is_none());
    }
}

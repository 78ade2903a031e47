//! Who called sudo: a command that is to be observed runs as that user, not as root.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Gid, Uid, geteuid};

/// Whoever called sudo.
pub struct Caller {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
    /// What sudo has set to root's.
    pub env: Vec<(&'static str, OsString)>,
}

/// Whoever called sudo; `None` if we are not root, or nobody but root did. An error is one line.
pub fn caller() -> Result<Option<Caller>, String> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let Some((uid, gid)) = ids(|name| std::env::var(name).ok())? else { return Ok(None) };
    let entry = entry(uid);
    let mut groups = groups(entry.as_ref().map(|entry| entry.name.as_str()));
    if !groups.contains(&gid) {
        groups.push(gid);
    }
    let env = entry.map_or_else(Vec::new, |entry| {
        vec![("HOME", entry.home.into()), ("USER", entry.name.clone().into()), ("LOGNAME", entry.name.into())]
    });
    let groups = groups.into_iter().map(Gid::from_raw).collect();
    Ok(Some(Caller { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups, env }))
}

/// User and group that sudo names. Half of them, or what is no number, is an error: better not run than as root.
fn ids(env: impl Fn(&str) -> Option<String>) -> Result<Option<(u32, u32)>, String> {
    let id = |name: &str| match env(name) {
        None => Ok(None),
        Some(text) => match text.parse::<u32>() {
            // -1 would mean "leave it as it is", which is root.
            Ok(id) if id != u32::MAX => Ok(Some(id)),
            _ => Err(format!("{name} is {text:?}, not an id; unset it to run the command as root")),
        },
    };
    match (id("SUDO_UID")?, id("SUDO_GID")?) {
        (None | Some(0), _) => Ok(None),
        (Some(uid), Some(gid)) => Ok(Some((uid, gid))),
        (Some(_), None) => Err("SUDO_UID is set and SUDO_GID is not; unset it to run the command as root".into()),
    }
}

/// A line of passwd(5).
struct Entry {
    name: String,
    home: String,
}

fn entry(uid: u32) -> Option<Entry> {
    let parse = |text: &str| text.lines().find_map(|line| parse(line, uid));
    // Users may be known elsewhere than in the file.
    let asked = || run("getent", &["passwd", &uid.to_string()]);
    fs::read_to_string("/etc/passwd").ok().as_deref().and_then(parse).or_else(|| parse(&asked()?))
}

fn parse(line: &str, uid: u32) -> Option<Entry> {
    let fields: Vec<&str> = line.split(':').collect();
    match fields.as_slice() {
        [name, _, id, _, _, home, ..] if id.parse() == Ok(uid) && !name.is_empty() => {
            Some(Entry { name: (*name).into(), home: (*home).into() })
        }
        _ => None,
    }
}

/// All groups of a user, none if they cannot be found out.
fn groups(user: Option<&str>) -> Vec<u32> {
    let text = user.and_then(|user| run("id", &["-G", user])).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// What a program of the system says. Not searched for in PATH: we are root.
fn run(program: &str, args: &[&str]) -> Option<String> {
    let found = ["/usr/bin", "/bin"].map(|dir| format!("{dir}/{program}"));
    let path = found.iter().find(|path| fs::exists(path).unwrap_or(false))?;
    let output = Command::new(path).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids_of(uid: Option<&str>, gid: Option<&str>) -> Result<Option<(u32, u32)>, String> {
        ids(|name| if name == "SUDO_UID" { uid } else { gid }.map(String::from))
    }

    #[test]
    fn whoever_called_sudo() {
        assert_eq!(ids_of(Some("1000"), Some("100")), Ok(Some((1000, 100))));
        assert_eq!(ids_of(None, None), Ok(None));
        assert_eq!(ids_of(Some("0"), Some("0")), Ok(None));
        for (uid, gid) in
            [(Some("1000"), None), (Some("ci"), Some("100")), (Some("4294967295"), Some("1")), (Some(""), None)]
        {
            assert!(ids_of(uid, gid).is_err(), "{uid:?} {gid:?}");
        }
    }

    #[test]
    fn lines_of_passwd() {
        let found = parse("ci:x:1000:100:CI,,,:/home/ci:/bin/sh", 1000).map(|entry| (entry.name, entry.home));
        assert_eq!(found, Some(("ci".into(), "/home/ci".into())));
        for line in ["ci:x:1000:100:CI,,,:/home/ci:/bin/sh", "x:1001", ":x:1001:1::/:", ""] {
            assert!(parse(line, 1001).is_none(), "{line}");
        }
    }

    #[test]
    fn root_is_in_the_group_of_root() {
        assert!(groups(Some("root")).contains(&0));
        assert!(groups(Some("no such user")).is_empty());
    }
}

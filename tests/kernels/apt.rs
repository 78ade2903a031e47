//! A package tree of our own: the machine's mirrors, other suites, none of the machine's own state touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bounded::output;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LISTS: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(30);
const DOWNLOAD: Duration = Duration::from_secs(100);

/// Package lists of some suites.
pub struct Tree {
    config: PathBuf,
}

impl Tree {
    /// Fetches the lists of these suites into `dir`.
    ///
    /// # Errors
    /// Why they cannot be had here.
    pub fn new(dir: &Path, suites: &[&str]) -> Result<Self, String> {
        if !Path::new(KEYRING).exists() {
            return Err(format!("no {KEYRING}: packages of Debian kernels cannot be checked here"));
        }
        let config = dir.join("apt.conf");
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part)).map_err(|error| format!("{}: {error}", dir.display()))?;
        }
        let (main, security) = mirrors()?;
        let sources: String = suites
            .iter()
            .map(|suite| {
                let mirror = if suite.ends_with("-security") { &security } else { &main };
                format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")
            })
            .collect();
        let at = dir.display();
        let settings = format!(
            "Dir::State \"{at}\";\nDir::State::lists \"{at}/lists\";\nDir::State::status \"/var/lib/dpkg/status\";\n\
             Dir::Cache \"{at}/cache\";\nDir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"2\";\nAPT::Sandbox::User \"root\";\n"
        );
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).map_err(|error| format!("{at}: {error}"));
        write("sources.list", &sources)?;
        write("apt.conf", &settings)?;
        let tree = Tree { config };
        output(tree.command("apt-get", &["-qq", "update"]), LISTS)?;
        Ok(tree)
    }

    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = Command::new(tool);
        command.args(args).env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    /// Packages whose name begins so. Some have no version: they are only referred to.
    pub fn named(&self, prefix: &str) -> Result<Vec<String>, String> {
        let names = output(self.command("apt-cache", &["pkgnames", prefix]), LOOK)?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Whether there is such a package.
    pub fn has(&self, package: &str) -> bool {
        let policy = output(self.command("apt-cache", &["policy", package]), LOOK).unwrap_or_default();
        let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        candidate.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
    }

    /// Downloads packages and unpacks them into `dir`; nothing is installed.
    pub fn unpack(&self, packages: &[String], dir: &Path) -> Result<(), String> {
        let mut args = vec!["-qq", "download"];
        args.extend(packages.iter().map(String::as_str));
        let mut command = self.command("apt-get", &args);
        command.current_dir(dir);
        output(command, DOWNLOAD)?;
        let files = fs::read_dir(dir).map_err(|error| error.to_string())?;
        for file in
            files.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "deb"))
        {
            let mut command = Command::new("dpkg");
            command.arg("-x").arg(&file).arg(dir);
            output(command, DOWNLOAD)?;
            let _ = fs::remove_file(file);
        }
        Ok(())
    }
}

/// Where this machine has Debian from: the archive, and that of security updates.
fn mirrors() -> Result<(String, String), String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).env_remove("APT_CONFIG");
    let all: BTreeSet<String> =
        output(command, LOOK)?.lines().map(|line| line.trim_end_matches('/').to_owned()).collect();
    let main = all.iter().find(|uri| uri.ends_with("/debian")).ok_or("apt has no mirror of Debian here")?;
    let security = all.iter().find(|uri| uri.contains("security")).cloned();
    Ok((main.clone(), security.unwrap_or_else(|| format!("{main}-security"))))
}

//! A client of debuginfod: debug information by build id, from the servers of DEBUGINFOD_URLS, kept where other such clients
//! keep it (`debuginfod(8)`), so that what one of them fetched serves all.
//!
//! A server is somebody else's. What it sends is taken up to a size and a time, and kept only if it is an ELF file that has
//! the build id that was asked for; whoever reads it then trusts it no more than the file that it belongs to.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::collect::object::Object;

/// Longest wait for a connection, and for the next bytes.
const PATIENCE: Duration = Duration::from_secs(20);
/// What one file may take.
const MAX_BYTES: u64 = 512 << 20;
const MAX_TIME: Duration = Duration::from_secs(300);
const MAX_REDIRECTS: u32 = 4;
const CHUNK: usize = 64 << 10;
/// Certificates of authorities: the largest known collection has 0.3 MB.
const MAX_CERTIFICATES: u64 = 4 << 20;
/// Where distributions keep those, for a machine may know others than we do.
const CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Which servers are asked, and where what they send is kept.
#[derive(Clone, Debug)]
pub struct Debuginfod {
    /// `http://` or `https://`, without a slash at the end; in the order in which they are asked.
    servers: Vec<String>,
    cache: PathBuf,
    max_bytes: u64,
    max_time: Duration,
}

/// What became of asking for a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// It is in the cache now: its bytes, and the server that had it.
    pub fetched: Option<(u64, String)>,
    /// What went wrong, by server. That one does not have it is nothing wrong.
    pub failures: Vec<(String, String)>,
}

impl Debuginfod {
    /// As the environment has it: DEBUGINFOD_URLS, and DEBUGINFOD_CACHE_PATH, XDG_CACHE_HOME or HOME.
    ///
    /// # Errors
    /// What is not set, and what would mend it.
    pub fn from_env() -> Result<Self, String> {
        Self::configured(&|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    fn configured(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let urls = variable("DEBUGINFOD_URLS").ok_or(
            "DEBUGINFOD_URLS is not set: it names the servers to ask, like https://debuginfod.debian.net \
             (sudo drops it: sudo --preserve-env=DEBUGINFOD_URLS)",
        )?;
        // Other clients take file:// there, and words about signatures.
        let is_server = |url: &&str| url.starts_with("https://") || url.starts_with("http://");
        let servers: Vec<String> =
            urls.split_whitespace().filter(is_server).map(|url| url.trim_end_matches('/').to_owned()).collect();
        if servers.is_empty() {
            return Err(format!("DEBUGINFOD_URLS names no http:// or https:// server: {}", urls.trim()));
        }
        let below = |name: &str, dir: &str| variable(name).map(|path| Path::new(&path).join(dir));
        let cache = variable("DEBUGINFOD_CACHE_PATH")
            .map(PathBuf::from)
            .or_else(|| below("XDG_CACHE_HOME", "debuginfod_client"))
            .or_else(|| below("HOME", ".cache/debuginfod_client"))
            .filter(|path| path.is_absolute())
            .ok_or("there is nowhere to keep what is fetched: set HOME, XDG_CACHE_HOME or DEBUGINFOD_CACHE_PATH")?;
        Ok(Debuginfod { servers, cache, max_bytes: MAX_BYTES, max_time: MAX_TIME })
    }

    /// What was fetched before, by us or by another client; it may be anything.
    pub fn cached(&self, id: &[u8]) -> Option<Object> {
        let path = self.dir_of(id)?.join("debuginfo");
        let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(nofollow.bits() as i32).open(path).ok()?;
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let object = if is_file { Object::open(Arc::new(file))? } else { return None };
        (object.build_id().as_deref() == Some(id)).then_some(object)
    }

    /// Asks one server after the other until one has it. Ends early, with nothing, once `stop` is set.
    pub fn fetch(&self, id: &[u8], stop: &AtomicBool) -> Answer {
        let mut answer = Answer::default();
        let Some(dir) = self.dir_of(id) else { return answer };
        let agent = self.agent();
        for server in &self.servers {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match self.fetch_from(&agent, server, id, &dir, stop) {
                Ok(Some(bytes)) => {
                    answer.fetched = Some((bytes, server.clone()));
                    break;
                }
                Ok(None) => {}
                Err(why) => answer.failures.push((server.clone(), why)),
            }
        }
        answer
    }

    /// Bytes of what is now in the cache; `None` if the server does not have it.
    fn fetch_from(
        &self,
        agent: &ureq::Agent,
        server: &str,
        id: &[u8],
        dir: &Path,
        stop: &AtomicBool,
    ) -> Result<Option<u64>, String> {
        let url = format!("{server}/buildid/{}/debuginfo", hex(id));
        let response = match agent.get(&url).call() {
            Ok(response) => response,
            Err(ureq::Error::StatusCode(404)) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut body = response.into_body();
        if body.content_length().is_some_and(|bytes| bytes > self.max_bytes) {
            return Err(self.too_large());
        }
        let part = Part::create(dir).map_err(|error| format!("keeping it in {}: {error}", dir.display()))?;
        let bytes = self.copy(&mut body.as_reader(), &part, stop)?;
        let object = Object::open(Arc::clone(&part.file));
        if object.and_then(|object| object.build_id()).as_deref() != Some(id) {
            return Err("what it sent is no ELF file with that build id".into());
        }
        part.keep(&dir.join("debuginfo")).map_err(|error| format!("keeping it in {}: {error}", dir.display()))?;
        Ok(Some(bytes))
    }

    fn copy(&self, from: &mut impl Read, part: &Part, stop: &AtomicBool) -> Result<u64, String> {
        let mut chunk = vec![0; CHUNK];
        let mut bytes = 0;
        while !stop.load(Ordering::Relaxed) {
            let got = from.read(&mut chunk).map_err(|error| error.to_string())?;
            let Some(got) = chunk.get(..got).filter(|got| !got.is_empty()) else { return Ok(bytes) };
            bytes += got.len() as u64;
            if bytes > self.max_bytes {
                return Err(self.too_large());
            }
            (&*part.file).write_all(got).map_err(|error| format!("writing {}: {error}", part.path.display()))?;
        }
        Err("it was too slow: sberf ends".into())
    }

    fn too_large(&self) -> String {
        format!("it is larger than {} MB", self.max_bytes >> 20)
    }

    fn dir_of(&self, id: &[u8]) -> Option<PathBuf> {
        (!id.is_empty()).then(|| self.cache.join(hex(id)))
    }

    fn agent(&self) -> ureq::Agent {
        let tls = TlsConfig::builder().root_certs(authorities().unwrap_or(RootCerts::WebPki)).build();
        let config = ureq::Agent::config_builder()
            .user_agent(concat!("sberf/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .max_redirects(MAX_REDIRECTS)
            .timeout_connect(Some(PATIENCE.min(self.max_time)))
            .timeout_per_read(Some(PATIENCE.min(self.max_time)))
            .timeout_global(Some(self.max_time));
        config.build().new_agent()
    }
}

/// The authorities that this machine trusts: SSL_CERT_FILE, or what its distribution keeps.
fn authorities() -> Option<RootCerts> {
    let own = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let files = own.into_iter().chain(CERTIFICATES.map(PathBuf::from));
    files
        .filter_map(|path| {
            let mut pem = Vec::new();
            File::open(path).ok()?.take(MAX_CERTIFICATES).read_to_end(&mut pem).ok()?;
            let certificate = |item| if let Ok(PemItem::Certificate(known)) = item { Some(known) } else { None };
            let known: Vec<Certificate<'static>> = parse_pem(&pem).filter_map(certificate).collect();
            (!known.is_empty()).then(|| RootCerts::new_with_certs(&known))
        })
        .next()
}

/// A file that is still being written; gone again unless it is kept.
struct Part {
    file: Arc<File>,
    path: PathBuf,
}

impl Part {
    fn create(dir: &Path) -> std::io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join(format!("debuginfo.sberf-{}", std::process::id()));
        // What an earlier one of that number may have left. Nothing that is there is ever written to.
        let _ = std::fs::remove_file(&path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o400).open(&path)?;
        Ok(Part { file: Arc::new(file), path })
    }

    fn keep(self, path: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, path)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Once it is kept it is not called so any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};

    /// A server that answers each request by `answer(path, stream)`, as long as the test runs.
    pub fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                answer(request.split(' ').nth(1).unwrap_or_default(), &mut stream);
            }
        });
        url
    }

    /// An answer in HTTP. Nobody minds if who asked has gone.
    pub fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    }

    /// A client of these servers that keeps what it fetches below `cache`.
    pub fn client(servers: &[&str], cache: &Path) -> Debuginfod {
        let servers = servers.iter().map(|&server| server.to_owned()).collect();
        Debuginfod { servers, cache: cache.to_owned(), max_bytes: 64 << 20, max_time: Duration::from_secs(20) }
    }

    /// An ELF file that is nothing but its build id.
    fn elf(id: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[32] = 64; // program headers
        bytes[54] = 56;
        bytes[56] = 1;
        let note = [&b"\x04\0\0\0"[..], &(id.len() as u32).to_le_bytes(), b"\x03\0\0\0GNU\0", id].concat();
        let mut segment = [0; 56];
        segment[0] = 4; // PT_NOTE
        segment[8] = 120;
        segment[32] = note.len() as u8;
        bytes.extend(segment);
        bytes.extend(note);
        bytes
    }

    const ID: &[u8] = &[0xab, 1, 2, 3];

    fn names_in(dir: &Path) -> Vec<String> {
        let list =
            std::fs::read_dir(dir).map(|list| list.flatten().map(|entry| entry.file_name().into_string().unwrap()));
        list.map(Iterator::collect).unwrap_or_default()
    }

    #[test]
    fn what_the_environment_must_say() {
        let with = |variables: &[(&str, &str)]| {
            let find =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            Debuginfod::configured(&find)
        };
        assert!(with(&[("HOME", "/root")]).unwrap_err().contains("DEBUGINFOD_URLS is not set"));
        assert!(
            with(&[("DEBUGINFOD_URLS", "file:///tmp ima:ignore"), ("HOME", "/root")])
                .unwrap_err()
                .contains("file:///tmp")
        );
        let urls = ("DEBUGINFOD_URLS", "https://a.example/  ima:ignore http://b.example:8002");
        assert!(with(&[urls]).unwrap_err().contains("XDG_CACHE_HOME"));
        let found = with(&[urls, ("HOME", "/root")]).unwrap();
        assert_eq!(found.servers, ["https://a.example", "http://b.example:8002"]);
        assert_eq!(found.cache, Path::new("/root/.cache/debuginfod_client"));
        let found = with(&[urls, ("HOME", "/root"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(found.cache, Path::new("/c/debuginfod_client"));
        let found = with(&[urls, ("XDG_CACHE_HOME", "/c"), ("DEBUGINFOD_CACHE_PATH", "/d")]).unwrap();
        assert_eq!(found.cache, Path::new("/d"));
        assert!(with(&[urls, ("HOME", "relative")]).is_err());
    }

    #[test]
    fn the_first_server_that_has_it_is_believed_if_the_build_id_is_that_one() {
        let (dir, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
        let without = serve(|_, stream| send(stream, "404 Not Found", "", b"no"));
        let with = serve(|path, stream| match path {
            "/buildid/ab010203/debuginfo" => send(stream, "200 OK", "", &elf(ID)),
            "/old/buildid/ab010203/debuginfo" => {
                send(stream, "302 Found", "Location: /buildid/ab010203/debuginfo\r\nContent-Length: 0\r\n", b"");
            }
            _ => send(stream, "500 Oh", "", b""),
        });
        for (number, server) in [with.clone(), format!("{with}/old")].into_iter().enumerate() {
            let cache = dir.path().join(number.to_string());
            let client = client(&[&without, &server], &cache);
            assert!(client.cached(ID).is_none());
            let bytes = elf(ID).len() as u64;
            assert_eq!(client.fetch(ID, &stop), Answer { fetched: Some((bytes, server)), failures: Vec::new() });
            assert_eq!(client.cached(ID).and_then(|object| object.build_id()).as_deref(), Some(ID));
            assert_eq!(names_in(&cache.join("ab010203")), ["debuginfo"]);
        }
        // Nobody has it, and nobody is at fault.
        let none = client(&[&without], dir.path());
        assert_eq!(none.fetch(ID, &stop), Answer::default());
    }

    #[test]
    fn what_hostile_servers_send_is_not_kept() {
        let stop = AtomicBool::new(false);
        type Send = fn(&mut TcpStream);
        let hostile: [(&str, Send); 7] = [
            ("no ELF file", |stream| send(stream, "200 OK", "", b"#!/bin/sh")),
            ("no ELF file", |stream| send(stream, "200 OK", "", &elf(&[1, 2, 3]))),
            ("larger than 1 MB", |stream| send(stream, "200 OK", "Content-Length: 999999999999\r\n", b"x")),
            ("larger than 1 MB", |stream| {
                send(stream, "200 OK", "", &elf(ID));
                // For ever, were it not cut off.
                while stream.write_all(&[0; 4096]).is_ok() {}
            }),
            ("", |stream| send(stream, "302 Found", "Location: /again\r\nContent-Length: 0\r\n", b"")),
            ("", |stream| drop(stream.write_all(b"\xff\xfe nonsense"))),
            ("timeout", |stream| {
                send(stream, "200 OK", "Content-Length: 1000\r\n", b"some");
                std::thread::sleep(Duration::from_secs(3));
            }),
        ];
        for (expected, hostile) in hostile {
            let cache = tempfile::tempdir().unwrap();
            let server = serve(move |_, stream| hostile(stream));
            let mut client = client(&[&server], cache.path());
            (client.max_bytes, client.max_time) = (1 << 20, Duration::from_secs(2));
            let answer = client.fetch(ID, &stop);
            let [(from, why)] = answer.failures.as_slice() else { panic!("{answer:?}") };
            assert!(*from == server && why.contains(expected) && answer.fetched.is_none(), "{answer:?}");
            assert!(client.cached(ID).is_none());
            assert_eq!(names_in(&cache.path().join("ab010203")), [""; 0], "{why}");
        }
        // Nobody is there at all.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(client(&[&nobody], cache.path()).fetch(ID, &stop).failures.len(), 1);
    }

    #[test]
    fn what_stands_in_the_cache_is_not_believed_either() {
        let cache = tempfile::tempdir().unwrap();
        let client = client(&[], cache.path());
        let dir = cache.path().join("ab010203");
        let path = dir.join("debuginfo");
        std::fs::create_dir(&dir).unwrap();
        for content in [elf(&[9, 9]), Vec::new(), b"text".to_vec()] {
            std::fs::write(&path, content).unwrap();
            assert!(client.cached(ID).is_none());
        }
        std::fs::write(dir.join("elsewhere"), elf(ID)).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.join("elsewhere"), &path).unwrap();
        assert!(client.cached(ID).is_none(), "a link leads anywhere");
        std::fs::rename(dir.join("elsewhere"), &path).unwrap();
        assert!(client.cached(ID).is_some());
    }
}

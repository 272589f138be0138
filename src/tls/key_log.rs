//! The file that lets a debugger read what was encrypted, in the format of NSS.
//!
//! Nothing but the key `key_log` of a listener switches it on; the environment does not.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use log::{error, warn};
use rustls::KeyLog;

use crate::{diagnostic::Problem, yaml::Spanned};

/// Only the user who runs Crestline may read it.
const MODE: u32 = 0o600;

/// Secrets of connections, a line each.
pub(super) struct KeyLogFile {
    path: PathBuf,
    /// Opened when there is something to write; `None` if it cannot be.
    file: OnceLock<Option<Mutex<File>>>,
}

impl KeyLogFile {
    /// What would be written to; nothing is created here.
    pub(super) fn new(path: &Spanned<String>, folder: &Path) -> Result<Self, Problem> {
        let name = &path.value;
        let path = folder.join(name);
        let refused = |why: &str| Problem::error(format!("cannot write to `{name}`: {why}"));
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        match fs::metadata(&path) {
            Ok(found) if !found.is_file() => {
                let help = "name a file; it is made when there is something to write";
                return Err(refused("it is no file").help(help));
            }
            Ok(found) if 0 < found.len() && !is_key_log(&path) => {
                let help = "name one of its own; it is made when there is something to write";
                return Err(refused("it holds something else").help(help));
            }
            Ok(found) if found.mode() & 0o077 != 0 => {
                let help = format!("remove it, or run `chmod 600 {name}`");
                return Err(refused("others than its owner may read or write it").help(help));
            }
            Err(_) if parent.is_some_and(|parent| !parent.is_dir()) => {
                let help = "make the folder, or remove this key";
                return Err(refused("its folder is not there").help(help));
            }
            _ => {}
        }
        Ok(Self { path, file: OnceLock::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Option<Mutex<File>> {
        let path = self.path.display();
        let opened = OpenOptions::new().append(true).create(true).mode(MODE).open(&self.path);
        match opened {
            Ok(file) => {
                warn!(
                    "tls: the secrets of connections are written to {path}: who reads it can \
                     decrypt them"
                );
                Some(Mutex::new(file))
            }
            Err(why) => {
                error!("tls: no secret of a connection is written to {path}: {why}");
                None
            }
        }
    }
}

/// Whether a file begins as one that was written before.
fn is_key_log(path: &Path) -> bool {
    let mut begin = [0; 7];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && [b"CLIENT_", b"SERVER_", b"EXPORTE"].contains(&&begin)
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let Some(file) = self.file.get_or_init(|| self.open()) else { return };
        let mut line = label.as_bytes().to_vec();
        for bytes in [client_random, secret] {
            line.push(b' ');
            for byte in bytes {
                // Memory takes every byte.
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push(b'\n');
        // A line that is lost costs a debugger a connection, and nobody else anything.
        let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyLogFile").field(&self.path).finish()
    }
}

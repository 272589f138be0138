//! The folder in which accounts and certificates are kept.
//!
//! INVARIANT: whatever is found under its own name was complete, and a certificate lies in one file
//! with its key, so that they always fit. What was cut off is written over the next time. Nobody
//! else may read keys, nor the names of those who have them.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use crate::{
    acme::{
        config::Directory,
        pair::{Pair, PairError},
    },
    folder,
};

/// So much of a name is in that of its file, which may take 255 bytes.
const SHOWN_MAX: usize = 200;

/// The largest file that is read; a chain and a key take a few thousand bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The folder of one CA.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Storage {
    root: PathBuf,
    folder: PathBuf,
}

/// Held by the one process that orders.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the lock goes when it is closed")] File);

/// Why a certificate cannot be taken from the storage.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// It holds something else.
    #[error("{0}: {1}")]
    Pair(String, PairError),
}

impl Storage {
    /// The folder of a CA within that of all.
    pub(super) fn at(root: &Path, directory: &Directory) -> Self {
        let url = directory.0.strip_prefix("https://").unwrap_or(&directory.0);
        let plain = |letter: char| {
            let is_plain = letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
            if is_plain { letter.to_ascii_lowercase() } else { '_' }
        };
        let name: String = url.chars().map(plain).collect();
        Self { root: root.to_owned(), folder: root.join(name.trim_start_matches('.')) }
    }

    /// Whether certificates can be kept here; nothing is made yet.
    pub(super) fn check(&self) -> io::Result<()> {
        folder::check(&self.folder, &self.root)
    }

    /// The certificate for these names; `None` if there is none yet.
    pub(super) fn read(&self, names: &[String]) -> Result<Option<Pair>, ReadError> {
        let path = self.certificate(names);
        let named = || path.display().to_string();
        match read_bounded(&path) {
            Ok(text) => {
                Pair::of_pem(&text, names).map(Some).map_err(|why| ReadError::Pair(named(), why))
            }
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(ReadError::Io(named(), why)),
        }
    }

    /// Keeps a certificate with its key, in PEM.
    pub(super) fn write(&self, names: &[String], pem: &str) -> io::Result<()> {
        self.replace(&self.certificate(names), pem.as_bytes())
    }

    /// The account as it was written; `None` if there is none yet.
    pub(super) fn account(&self) -> io::Result<Option<Vec<u8>>> {
        match read_bounded(&self.account_file()) {
            Ok(text) => Ok(Some(text)),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Keeps the account.
    pub(super) fn write_account(&self, text: &[u8]) -> io::Result<()> {
        self.replace(&self.account_file(), text)
    }

    /// Removes the account: the CA knows it no longer.
    pub(super) fn remove_account(&self) -> io::Result<()> {
        match fs::remove_file(self.account_file()) {
            Err(why) if why.kind() != ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }

    /// Where the account lies.
    pub(super) fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// Locks the storage against other processes, a successor for one; `None` if one has it.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        folder::make(&self.folder)?;
        let file = folder::open(&self.folder.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(why)) => Err(why),
        }
    }

    /// The file of a certificate: by its first name and, if it has more, a mark of them all.
    fn certificate(&self, names: &[String]) -> PathBuf {
        let first = names.first().map_or("", String::as_str);
        let short = &first[..first.len().min(SHOWN_MAX)]; // names are ASCII
        let name = match names.len() {
            0 | 1 if short == first => format!("{first}.pem"),
            _ => format!("{short}-{:016x}.pem", mark(names)),
        };
        self.folder.join(name)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        folder::make(&self.folder)?;
        folder::replace(path, bytes).map(drop)
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut text = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if FILE_BYTES_MAX < text.len() as u64 {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// FNV-1a of the names in order. Which names a file stands for is read in its certificate; this
/// only keeps two of them apart.
fn mark(names: &[String]) -> u64 {
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort_unstable();
    let bytes = sorted.iter().flat_map(|name| name.bytes().chain([b' ']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn storage(root: &Path) -> Storage {
        Storage::at(root, &Directory("https://ca.test:14000/a/Dir?x".to_owned()))
    }

    fn pem(of: &[&str]) -> String {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names(of)).unwrap();
        params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
    }

    #[test]
    fn what_is_written_is_read_and_belongs_to_nobody_else() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage(&root.path().join("deep/acme"));
        storage.check().unwrap();
        let two = names(&["b.test", "a.test"]);
        assert!(storage.read(&two).unwrap().is_none());
        storage.write(&two, &pem(&["a.test", "b.test"])).unwrap();
        storage.check().unwrap();
        assert!(storage.read(&two).unwrap().is_some());
        assert!(storage.read(&names(&["b.test"])).unwrap().is_none());
        storage.write_account(b"one").unwrap();
        assert_eq!(storage.account().unwrap().unwrap(), b"one");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(storage.folder, root.path().join("deep/acme/ca.test_14000_a_dir_x"));
        assert_eq!(mode(&root.path().join("deep/acme")), 0o700);
        assert_eq!(mode(&storage.folder), 0o700);
        assert_eq!(mode(&storage.certificate(&two)), 0o600);
        assert_eq!(mode(&storage.account_file()), 0o600);
        storage.remove_account().unwrap();
        storage.remove_account().unwrap();
        assert!(storage.account().unwrap().is_none());
    }

    #[test]
    fn half_a_file_is_never_believed() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage(root.path());
        let one = names(&["a.test"]);
        let (old, new) = (pem(&["a.test"]), pem(&["a.test"]));
        storage.write(&one, &old).unwrap();
        // A crash while the next one was written leaves a draft, of any length.
        fs::write(storage.certificate(&one).with_extension("new"), new.repeat(3)).unwrap();
        assert!(storage.read(&one).unwrap().is_some());
        storage.write(&one, &new).unwrap();
        assert_eq!(fs::read_to_string(storage.certificate(&one)).unwrap(), new);
        // Whatever else befalls the file itself is noticed.
        let other = pem(&["b.test"]);
        let mixed = old.split("-----BEGIN PRIVATE").next().unwrap().to_owned()
            + &new[new.find("-----BEGIN PRIVATE").unwrap()..];
        for bad in ["", &new[..new.len() / 3], &new[..new.len() - 40], &other, &mixed] {
            fs::write(storage.certificate(&one), bad).unwrap();
            assert!(storage.read(&one).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_storage_is_locked_once_until_it_is_let_go() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage(root.path());
        let lock = storage.lock().unwrap();
        assert!(lock.is_some());
        assert!(storage.lock().unwrap().is_none());
        drop(lock);
        assert!(storage.lock().unwrap().is_some());
    }

    #[test]
    fn what_is_no_folder_keeps_nothing() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let why = |at: &Path| storage(at).check().unwrap_err().to_string();
        assert_eq!(why(&file), "it is no folder");
        assert_eq!(why(&file.join("below")), "what it lies in is no folder");
    }
}

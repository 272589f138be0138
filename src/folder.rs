//! Folders of the program's own, and files in them that nobody else may read.
//!
//! INVARIANT: a file that is replaced is written whole under another name, forced to the disk, and
//! then renamed: whatever is found under its own name was complete.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::Access;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Makes a folder, and those that it lies in, unless it is there.
///
/// # Errors
/// If it cannot be made.
pub fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Opens a file to be written, made if it is missing; what is in it stays.
///
/// # Errors
/// If it cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// Replaces a file, and returns it, so that more can be added.
///
/// # Errors
/// If it cannot be written; then what was there stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let draft = path.with_extension("new");
    let mut file = open(&draft)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

/// Whether something can be kept in `folder`, which is `named` or lies in it, and may have to be
/// made; nothing is made yet.
///
/// # Errors
/// If it is none, or this process may not write to it.
pub fn check(mut folder: &Path, named: &Path) -> io::Result<()> {
    loop {
        match fs::metadata(folder) {
            Ok(found) if !found.is_dir() => {
                let its = if folder == named { "it" } else { "what it lies in" };
                return Err(io::Error::other(format!("{its} is no folder")));
            }
            Ok(_) => return Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?),
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            Err(why) if why.kind() == ErrorKind::NotADirectory => {}
            Err(why) => return Err(why),
        }
        folder = match folder.parent() {
            Some(parent) if parent == Path::new("") => Path::new("."),
            Some(parent) => parent,
            None => return Err(ErrorKind::NotFound.into()),
        };
    }
}

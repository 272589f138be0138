//! Folders that the program writes to, before there is anything to write.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use rustix::fs::Access;

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

//! Who asks an API: a token as it is written, or in a file that is read for each question.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use tokio::task;

use crate::{
    diagnostic::{Problem, Problems},
    upstream::discovery::source::Failure,
    yaml::Spanned,
};

/// The largest file that is read.
const BYTES_MAX: u64 = 64 << 10;

/// Who asks. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// Nobody in particular.
    None,
    /// Who has this token.
    Given(String),
    /// Who has the token in this file.
    File(PathBuf),
}

impl Token {
    /// Of what the operator wrote, of which one at most may be there.
    pub fn of(
        token: Option<&Spanned<String>>,
        file: Option<&Spanned<String>>,
        folder: &Path,
        problems: &mut Problems,
    ) -> Self {
        match (token, file) {
            (None, None) => Self::None,
            (Some(token), None) => Self::Given(token.value.clone()),
            (None, Some(file)) => Self::File(folder.join(&file.value)),
            (Some(_), Some(file)) => {
                let message = "`token` and `token_file` say the same thing twice";
                problems.push(Problem::error(message).at(file.span).help("remove one of the two"));
                Self::None
            }
        }
    }

    /// The token now.
    pub async fn read(&self) -> Result<Option<String>, Failure> {
        match self {
            Self::None => Ok(None),
            Self::Given(token) => Ok(Some(token.clone())),
            Self::File(path) => read_line(path).await.map(Some),
        }
    }
}

/// The only line of a small file.
pub async fn read_line(path: &Path) -> Result<String, Failure> {
    let file = path.to_owned();
    let read = task::spawn_blocking(move || read_small(&file)).await;
    let text = read.map_err(io::Error::from).flatten();
    let wrong = |why: &dyn std::fmt::Display| Failure(format!("`{}`: {why}", path.display()));
    let text = text.map_err(|why| wrong(&why))?;
    let line = text.trim();
    if line.is_empty() || line.contains(char::is_control) {
        return Err(wrong(&"it does not hold one line of text"));
    }
    Ok(line.to_owned())
}

fn read_small(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if BYTES_MAX < text.len() as u64 {
        return Err(io::Error::other(format!("it is larger than {} KiB", BYTES_MAX >> 10)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_anew_each_time_and_told_by_its_path_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::File(path.clone());
        for text in ["first", "second\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(token.read().await.unwrap().as_deref(), Some(text.trim()));
        }
        for (text, why) in [
            (String::new(), "it does not hold one line of text"),
            ("half\nsecret".to_owned(), "it does not hold one line of text"),
            ("x".repeat(65_537), "it is larger than 64 KiB"),
        ] {
            fs::write(&path, text).unwrap();
            let told = token.read().await.unwrap_err().to_string();
            assert_eq!(told, format!("`{}`: {why}", path.display()));
        }
        fs::remove_file(&path).unwrap();
        let told = token.read().await.unwrap_err().to_string();
        assert!(told.contains("No such file"), "{told}");
    }
}

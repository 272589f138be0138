//! Backends from a file: a list in YAML or JSON, in the form of `backends`.
//!
//! The file is looked at twice a second and read when two looks see the same, so that one that is
//! being written is left alone; one that is put into place by a rename is taken just so. What is
//! wrong in it is told with its line, and the list of before stays.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{task, time};

use crate::{
    diagnostic::{Problem, Problems, Sources},
    upstream::{
        config::BackendConfig,
        discovery::source::{Answer, Failure, Found, Source, bounded},
    },
    yaml::{self, Short, Spanned, Value},
};

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A file that does not change is told to be there so often.
const TOUCH_EVERY: u32 = 20;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What can be seen of a file without reading it, its last change of any kind included; `None` if
/// it is not there.
type Look = Option<(u64, u64, u64, i64, i64)>;

/// Looks at a file again and again.
pub struct File {
    path: PathBuf,
    /// How it looked when it was last read well.
    read: Option<Look>,
}

impl File {
    /// Prepares the looks.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: None }
    }
}

#[async_trait]
impl Source for File {
    async fn next(&mut self) -> Answer {
        let mut before = if self.read.is_none() { Some(look_at(&self.path)) } else { None };
        let mut looks = 0;
        loop {
            if self.read.is_some() {
                time::sleep(LOOK_EVERY).await;
            }
            looks += 1;
            let now = look_at(&self.path);
            let is_still = before.replace(now) == Some(now);
            let is_due = self.read != Some(now) || looks == TOUCH_EVERY;
            if !(is_still && is_due) {
                continue;
            }
            let path = self.path.clone();
            let read = task::spawn_blocking(move || read(&path)).await;
            let answer = read.unwrap_or_else(|why| Err(Failure(why.to_string())));
            // After a failure it is read again, whether it looks the same or not.
            self.read = answer.is_ok().then_some(now);
            return answer;
        }
    }
}

fn look_at(path: &Path) -> Look {
    let seen = fs::metadata(path).ok()?;
    Some((seen.dev(), seen.ino(), seen.size(), seen.ctime(), seen.ctime_nsec()))
}

fn read(path: &Path) -> Answer {
    let unreadable = |why: std::io::Error| Failure(format!("cannot read it: {why}"));
    let file = fs::File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(Failure::new("it is no file"));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if FILE_BYTES_MAX < text.len() as u64 {
        return Err(Failure(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    parse(&name, &text)
}

/// Reads a list of backends; `name` is what messages call the file.
fn parse(name: &str, text: &str) -> Answer {
    let mut sources = Sources::default();
    let start = sources.add(name, text);
    let mut problems = Problems::default();
    let node = yaml::parse_file(text, start, None).map_err(|why| Failure(told(&why, &sources)))?;
    if node.value == Value::Null {
        let why = "it is empty; a list without backends is `[]`";
        return Err(Failure::new(why));
    }
    let list: Option<Vec<Spanned<Short<BackendConfig>>>> = yaml::read(&node, "", &mut problems);
    let mut all = Vec::new();
    for backend in list.into_iter().flatten() {
        let (place, backend) = (backend.span, backend.value.0);
        let found = Found { target: backend.target(), address: backend.address };
        all.push((place, found));
    }
    let mut seen = std::collections::HashSet::new();
    for (place, found) in &all {
        if !seen.insert(found.address.to_string()) {
            problems.push(
                Problem::error(format!("backend `{}` stands twice", found.address)).at(*place),
            );
        }
    }
    match (problems.iter().next(), problems.len()) {
        (None, _) => bounded(all.into_iter().map(|(_, found)| found).collect()),
        (Some(first), 1) => Err(Failure(told(first, &sources))),
        (Some(first), many) => {
            Err(Failure(format!("{}, and {} more", told(first, &sources), many - 1)))
        }
    }
}

/// A problem in one line, with its place.
fn told(problem: &Problem, sources: &Sources) -> String {
    let place = problem.span.and_then(|span| sources.place(span));
    let place = place
        .map_or(String::new(), |place| format!("{}:{}:{}: ", place.name, place.line, place.column));
    let help = problem.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
    format!("{place}{}{help}", problem.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(text: &str) -> Result<Vec<(String, u16)>, String> {
        let found = parse("app.yaml", text).map_err(|why| why.to_string())?.into_iter();
        Ok(found.map(|found| (found.address.to_string(), found.target.weight)).collect())
    }

    #[test]
    fn a_list_in_yaml_and_the_same_in_json_give_the_same_backends() {
        let expected = Ok(vec![("127.0.0.1:1".to_owned(), 1), ("a.test:2".to_owned(), 3)]);
        let yaml = "- 127.0.0.1:1\n- { address: a.test:2, weight: 3 }\n";
        assert_eq!(told_of(yaml), expected);
        let json = r#"["127.0.0.1:1", {"address": "a.test:2", "weight": 3}]"#;
        assert_eq!(told_of(json), expected);
        assert_eq!(told_of("[]"), Ok(vec![]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let why = |text: &str| told_of(text).unwrap_err();
        assert_eq!(
            why("- 127.0.0.1:1\n- a.test\n"),
            "app.yaml:2:3: `a.test` has no port (write `a.test:80`, or the port that the \
             backend listens on)"
        );
        let unknown = why("[{ address: 127.0.0.1:1, wieght: 2 }]");
        assert!(unknown.starts_with("app.yaml:1:26: unknown key `wieght`"), "{unknown}");
        assert!(
            why("[127.0.0.1:1, 127.0.0.1:1]").contains("1:15: backend `127.0.0.1:1` stands twice")
        );
        assert!(why("[a, b]").ends_with(", and 1 more"));
        assert!(why("[127.0.0.1:1").contains("app.yaml:1:"), "{}", why("[127.0.0.1:1"));
        assert_eq!(why(""), "it is empty; a list without backends is `[]`");
        assert!(why("backends: []").contains("app.yaml:1:1"));
    }
}

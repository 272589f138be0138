//! What an operator sees of a wrong file: `crestline check` on every file of `tests/config`.
//!
//! Beside each `NAME.yaml` lies `NAME.expected`: all of standard error, and the exit code. A
//! case of several files is a folder, `NAME/crestline.yaml` and `NAME/expected`. The variables
//! in `NAME.env` or `NAME/env`, each on a line, are the whole environment. To write the answers
//! anew after a message has changed, run
//!
//! ```text
//! UPDATE_EXPECTED=1 cargo test --test integration config::
//! ```
//!
//! and read the difference as somebody who was woken up by it.

mod secrets;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The exit code of a wrong configuration (`EX_CONFIG`).
const WRONG: i32 = 78;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

/// A file to check, and what lies beside it.
struct Case {
    name: String,
    folder: PathBuf,
    file: String,
    expected: PathBuf,
    environment: Vec<(String, String)>,
}

impl Case {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (folder, file, expected, environment) = if path.is_dir() {
            (path, "crestline.yaml".to_owned(), path.join("expected"), path.join("env"))
        } else if path.extension() == Some(OsStr::new("yaml")) {
            let beside = |extension| path.with_extension(extension);
            (path.parent()?, format!("{name}.yaml"), beside("expected"), beside("env"))
        } else {
            return None;
        };
        let environment = variables(&environment);
        Some(Self { name, folder: folder.to_owned(), file, expected, environment })
    }

    fn check(&self) -> (String, i32) {
        check_in(&self.folder, &self.file, &self.environment)
    }
}

/// All cases, in order of their names.
fn cases() -> Vec<Case> {
    // No checkout keeps the mode of a secret, and one for everybody would be warned of.
    let secret = fs::Permissions::from_mode(0o640);
    fs::set_permissions(folder().join("admin.token"), secret).unwrap();
    let paths = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let paths: BTreeSet<PathBuf> = paths.collect();
    paths.iter().filter_map(|path| Case::of(path)).collect()
}

/// The variables that a file names, if it is there.
fn variables(file: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let pairs = text.lines().map(|line| line.split_once('=').expect("NAME=value"));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Checks a file of a folder, from within it: what is told on standard error, and the exit code.
fn check(folder: &Path, file: &str) -> (String, i32) {
    check_in(folder, file, &[])
}

fn check_in(folder: &Path, file: &str, environment: &[(String, String)]) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crestline"));
    command.args(["check", file]).current_dir(folder).stdin(Stdio::null());
    command.env_clear().envs(environment.iter().cloned());
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"", "standard output is for programs");
    (String::from_utf8(output.stderr).unwrap(), output.status.code().expect("no signal"))
}

/// Checks a text.
fn check_text(text: impl AsRef<[u8]>) -> (String, i32) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("crestline.yaml"), text).unwrap();
    check(folder.path(), "crestline.yaml")
}

#[test]
fn every_wrong_file_is_told_where_and_what_to_do() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut different = Vec::new();
    for case in cases() {
        let (told, code) = case.check();
        let told = format!("{told}exit code: {code}\n");
        if update {
            fs::write(&case.expected, told).unwrap();
        } else if fs::read_to_string(&case.expected).unwrap_or_default() != told {
            different.push(format!("--- {}\n{told}", case.name));
        }
    }
    assert!(different.is_empty(), "not as expected:\n{}", different.join("\n"));
    let answers = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let answers: BTreeSet<_> =
        answers.filter(|path| path.extension() == Some(OsStr::new("expected"))).collect();
    let files = cases().into_iter().map(|case| case.expected);
    let files: BTreeSet<_> = files.filter(|path| path.parent() == Some(&folder())).collect();
    assert_eq!(answers, files, "each file has its answer, and no other");
}

/// Only warnings may be passed over: a file with any error is refused, and one without is not.
#[test]
fn errors_refuse_a_file_and_warnings_do_not() {
    for case in cases() {
        let (name, (told, code)) = (&case.name, case.check());
        let is_wrong = told.lines().any(|line| line.starts_with("error: "));
        assert_eq!(code, if is_wrong { WRONG } else { 0 }, "{name}:\n{told}");
        let is_good = told.ends_with(&format!("{} is good\n", case.file));
        assert_eq!(is_good, !is_wrong, "{name}:\n{told}");
        let harmless = name.starts_with("good") || name.starts_with("warning");
        assert_eq!(is_wrong, !harmless, "{name}:\n{told}");
    }
}

/// What came from the environment or a file may be a secret, and stands in no message.
#[test]
fn no_value_that_was_filled_in_is_told() {
    let mut looked_at = 0;
    for case in cases() {
        let secrets = fs::read_dir(case.folder.join("secrets")).into_iter().flatten();
        let secrets = secrets.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        let (told, _) = case.check();
        let values = case.environment.iter().map(|(_, value)| value.clone()).chain(secrets);
        for value in values.filter(|value| 4 <= value.len()) {
            looked_at += 1;
            for line in value.lines().filter(|line| !line.is_empty()) {
                assert!(!told.contains(line), "{}: {line} in {told}", case.name);
            }
        }
    }
    assert!(5 < looked_at);
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let told = "error: cannot read `none.yaml`: No such file or directory (os error 2)\n";
    let (missing, code) = check(&folder(), "none.yaml");
    assert!(missing.starts_with(told), "{missing}");
    assert_eq!(code, WRONG);
    let (of_a_folder, code) = check(&folder(), ".");
    assert!(of_a_folder.starts_with("error: cannot read `.`: Is a directory"), "{of_a_folder}");
    assert_eq!(code, WRONG);
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    const MAX: usize = 16 * 1024 * 1024;
    let mut text = b"upstreams: { app: { backends: [127.0.0.1:3031] } }\n#".to_vec();
    text.resize(MAX, b'x');
    assert_eq!(check_text(&text).1, 0, "just not too large");
    text.push(b'x');
    let (told, code) = check_text(&text);
    assert!(told.starts_with("error: `crestline.yaml` is larger than 16 MiB\n"), "{told}");
    assert_eq!(code, WRONG);
}

#[test]
fn a_check_asks_for_a_host() {
    for host in ["app internal", "a/b", "http://a.test", "a.test:x", "u@a.test"] {
        let (told, code) = check_text(format!(
            "upstreams:
  app:
    backends: [127.0.0.1:3031]
    health_check: {{ http: {{ host: \"{host}\" }} }}
"
        ));
        assert_eq!(code, WRONG, "{host}: {told}");
        assert!(told.contains(" --> crestline.yaml:4:"), "{told}");
    }
}

/// What is accepted and can never match is a setting that does nothing.
#[test]
fn a_route_that_no_request_can_match_is_refused() {
    for matches in ["hosts: ['[shop.test]']", "hosts: ['[::1']", "path: /static/*"] {
        let (told, code) = check_text(format!(
            "upstreams: {{ app: {{ backends: [127.0.0.1:3031] }} }}
routes:
  - {{ name: all, match: {{ {matches} }}, upstream: app }}
"
        ));
        assert_eq!(code, WRONG, "{matches}: {told}");
        assert!(told.contains(" --> crestline.yaml:3:"), "{told}");
    }
}

/// A check is framed by Crestline, as every request is.
#[test]
fn a_check_does_not_frame_itself() {
    for field in ["content-length: 5", "transfer-encoding: chunked", "connection: upgrade"] {
        let (told, code) = check_text(format!(
            "upstreams:
  app:
    backends: [127.0.0.1:3031]
    health_check: {{ http: {{ headers: {{ {field} }} }} }}
"
        ));
        assert_eq!(code, WRONG, "{field}: {told}");
    }
}

/// Checking is looking: a file that is only named must not be made.
#[test]
fn a_check_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let text = "upstreams: { app: { backends: [127.0.0.1:3031] } }
access_log: { path: access.log }
";
    fs::write(folder.path().join("crestline.yaml"), text).unwrap();
    assert_eq!(check(folder.path(), "crestline.yaml").1, 0);
    assert!(!folder.path().join("access.log").exists(), "an empty log was made");
}

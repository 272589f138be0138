//! What an operator sees of a wrong file: `crestline check` on every file of `tests/config`.
//!
//! Beside each `NAME.yaml` lies `NAME.expected`: all of standard error, and the exit code. To
//! write them anew after a message has changed, run
//!
//! ```text
//! UPDATE_EXPECTED=1 cargo test --test integration config::
//! ```
//!
//! and read the difference as somebody who was woken up by it.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The exit code of a wrong configuration (`EX_CONFIG`).
const WRONG: i32 = 78;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

/// Checks a file of a folder, from within it: what is told on standard error, and the exit code.
fn check(folder: &Path, file: &str) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crestline"));
    command.args(["check", file]).current_dir(folder).stdin(Stdio::null());
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

/// The names in the folder that end so, without it.
fn names(extension: &str) -> BTreeSet<String> {
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension() == Some(OsStr::new(extension)));
    files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_wrong_file_is_told_where_and_what_to_do() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut different = Vec::new();
    for name in names("yaml") {
        let (told, code) = check(&folder(), &format!("{name}.yaml"));
        let told = format!("{told}exit code: {code}\n");
        let expected = folder().join(format!("{name}.expected"));
        if update {
            fs::write(expected, told).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != told {
            different.push(format!("--- {name}\n{told}"));
        }
    }
    assert!(different.is_empty(), "not as expected:\n{}", different.join("\n"));
    assert_eq!(names("expected"), names("yaml"), "each file has its answer, and no other");
}

/// Only warnings may be passed over: a file with any error is refused, and one without is not.
#[test]
fn errors_refuse_a_file_and_warnings_do_not() {
    for name in names("yaml") {
        let (told, code) = check(&folder(), &format!("{name}.yaml"));
        let is_wrong = told.lines().any(|line| line.starts_with("error: "));
        assert_eq!(code, if is_wrong { WRONG } else { 0 }, "{name}:\n{told}");
        let is_good = told.ends_with(&format!("{name}.yaml is good\n"));
        assert_eq!(is_good, !is_wrong, "{name}:\n{told}");
        let harmless = name.starts_with("good") || name.starts_with("warning");
        assert_eq!(is_wrong, !harmless, "{name}:\n{told}");
    }
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

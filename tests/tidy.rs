//! The picture of the house, held against the code: no import points upward, none runs in a circle.
//!
//! The table below is the one in `src/lib.rs` and `ARCHITECTURE.md`. A module imports from lower
//! floors only; inside a folder, files import what their siblings share, never their parent's
//! children through the parent.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Modules by floor. Floors count upward; those of one floor do not know each other.
const FLOORS: [(&str, u32); 39] = [
    ("clock", 0),
    ("counter", 0),
    ("diagnostic", 0),
    ("folder", 0),
    ("systemd", 0),
    ("yaml", 1),
    ("drain", 1),
    ("panics", 1),
    ("client", 1),
    ("metrics", 1),
    ("field", 2),
    ("reason", 2),
    ("acme", 2),
    ("cache", 2),
    ("overload", 2),
    ("otlp", 2),
    ("units", 0),
    ("reply", 3),
    ("http1", 3),
    ("http2", 3),
    ("routing", 3),
    ("observe", 3),
    ("tls", 3),
    ("downstream", 4),
    ("traces", 4),
    ("upstream", 4),
    ("policy", 5),
    ("config", 6),
    ("snapshot", 7),
    ("proxy", 8),
    ("stream", 8),
    ("listener", 8),
    ("control", 8),
    ("explain", 8),
    ("handover", 9),
    ("admin", 10),
    ("server", 11),
    ("demo", 12),
    ("cli", 13),
];

/// The longest file, tests apart: beyond it, a second noun has moved in.
const LINES_MAX: usize = 400;

#[test]
fn no_import_points_upward_or_sideways() {
    let floors = BTreeMap::from(FLOORS);
    let mut wrong = Vec::new();
    for file in sources() {
        let module = top_module(&file);
        let Some(floor) = floors.get(module.as_str()) else { continue };
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            let target = floors.get(import.as_str());
            let target = target.unwrap_or_else(|| panic!("{import} is on no floor"));
            if import != module && floor <= target {
                wrong.push(format!("{}: {module} imports {import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_module_is_on_a_floor() {
    let lib = fs::read_to_string("src/lib.rs").unwrap();
    let modules: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut known: Vec<&str> = FLOORS.iter().map(|(module, _)| *module).collect();
    let mut declared = modules.clone();
    known.sort_unstable();
    declared.sort_unstable();
    assert_eq!(declared, known);
}

#[test]
fn every_file_opens_with_what_it_is_and_reads_in_one_sitting() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let is_test =
            file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
        assert!(is_test || text.starts_with("//! "), "{} has no `//!`", file.display());
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().count();
        assert!(is_test || lines <= LINES_MAX, "{} has {lines} lines", file.display());
    }
}

#[test]
fn nothing_is_left_open_and_nothing_unwraps_outside_tests() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_test =
            file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
        for word in ["todo!(", "unimplemented!(", ".unwrap()", "FIXME"] {
            assert!(is_test || !code.contains(word), "{} has {word}", file.display());
        }
    }
}

/// `src/proxy/mod.rs` → `proxy`, `src/cli.rs` → `cli`.
fn top_module(file: &Path) -> String {
    let part = file.strip_prefix("src").unwrap().components().next().unwrap();
    part.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The top modules named in `use crate::…` and `crate::…` paths.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            names.extend(group_heads(group));
        } else {
            names.push(word(rest));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The first words of the members of `{a::b, c::{d, e}, f}`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut start) = (0u32, Vec::new(), true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            letter if depth == 0 && start && !letter.is_whitespace() => {
                heads.push(word(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

fn sources() -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::from("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !["src/main.rs", "src/lib.rs"].iter().any(|top| path == Path::new(top))
            {
                files.push(path);
            }
        }
    }
    assert!(50 < files.len(), "the test runs in the root of the package");
    files.sort();
    files
}

//! What several files, an environment and secret files come to.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    process::Command,
};

use tempfile::TempDir;

use super::*;
use crate::{
    config,
    diagnostic::{Color, render},
    yaml::Value,
};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// Loads `main.yaml` of a folder; the problems are shown without the path of the folder.
fn loaded(folder: &TempDir, variables: &[(&str, &str)]) -> (Loaded, String) {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    let variable = |name: &str| {
        let value = variables.get(name).map(|&value| value.to_owned());
        value.ok_or(env::VarError::NotPresent)
    };
    let mut problems = Problems::default();
    let loaded = load_with(&folder.path().join("main.yaml"), &variable, &mut problems);
    config::File::read(&loaded, &mut problems);
    let shown = render(&problems, &loaded.sources, Color::Never);
    (loaded, shown.replace(&format!("{}/", folder.path().display()), ""))
}

/// Loads files in which nothing is wrong.
#[track_caller]
fn good(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Node {
    let (loaded, problems) = loaded(&folder(files), variables);
    assert_eq!(problems, "");
    loaded.root.unwrap()
}

/// The lines that tell what is wrong, and where.
fn told(files: &[(&str, &str)]) -> Vec<String> {
    let shown = loaded(&folder(files), &[]).1;
    let lines = shown.lines().filter(|line| line.starts_with("error") || line.contains("--> "));
    let told: Vec<_> = lines.map(|line| line.trim().replace("error: ", "")).collect();
    told
}

/// The keys under a key of the root.
fn keys<'a>(root: &'a Node, key: &str) -> Vec<&'a str> {
    let entries = root.get(key).unwrap().value.entries();
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

/// The texts of a list under a key of the root.
fn texts<'a>(root: &'a Node, key: &str) -> Vec<&'a str> {
    match &root.get(key).unwrap().value.value {
        Value::Sequence(items) => items.iter().map(|item| item.text().unwrap()).collect(),
        other => panic!("{other:?}"),
    }
}

/// Paths without the folder.
fn names(folder: &TempDir, files: &[PathBuf]) -> Vec<String> {
    let names = files.iter().map(|file| file.strip_prefix(folder.path()).unwrap());
    names.map(|name| name.display().to_string()).collect()
}

#[test]
fn lists_and_mappings_are_joined_in_order() {
    let root = good(
        &[
            (
                "main.yaml",
                "include: [last.yaml, 'conf.d/*.yaml']
trusted_proxies: [10.0.0.1]
upstreams: { main: { backends: [127.0.0.1:1] } }
access_log: { path: stdout }
",
            ),
            ("conf.d/b.yaml", "trusted_proxies: [10.0.0.4]\nthreads: 2\n"),
            ("conf.d/a.yaml", "trusted_proxies: [10.0.0.3]\naccess_log: { format: json }\n"),
            ("conf.d/nothing.yaml", "# all of it is commented out\n"),
            ("conf.d/.hidden.yaml", "not: read"),
            ("conf.d/notes.txt", "not: read"),
            ("conf.d/more/deep.yaml", "not: read"),
            (
                "last.yaml",
                "trusted_proxies: [10.0.0.2]\nupstreams: { last: { backends: [127.0.0.1:2] } }\n",
            ),
        ],
        &[],
    );
    let proxies = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    assert_eq!(texts(&root, "trusted_proxies"), proxies);
    assert_eq!(keys(&root, "upstreams"), ["main", "last"]);
    assert_eq!(keys(&root, "access_log"), ["path", "format"]);
    assert_eq!(root.get("threads").unwrap().value.value, Value::Int(2));
    assert!(root.get("include").is_none());
}

#[test]
fn a_file_is_included_once() {
    let files = [
        ("main.yaml", "include: [a.yaml, '*.yaml', ./a.yaml]\ntrusted_proxies: [10.0.0.1]\n"),
        ("a.yaml", "trusted_proxies: [10.0.0.2]\n"),
        ("z.yaml", "trusted_proxies: [10.0.0.3]\n"),
    ];
    let folder = folder(&files);
    symlink(folder.path().join("a.yaml"), folder.path().join("linked.yaml")).unwrap();
    let (loaded, problems) = loaded(&folder, &[]);
    assert_eq!(problems, "");
    let root = loaded.root.unwrap();
    assert_eq!(texts(&root, "trusted_proxies"), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(names(&folder, &loaded.files), ["main.yaml", "a.yaml", "z.yaml"]);
}

#[test]
fn a_pattern_may_find_nothing_and_a_name_may_not() {
    let folder = folder(&[("main.yaml", "include: ['conf.d/*.yaml', none.yaml]\n")]);
    let (loaded, problems) = loaded(&folder, &[]);
    let expected = "error: cannot read `none.yaml`: No such file or directory (os error 2)
 --> main.yaml:1:28
";
    assert!(problems.starts_with(expected), "{problems}");
    assert_eq!(problems.matches("error").count(), 2, "one, and its words: {problems}");
    assert_eq!(names(&folder, &loaded.files), ["main.yaml", "none.yaml"]);
}

#[test]
fn what_cannot_be_joined_is_told_with_both_places() {
    let shown = loaded(
        &folder(&[
            ("main.yaml", "include: [a.yaml, b.yaml]\nthreads: 1\naccess_log: off\n"),
            ("a.yaml", "upstreams:\n  app: { backends: [127.0.0.1:1] }\nthreads: 2\n"),
            (
                "b.yaml",
                "upstreams:\n  app: { backends: [nowhere] }\ninclude: [c.yaml]\naccess_log: {}\n",
            ),
        ]),
        &[],
    )
    .1;
    assert_eq!(
        shown,
        "\
error: the key `threads` is written twice
 --> a.yaml:3:1
  |
3 | threads: 2
  | ^^^^^^^ first written in main.yaml:2
  |
help: it may stand in one file only: remove one of them

error: upstream `app` is defined twice
 --> b.yaml:2:3
  |
2 |   app: { backends: [nowhere] }
  |   ^^^ first in a.yaml:2
  |
help: rename or remove one of them

error: `nowhere` has no port
 --> b.yaml:2:21
  |
2 |   app: { backends: [nowhere] }
  |                     ^^^^^^^ in `upstreams.app.backends[0]`
  |
help: write `nowhere:80`, or the port that the backend listens on

error: `include` stands in an included file
 --> b.yaml:3:1
  |
3 | include: [c.yaml]
  | ^^^^^^^
  |
help: list all files in the main file

error: the key `access_log` is written twice
 --> b.yaml:4:1
  |
4 | access_log: {}
  | ^^^^^^^^^^ first written in main.yaml:3
  |
help: it may stand in one file only: remove one of them
"
    );
}

#[test]
fn the_wrong_kind_is_told_of_the_file_that_has_it() {
    let list =
        "routes: [{ name: a, upstream: app }]\nupstreams: { app: { backends: [127.0.0.1:1] } }";
    let wrong = "routes: { name: a }\nupstreams: []\n";
    for (main, included, place) in [(list, wrong, "a.yaml:1:9"), (wrong, list, "main.yaml:2:9")] {
        let main = format!("include: [a.yaml]\n{main}");
        let told = told(&[("main.yaml", &main), ("a.yaml", included)]);
        let [first, at, second, _] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(first, "`routes` is not a list");
        assert_eq!(at, &format!("--> {place}"));
        assert_eq!(second, "`upstreams` is not a mapping from names to upstreams");
    }
}

#[test]
fn a_broken_file_hides_no_problem_of_another() {
    let told = told(&[
        ("main.yaml", "include: ['*.yaml']\nthreads: many\n"),
        ("a.yaml", "routes: [\n"),
        ("b.yaml", "routes:\n  - { name: one, upstream: app }\n  - { name: two }\n"),
        ("c.yaml", "- no mapping\n"),
        ("d.yaml", "unkown: 1\n"),
        ("e.yaml", "unkown: 1\n"),
    ]);
    assert_eq!(
        told,
        [
            "expected a whole number, found `many`",
            "--> main.yaml:2:10",
            "this `[` is never closed",
            "--> a.yaml:1:9",
            "missing key `upstream` in `routes[1]`",
            "--> b.yaml:3:5",
            "this file is not a mapping",
            "--> c.yaml:1:1",
            "unknown key `unkown`",
            "--> d.yaml:1:1",
            "unknown key `unkown`",
            "--> e.yaml:1:1",
        ]
    );
}

#[test]
fn what_may_stand_in_a_file_that_could_not_be_read_is_not_missed() {
    for broken in ["routes: [\n", "upstreams: {\n", "[]", "${X}"] {
        let files = [
            ("main.yaml", "include: [a.yaml]\nroutes: [{ name: all, upstream: app }]\n"),
            ("a.yaml", broken),
        ];
        let folder = folder(&files);
        let mut problems = Problems::default();
        let loaded = load(&folder.path().join("main.yaml"), &mut problems);
        let file = config::File::read(&loaded, &mut problems).unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let upstreams: Vec<_> = file.upstreams.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(upstreams, ["app"]);
        assert!(file.routes.unwrap().last().unwrap().is_none());
    }
}

#[test]
fn a_list_of_files_that_cannot_be_read_makes_nothing_missing() {
    for include in ["conf.d", "['${NONE}', a.yaml]", "[{}]"] {
        let main = format!("include: {include}\nroutes: [{{ name: all, upstream: app }}]\n");
        let folder = folder(&[("main.yaml", &main), ("a.yaml", "threads: many\n")]);
        let mut problems = Problems::default();
        let loaded = load(&folder.path().join("main.yaml"), &mut problems);
        let file = config::File::read(&loaded, &mut problems).unwrap();
        assert_eq!(file.upstreams.len(), 1, "{include}");
        assert_eq!(problems.len(), if include.contains("a.yaml") { 2 } else { 1 });
    }
}

#[test]
fn more_than_a_thousand_files_are_too_many() {
    let folder = folder(&[("main.yaml", "include: ['conf.d/*.yaml']\n"), ("conf.d/0.yaml", "")]);
    for index in 1..FILES_MAX {
        fs::write(folder.path().join(format!("conf.d/{index}.yaml")), "").unwrap();
    }
    let too_many = loaded(&folder, &[]).1;
    assert!(too_many.starts_with("error: more than 1000 files are read\n --> main.yaml:1:11\n"));
    fs::remove_file(folder.path().join("conf.d/0.yaml")).unwrap();
    assert_eq!(loaded(&folder, &[]).1, "");
}

#[test]
fn a_pattern_that_is_none_is_told() {
    let told = told(&[("main.yaml", "include: ['a[', b**c, 5, { d: e }]\n")]);
    assert_eq!(
        told,
        [
            "`a[` cannot be included: invalid range pattern",
            "--> main.yaml:1:11",
            "`b**c` cannot be included: recursive wildcards must form a single path component",
            "--> main.yaml:1:17",
            "cannot read `5`: No such file or directory (os error 2)",
            "--> main.yaml:1:23",
            "expected a text, found a mapping",
            "--> main.yaml:1:26",
        ]
    );
}

#[test]
fn a_pattern_finds_files_at_any_depth_and_follows_no_link_round() {
    let folder = folder(&[
        ("main.yaml", "include: ['tree/**/*.yaml', 'tree/[a-b]?/b/../.*.yaml']\n"),
        ("tree/z.yaml", ""),
        ("tree/.hidden/x.yaml", ""),
        ("tree/ab/b/y.yaml", ""),
        ("tree/ab/.x.yaml", ""),
        ("tree/folder.yaml/no.txt", ""),
    ]);
    for (number, up) in ["..", "../..", "../../tree/ab"].into_iter().enumerate() {
        symlink(up, folder.path().join(format!("tree/ab/b/up{number}"))).unwrap();
        symlink(up, folder.path().join(format!("tree/ab/up{number}"))).unwrap();
    }
    symlink("z.yaml", folder.path().join("tree/link.yaml")).unwrap();
    fs::write(folder.path().join(OsStr::from_bytes(b"tree/\xFF.yaml")), "").unwrap();
    let (loaded, problems) = loaded(&folder, &[]);
    // `link.yaml` is the file that it leads to.
    let expected = ["ab/b/y.yaml", "link.yaml", "\u{FFFD}.yaml", "ab/b/../.x.yaml"]
        .map(|it| format!("tree/{it}"));
    assert_eq!(names(&folder, &loaded.files)[1..], expected);
    assert_eq!(problems, "");
}

#[test]
fn a_folder_whose_name_looks_like_a_pattern_is_a_folder() {
    let files = [
        ("[a]*/main.yaml", "include: ['*.yaml']\n"),
        ("[a]*/b.yaml", "threads: 2\n"),
        ("a/c.yaml", "not: read"),
    ];
    let folder = folder(&files);
    let mut problems = Problems::default();
    let loaded = load(&folder.path().join("[a]*/main.yaml"), &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(names(&folder, &loaded.files), ["[a]*/main.yaml", "[a]*/b.yaml"]);
}

#[test]
fn values_come_from_the_environment_and_from_files() {
    let root = good(
        &[
            (
                "main.yaml",
                "include: ['${PART}.yaml']\nthreads: ${N}\npid_file: ${file:secrets/pid}\nuser: ${file:secrets/crlf}-${file:secrets/two}\ndaemon: true\n",
            ),
            ("part.yaml", "trusted_proxies: ['${NET:-10.0.0.0/8}']\n"),
            ("secrets/pid", "/run/a.pid\n"),
            ("secrets/crlf", "a\r\n"),
            ("secrets/two", "b\n\n"),
        ],
        &[("PART", "part"), ("N", "3")],
    );
    assert_eq!(root.get("threads").unwrap().value.value, Value::Int(3));
    assert_eq!(root.get("pid_file").unwrap().value.text(), Some("/run/a.pid"));
    assert_eq!(root.get("user").unwrap().value.text(), Some("a-b\n"), "one line break is taken");
    assert_eq!(texts(&root, "trusted_proxies"), ["10.0.0.0/8"]);
}

#[test]
fn a_file_that_came_by_a_variable_is_named_as_written() {
    let folder = folder(&[
        ("main.yaml", "include: ['${STAGE}/*.yaml', '${STAGE}.yaml']\n"),
        ("hidden-stage/a.yaml", "threads: many\n"),
    ]);
    let shown = loaded(&folder, &[("STAGE", "hidden-stage")]).1;
    assert!(shown.contains("--> ${STAGE}/a.yaml:1:10"), "{shown}");
    assert!(shown.contains("cannot read `${STAGE}.yaml`"), "{shown}");
    assert!(!shown.contains("hidden"), "{shown}");
}

#[test]
fn a_secret_file_has_bounds() {
    let folder = folder(&[
        (
            "main.yaml",
            "pid_file: ${file:whole}\nupgrade_sock: ${file:large}\nerror_log: ${file:.}\nuser: ${file:binary}\ngroup: ${file:binary}\n",
        ),
        ("whole", &"x".repeat(64 << 10)),
        ("large", &"x".repeat((64 << 10) + 1)),
    ]);
    fs::write(folder.path().join("binary"), b"secret\n\xff").unwrap();
    let shown = loaded(&folder, &[]).1;
    let errors: Vec<_> = shown.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(
        errors,
        [
            "error: `large` is larger than 64 KiB",
            "error: cannot read `.`: Is a directory (os error 21)",
            "error: `binary` is not UTF-8: byte 7, in line 2, breaks it",
            "error: `binary` is not UTF-8: byte 7, in line 2, breaks it",
        ]
    );
}

/// A pipe that nobody writes to is waited for without an end.
/// Each alone is small enough; those that follow one that is too much may still have room.
#[test]
fn text_is_bounded_in_all() {
    let folder = folder(&[("main.yaml", ""), ("a.yaml", "# some text\n"), ("b.yaml", "#\n")]);
    let mut problems = Problems::default();
    let (sources, bytes_left) = (Sources::default(), 10);
    let mut loading = Loading { sources, bytes_left, is_whole: true, problems: &mut problems };
    let mut read = |name: &str| {
        let text = loading.text(&folder.path().join(name), name);
        text.map_err(|problem| {
            let mut problems = Problems::default();
            problems.push(problem);
            render(&problems, &Sources::default(), Color::Never)
        })
    };
    assert_eq!(read("b.yaml").as_deref(), Ok("#\n"));
    let told = "error: with `a.yaml`, more than 64 MiB would be read\n |\n\
                help: the main file and those that it includes are counted together\n";
    assert_eq!(read("a.yaml").unwrap_err(), told);
    assert_eq!(read("b.yaml").as_deref(), Ok("#\n"));
}

#[test]
fn a_pipe_is_neither_included_nor_a_secret() {
    let main = "include: [pipe, folder]\npid_file: ${file:pipe}\nuser: ${file:socket}\n";
    let folder = folder(&[("main.yaml", main), ("folder/a.yaml", "")]);
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
    let shown = loaded(&folder, &[]).1;
    let lines: Vec<_> = shown.lines().filter(|line| line.starts_with("error")).collect();
    let expected = [
        "error: `pipe` is no file",
        "error: cannot read `folder`: Is a directory (os error 21)",
        "error: `pipe` is no file",
        "error: `socket` is no file",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_wrong_secret_is_not_shown() {
    let yaml = "include: [b.yaml]
upstreams:
  app: { backends: ['${BACKEND}'] }
routes:
  - name: all
    upstream: app
    policies: [{ request_headers: { set: { x-token: 'Bearer ${file:token}' } } }]
";
    let folder = folder(&[
        ("main.yaml", yaml),
        ("b.yaml", "threads: ${THREADS}\n"),
        ("token", "opensesame\nopendoor\n"),
    ]);
    let variables = [("BACKEND", "backend-without-port"), ("THREADS", "secretly four")];
    let (loaded, shown) = loaded(&folder, &variables);
    for secret in ["opensesame", "opendoor", "backend-without", "secretly", "four"] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!format!("{:?}", loaded.fills).contains(secret));
    }
    let errors: Vec<_> = shown.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(
        errors,
        [
            "error: `${BACKEND}` has no port",
            "error: `Bearer ${file:token}` is no value of a field",
            "error: expected a whole number, found `${THREADS}`",
        ]
    );
}

#[test]
fn what_is_watched_follows_the_folders() {
    let folder = folder(&[
        ("main.yaml", "include: ['conf.d/*.yaml', none.yaml]\npid_file: ${file:pid}\n"),
        ("conf.d/a.yaml", ""),
        ("pid", "/run/a.pid"),
    ]);
    let watched = loaded(&folder, &[]).0.watched;
    let listed = || names(&folder, &watched.files());
    assert_eq!(listed(), ["main.yaml", "conf.d/a.yaml", "none.yaml", "pid"]);
    fs::write(folder.path().join("conf.d/b.yaml"), "").unwrap();
    fs::remove_file(folder.path().join("conf.d/a.yaml")).unwrap();
    assert_eq!(listed(), ["main.yaml", "conf.d/b.yaml", "none.yaml", "pid"]);
}

#[test]
fn a_text_alone_includes_nothing_and_fills_nothing_in() {
    let mut problems = Problems::default();
    let loaded = Loaded::of("include: [none.yaml]\npid_file: ${NONE}\n", &mut problems);
    let root = loaded.root.unwrap();
    assert_eq!(root.get("pid_file").unwrap().value.text(), Some("${NONE}"));
    assert!(problems.is_empty() && root.get("include").is_none());
}

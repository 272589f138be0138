//! `watch: true`: the file is read again when it changes, in whichever way.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::support::{Crestline, Origin};

/// A watched file whose only route answers with this version.
fn watched(origin: &Origin, version: u32) -> String {
    format!("watch: true\n{}", unwatched(origin, version))
}

fn unwatched(origin: &Origin, version: u32) -> String {
    format!(
        "upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n\
         routes: [{{ name: all, upstream: app, policies: [{{ response_headers: {{ set: {{ x-version: \"{version}\" }} }} }}] }}]\n"
    )
}

async fn serves(proxy: &Crestline, version: u32) {
    let answer = proxy.get("/").await;
    assert_eq!(answer.get("x-version"), Some(&*version.to_string()));
}

#[tokio::test]
async fn a_rename_and_a_write_in_place_are_seen() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&watched(&origin, 1)).await;

    proxy.rewrite(&watched(&origin, 2));
    proxy.logs("reload: v1 → v2: route all changed").await;
    serves(&proxy, 2).await;
    fs::write(proxy.file(), proxy.completed(&watched(&origin, 3))).unwrap();
    proxy.logs("reload: v2 → v3: route all changed").await;
    serves(&proxy, 3).await;
    assert_eq!(proxy.log_with("reload:").len(), 2, "and nothing else is worth a line");
}

/// As a `ConfigMap` is mounted: the file → `..data/file`, `..data` → a folder that is swapped.
#[tokio::test]
async fn a_swapped_symbolic_link_is_seen() {
    let origin = Origin::replying("hello");
    let mounted = tempfile::tempdir().unwrap();
    let proxy = Crestline::start(&watched(&origin, 1)).await;
    mount(mounted.path(), "1", &proxy.completed(&watched(&origin, 2)));
    symlink("..data/crestline.yaml", mounted.path().join("crestline.yaml")).unwrap();
    let link = proxy.folder().join("link");
    symlink(mounted.path().join("crestline.yaml"), &link).unwrap();
    fs::rename(&link, proxy.file()).unwrap();
    proxy.logs("reload: v1 → v2").await;

    mount(mounted.path(), "2", &proxy.completed(&watched(&origin, 3)));
    fs::remove_dir_all(mounted.path().join("..1")).unwrap();
    proxy.logs("reload: v2 → v3: route all changed").await;
    serves(&proxy, 3).await;
}

fn mount(folder: &Path, name: &str, yaml: &str) {
    let data = format!("..{name}");
    fs::create_dir(folder.join(&data)).unwrap();
    fs::write(folder.join(&data).join("crestline.yaml"), yaml).unwrap();
    symlink(&data, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

#[tokio::test]
async fn a_half_written_file_is_told_once_and_changes_nothing() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&watched(&origin, 1)).await;
    let whole = proxy.completed(&watched(&origin, 2));

    fs::write(proxy.file(), &whole[..whole.find("x-version").unwrap()]).unwrap();
    let refused = "reload: nothing was changed";
    proxy.logs(refused).await;
    serves(&proxy, 1).await;
    fs::write(proxy.file(), whole).unwrap();
    proxy.logs("reload: v1 → v2: route all changed").await;
    serves(&proxy, 2).await;
    assert_eq!(proxy.log_with(refused).len(), 1);
}

/// The witness beside it, whose file changed later, has seen its own by then.
#[tokio::test]
async fn without_watch_nothing_happens_until_it_is_asked_for() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&unwatched(&origin, 1)).await;
    let witness = Crestline::start(&watched(&origin, 1)).await;

    proxy.rewrite(&unwatched(&origin, 2));
    witness.rewrite(&watched(&origin, 2));
    witness.logs("reload: v1 → v2").await;
    serves(&proxy, 1).await;
    // Watching begins with the reload that asks for it, and ends with the one that does not.
    assert_eq!(
        proxy.reload(&watched(&origin, 3)).await,
        "v1 → v2: route all changed, watch changed"
    );
    proxy.rewrite(&watched(&origin, 4));
    proxy.logs("reload: v2 → v3: route all changed").await;
    proxy.rewrite(&unwatched(&origin, 5));
    proxy.logs("reload: v3 → v4: route all changed, watch changed").await;
    proxy.rewrite(&unwatched(&origin, 6));
    witness.rewrite(&watched(&origin, 3));
    witness.logs("reload: v2 → v3").await;
    serves(&proxy, 5).await;
}

/// Until the file changes.
#[tokio::test]
async fn what_was_taken_back_is_not_read_again() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&watched(&origin, 1)).await;
    let witness = Crestline::start(&watched(&origin, 1)).await;
    proxy.reload(&watched(&origin, 2)).await; // unless it was seen before
    let told = proxy.command(&["reload", "--to", "1"]).await;
    assert_eq!(told.stderr, "v2 → v3 (as v1): route all changed\n");

    witness.rewrite(&watched(&origin, 2));
    witness.logs("reload: v1 → v2").await;
    assert_eq!(proxy.version().await, 3);
    serves(&proxy, 1).await;
    proxy.rewrite(&watched(&origin, 4));
    proxy.logs("reload: v3 → v4: route all changed").await;
    serves(&proxy, 4).await;
}

/// Those that come to match, too; and what was taken back stays so, however many files it has.
#[tokio::test]
async fn included_files_and_secrets_are_watched() {
    let origin = Origin::replying("hello");
    let route = |version: u32| {
        format!(
            "routes: [{{ name: all, upstream: app, policies: [{{ response_headers: {{ set: {{ x-version: \"{version}\", x-secret: \"${{file:secret}}\" }} }} }}] }}]\n"
        )
    };
    let main = format!(
        "watch: true\ninclude: [conf.d/*.yaml]\nupstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n"
    );
    let files = [("conf.d/routes.yaml", &*route(1)), ("secret", "one")];
    let proxy = Crestline::start_among(&files, &[], &main).await;
    serves(&proxy, 1).await;

    let place = |name: &str| proxy.folder().join(name);
    fs::write(place("secret"), "two").unwrap();
    proxy.logs("reload: v1 → v2: route all changed").await;
    assert_eq!(proxy.get("/").await.get("x-secret"), Some("two"));
    let more = "routes: [{ name: more, match: { path: /more }, upstream: app }]\n";
    fs::write(place("conf.d/more.yaml"), more).unwrap();
    proxy.logs("reload: v2 → v3: route more added").await;

    fs::write(place("conf.d/routes.yaml"), route(2)).unwrap();
    fs::write(place("conf.d/third.yaml"), more.replace("more", "third")).unwrap();
    proxy.command(&["reload"]).await; // unless it was seen before
    assert_eq!(proxy.version().await, 4);
    let told = proxy.command(&["reload", "--to", "3"]).await;
    assert!(told.stderr.starts_with("v4 → v5 (as v3): "), "{}", told.stderr);
    let witness = Crestline::start(&watched(&origin, 1)).await;
    witness.rewrite(&watched(&origin, 2));
    witness.logs("reload: v1 → v2").await;
    assert_eq!(proxy.version().await, 5);
    serves(&proxy, 1).await;
}

/// It is written again, perhaps by whatever removed it.
#[tokio::test]
async fn a_file_that_vanishes_and_comes_back_is_read_again() {
    let origin = Origin::replying("hello");
    let proxy = Crestline::start(&watched(&origin, 1)).await;

    fs::remove_file(proxy.file()).unwrap();
    proxy.logs("cannot read").await;
    serves(&proxy, 1).await;
    proxy.rewrite(&watched(&origin, 2));
    proxy.logs("reload: v1 → v2").await;
    serves(&proxy, 2).await;
}

//! The OpenAPI document of the admin API, held against the answers.
//!
//! To write `docs/openapi.json` anew after the API has changed, run
//!
//! ```text
//! crestline schema --openapi > docs/openapi.json
//! ```

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use crestline::admin::openapi;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::Command,
};

use crate::support::{Crestline, Origin, Pair, soon};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn the_document_that_ships_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let shipped = fs::read_to_string(path).unwrap_or_default();
    let how = "run `crestline schema --openapi > docs/openapi.json`";
    assert!(shipped == openapi::printed(), "docs/openapi.json is not that of the program: {how}");
}

#[test]
fn the_manual_has_a_line_for_each_path() {
    let manual = include_str!("../docs/api.md");
    let document = openapi::document();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let line = format!("`{} {path}`", method.to_uppercase());
            assert!(manual.contains(&line), "docs/api.md does not tell of {line}");
        }
    }
}

/// All that there is to be told about: TLS, a backend that failed, one with bounds, discovery.
async fn started() -> (Crestline, String, [Origin; 2], TempDir) {
    let (good, dead) = (Origin::replying("hello"), Origin::refusing());
    let folder = tempfile::tempdir().unwrap();
    Pair::of(&["a.test"]).write(folder.path(), "a");
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let at = folder.path().display();
    // A drained process goes on answering for longer than the test takes.
    let yaml = format!(
        "
        admin: {{ address: \"127.0.0.1:0\", token: \"file:{at}/token\" }}
        access_log: off
        lame_duck: 10m
        listeners:
          - address: \"127.0.0.1:0\"
          - {{ address: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert: {at}/a.pem, key: {at}/a.key }}] }} }}
        upstreams:
          app: {{ backends: [\"{good}\", \"{dead}\"], max_requests: 7 }}
          other: {{ backends: [\"localhost:9\"] }}
        routes: [{{ name: app, match: {{ path: /app }}, upstream: app }}, {{ name: rest, upstream: other }}]
        "
    );
    let proxy = Crestline::start(&yaml).await;
    for path in ["/app", "/app", "/rest"] {
        proxy.get(path).await;
    }
    proxy.refuses("upstreams: 7\n").await;
    proxy.rewrite(&yaml);
    let place = proxy.admin_address().await;
    (proxy, place, [good, dead], folder)
}

#[tokio::test]
async fn answers_are_as_the_document_says() {
    let (proxy, place, [good, _], _folder) = started().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Names that there are, so that orders are carried out as well.
    let mut document: Value = openapi::document();
    for (path, methods) in document["paths"].as_object_mut().unwrap() {
        if path.contains("{upstream}") {
            let parameters = methods["post"]["parameters"].as_array_mut().unwrap();
            for (parameter, name) in parameters.iter_mut().zip(["app", &good.to_string()]) {
                parameter["examples"] = json!({ "one": { "value": name } });
            }
        }
    }
    let written = proxy.folder().join("openapi.json");
    fs::write(&written, document.to_string()).unwrap();

    let mut command = Command::new(root.join("target/python/bin/schemathesis"));
    command.arg("--config-file").arg(root.join("tests/clients/schemathesis.toml"));
    command.arg("run").arg(&written).arg("--url").arg(format!("http://{place}"));
    command.args(["--header", &format!("Authorization: Bearer {TOKEN}")]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--seed", "1"]);
    command.args(["--no-shrink", "--suppress-health-check", "all", "--workers", "1"]);
    command.args(["--request-timeout", "50", "--exclude-path", "/v1/live"]);
    command.args(["--exclude-path", "/v1/upgrade"]); // a process for each question
    command.current_dir(proxy.folder()).env("NO_COLOR", "1").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("schemathesis is installed: make setup-python");
    let told = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
    println!("{said}");
    assert!(told.status.success(), "{said}");
    assert_eq!(proxy.status().await["state"], "draining", "it was told to");
}

#[tokio::test]
async fn events_are_as_the_document_says() {
    let (proxy, ..) = started().await;
    let mut stream = UnixStream::connect(proxy.admin_socket()).await.unwrap();
    stream.write_all(b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut name = String::new();
    let mut judged = Vec::new();
    while judged.len() < 3 {
        let line = soon("a line", lines.next_line()).await.unwrap().unwrap();
        if let Some(named) = line.strip_prefix("event: ") {
            named.clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            is_as_written(&name, &serde_json::from_str(data).unwrap());
            judged.push(name.clone());
        }
    }
    assert_eq!(judged, ["start", "second", "second"]);
}

/// Judges an event by the schema that the document names for it.
fn is_as_written(name: &str, event: &Value) {
    let mut document = openapi::document();
    let stream = &document["paths"]["/v1/live"]["get"]["responses"]["200"]["content"];
    let reference = stream["text/event-stream"]["x-events"][name]["$ref"].as_str().unwrap();
    document["$ref"] = reference.into();
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("api.json", document.clone()).unwrap();
    let index = compiler.compile("api.json", &mut schemas).unwrap();
    schemas.validate(event, index).unwrap_or_else(|why| panic!("{name}: {why:#}\n{event}"));
    let mut lacking = event.clone();
    lacking.as_object_mut().unwrap().remove("pulse");
    assert!(schemas.validate(&lacking, index).is_err(), "it would be noticed");
}

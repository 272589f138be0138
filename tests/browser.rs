//! A browser as a client: a page is loaded, and asks in all the ways that pages do.

use std::{path::Path, process::Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{KeyPair, PublicKeyData};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
};

use crate::{
    support::{Crestline, Origin, Pair, chromium::FLAGS, soon},
    tunnels::echo,
};

/// Opens a page in a browser that believes this key, and no other that vouches for itself.
fn open(url: &str, pair: &Pair, folder: &Path) -> Child {
    let key = KeyPair::from_pem(&pair.key).unwrap().subject_public_key_info();
    let pin = BASE64_STANDARD.encode(digest(&SHA256, &key));
    let mut browser = Command::new("chromium");
    browser.arg("--remote-debugging-port=0"); // stays until it is told to leave
    browser.args(FLAGS).arg(format!("--ignore-certificate-errors-spki-list={pin}")).arg(url);
    browser.current_dir(folder).env("HOME", folder).kill_on_drop(true);
    browser.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    browser.spawn().unwrap_or_else(|why| panic!("chromium: {why}: make setup"))
}

/// Lets it end its own processes.
async fn leave(mut browser: Child) {
    let pid = Pid::from_raw(browser.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    soon("the end of the browser", browser.wait()).await.unwrap();
}

#[tokio::test]
async fn a_browser_is_served() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let origin = Origin::with(move |mut exchange| {
        let reports = reports.clone();
        async move {
            match exchange.request.target.as_str() {
                "/" => {
                    let page = include_str!("clients/browser.html");
                    exchange.answer("200 OK", "Content-Type: text/html\r\n", page).await
                }
                "/events" => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                    exchange.send(head).await;
                    for event in ["one", "two", "three"] {
                        exchange.send(format!("data: {event}\n\n")).await;
                    }
                    exchange.hang().await
                }
                "/chat" => echo(exchange).await,
                "/report" => {
                    let report = exchange.body().await;
                    reports.send(serde_json::from_slice::<Value>(&report).unwrap()).unwrap();
                    exchange.reply("").await
                }
                _ => {
                    let body = exchange.body().await;
                    exchange.reply(body).await
                }
            }
        }
    });
    let pair = Pair::of(&["localhost"]);
    let yaml = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", \
           tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}]\n\
         upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}\n"
    );
    let files = [("a.pem", pair.cert.as_str()), ("a.key", &pair.key)];
    let proxy = Crestline::start_among(&files, &[], &yaml).await;
    let port = proxy.address().rsplit_once(':').unwrap().1;

    let browser = open(&format!("https://localhost:{port}/"), &pair, proxy.folder());
    let report = soon("the browser's report", reported.recv()).await.unwrap();
    let all_is_well = json!({
        "posted": true, "parallel": true, "events": true, "websocket": true, "protocols": "h2",
    });
    assert_eq!(report, all_is_well);
    let line = proxy.access_line(|line| line["path"] == "/chat").await;
    assert_eq!((&line["status"], &line["protocol"]), (&200.into(), &"HTTP/2.0".into()));
    leave(browser).await;
}

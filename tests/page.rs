//! The page at the admin listener's `/`, in a real browser; and the events that it lives on.
//!
//! To take the pictures of the documents anew, run
//!
//! ```text
//! UPDATE_EXPECTED=1 cargo test --test integration page::
//! ```

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::{self, Instant},
};

use crate::support::{Client, Crestline, Origin, Pair, chromium::Chromium, get, soon};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Counts how far things moved without a key or a click: 0.1 is what is called good.
const MOVES: &str = "window.moved = 0; new PerformanceObserver((list) => { \
    for (const one of list.getEntries()) if (!one.hadRecentInput) window.moved += one.value; \
    }).observe({ type: 'layout-shift', buffered: true });";

/// Whether it is seen what has the focus.
const FOCUS_IS_SEEN: &str = "document.activeElement.matches(':focus-visible') && \
    getComputedStyle(document.activeElement).outlineStyle !== 'none'";

/// A row of a backend, as an expression.
fn row(backend: &Origin) -> String {
    let is_it = format!("tr.querySelector('.address').textContent === '{backend}'");
    format!("[...document.querySelectorAll('#upstreams tbody tr')].find((tr) => {is_it})")
}

async fn has_contrast(browser: &mut Chromium) {
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        let told = browser.value(include_str!("clients/contrast.js")).await;
        assert!(told["seen"].as_u64().unwrap() > 2, "{told}");
        assert_eq!(told["bad"], json!([]), "in {scheme}");
    }
}

/// Asks on and on, for what is there and what is not.
async fn ask_for_ever(address: String) {
    let paths = ["/shop", "/search", "/shop", "/none", "/shop"];
    for path in paths.iter().chain(&paths).chain(&["/cart"]).cycle() {
        let mut client = Client::connect(&address).await;
        client.exchange(get(path)).await;
        time::sleep(Duration::from_millis(20)).await;
    }
}

/// One browser does it all, since it is dear to start.
#[tokio::test]
async fn an_operator_sees_what_happens_and_drains_a_backend_by_the_keyboard() {
    let [good, dying, third] = [(); 3].map(|()| Origin::replying("hello"));
    let broken = [Origin::refusing(), Origin::resetting()];
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    Pair::of(&["shop.test", "www.shop.test"]).write(folder.path(), "shop");
    let pair = folder.path().join("shop").display().to_string();
    let yaml = format!(
        "
        access_log: off
        admin: {{ address: \"127.0.0.1:0\", token: \"file:{}\" }}
        listeners:
          - address: \"127.0.0.1:0\"
          - {{ address: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert: {pair}.pem, key: {pair}.key }}] }} }}
        upstreams:
          shop: {{ backends: [\"{good}\", \"{dying}\"] }}
          search: {{ backends: [\"{third}\"] }}
          cart: {{ backends: [\"{}\", \"{}\"], health_check: off, ejection: off }}
        routes:
          - {{ name: cart, match: {{ path: /cart }}, upstream: cart }}
          - {{ name: search, match: {{ path: /search }}, upstream: search }}
          - {{ name: shop, match: {{ path: /shop }}, upstream: shop }}
        ",
        token.display(),
        broken[0],
        broken[1],
    );
    let proxy = Crestline::start(&yaml).await;
    let evil = "upstreams: '<img src=x onerror=alert(1)>'\n";
    proxy.refuses(evil).await;
    let place = proxy.admin_address().await;
    let place = place.replace("127.0.0.1", "localhost"); // the browser knows no other host
    let asking = tokio::spawn(ask_for_ever(proxy.address().to_owned()));

    let mut browser = Chromium::start(folder.path(), 1280, 1000).await;
    browser.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": MOVES })).await;
    browser.open(&format!("http://{place}/")).await;
    browser.until("document.activeElement.id === 'token'").await;
    has_contrast(&mut browser).await;
    browser.call("Input.insertText", json!({ "text": TOKEN })).await;
    browser.press("Enter").await;
    browser.until("document.querySelector('#link').dataset.link === 'live'").await;
    browser.until("document.querySelectorAll('#upstreams tbody tr').length === 5").await;
    let keeps =
        "sessionStorage.length === 1 && localStorage.length === 0 && document.cookie === ''";
    assert_eq!(browser.value(keeps).await, true);
    for shown in ["shop.test, www.shop.test", "no_route", "<img src=x"] {
        browser.until(&format!("document.body.innerText.includes('{shown}')")).await;
    }
    assert_eq!(browser.value("document.querySelectorAll('img, main script').length").await, 0);
    let all_fit = "document.querySelector('#verdict').textContent";
    assert_eq!(browser.value(all_fit).await, "All 5 backends are in service.");
    browser
        .until("document.querySelector('#requests-chart .line-0').getAttribute('d').includes('L')")
        .await;
    browser
        .until("0 < parseFloat(document.querySelector('#requests-chart strong').textContent)")
        .await;

    let killed = Instant::now();
    dying.kill().await;
    browser.until(&format!("{}.dataset.is === 'bad'", row(&dying))).await;
    let took = killed.elapsed();
    println!("a killed backend turned red after {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    let shown = browser.value(&format!("{}.innerText", row(&dying))).await;
    let shown = shown.as_str().unwrap();
    assert!(shown.contains("unhealthy") && shown.contains("refused"), "{shown}");
    let ground = |of: &str| format!("getComputedStyle({of}).backgroundColor");
    let differ = format!("{} !== {}", ground(&row(&dying)), ground(&row(&good)));
    assert_eq!(browser.value(&differ).await, true, "red is seen");
    has_contrast(&mut browser).await;
    picture(&mut browser, "page.png", Duration::from_secs(45)).await;
    dying.revive();
    browser.until(&format!("{}.dataset.is === 'good'", row(&dying))).await;

    let drains = format!("document.activeElement.ariaLabel === 'Drain {third} of search'");
    tab_until(&mut browser, &drains).await;
    assert_eq!(browser.value(FOCUS_IS_SEEN).await, true);
    browser.press("Enter").await;
    browser.until(&format!("{}.dataset.is === 'away'", row(&third))).await;
    assert_eq!(proxy.availability("search").await[&third.to_string()], "draining");
    let label = browser.value("document.activeElement.ariaLabel").await;
    assert_eq!(label, format!("Bring back {third} of search"), "the focus stays");
    has_contrast(&mut browser).await;
    browser.press("Enter").await;
    browser.until(&format!("{}.dataset.is === 'good'", row(&third))).await;
    assert_eq!(proxy.availability("search").await[&third.to_string()], "ready");
    proxy.logs("/drain\" by 127.0.0.1:").await;

    reads_the_story_of_a_request(&mut browser, &broken[0]).await;

    let moved = browser.value("window.moved").await;
    assert!(moved.as_f64().unwrap() < 0.1, "things moved: {moved}");
    assert_eq!(browser.complaints().await, [""; 0]);
    asking.abort();
}

/// Presses Tab until an expression is true.
async fn tab_until(browser: &mut Chromium, expression: &str) {
    for tab in 0.. {
        assert!(tab < 50, "a tab never reached {expression}");
        browser.press("Tab").await;
        if browser.value(&format!("Boolean({expression})")).await == true {
            return;
        }
    }
}

/// By the keyboard alone: a request of the list, unfolded; another list; and one by its id.
async fn reads_the_story_of_a_request(browser: &mut Chromium, refusing: &Origin) {
    browser.until("document.querySelector('#recorded summary')").await;
    tab_until(browser, "document.activeElement.matches('#recorded summary')").await;
    assert_eq!(browser.value(FOCUS_IS_SEEN).await, true);
    let line = browser.value("document.activeElement.innerText").await;
    let time = line.as_str().unwrap().split_whitespace().next().unwrap();
    assert_eq!(time.len(), "08:15:00.123".len(), "{line}");
    browser.press("Enter").await;
    browser.until("document.querySelector('#recorded details[open] .timeline')").await;
    let story = browser.value("document.querySelector('.story').innerText").await;
    let story = story.as_str().unwrap();
    let attempt = format!(": {refusing}");
    let steps = ["Connection accepted", "Head read", "Route found", "cart, to upstream cart"];
    for shown in steps.iter().chain(&["Policies asked", &attempt, "refused; no connection"]) {
        assert!(story.contains(shown), "{shown} is not in {story}");
    }
    let ends = "document.querySelector('.timeline li:last-child').innerText";
    assert!(browser.value(ends).await.as_str().unwrap().starts_with("Ended 502 "), "{story}");
    let bars = "[...document.querySelectorAll('.timeline rect')].map((bar) => \
                [bar.getBoundingClientRect().width, getComputedStyle(bar).fill])";
    let bars = browser.value(bars).await;
    assert!(2 <= bars.as_array().unwrap().len(), "a bar for each attempt: {bars}");
    for bar in bars.as_array().unwrap() {
        assert!(0.0 < bar[0].as_f64().unwrap() && bar[1] != "rgb(0, 0, 0)", "{bars}");
    }
    has_contrast(browser).await;
    browser.value("document.querySelector('#requests-title').scrollIntoView()").await;
    picture(browser, "page-requests.png", Duration::ZERO).await;

    let id = browser.value("document.querySelector('.story code').textContent").await;
    browser.value("document.querySelector('[data-kind=refused]').focus()").await;
    browser.press("Enter").await;
    let first = "document.querySelector('#recorded .status').textContent";
    browser.until(&format!("{first} === '404 no_route'")).await;
    tab_until(browser, "document.activeElement.id === 'find-id'").await;
    browser.call("Input.insertText", json!({ "text": id })).await;
    browser.press("Enter").await;
    let found = format!("document.querySelector('#found .story code')?.textContent === {id}");
    browser.until(&found).await;
}

/// Writes a picture of the documents if that is wanted, and holds that there is a small one.
async fn picture(browser: &mut Chromium, name: &str, waits: Duration) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        browser.prefer("light").await;
        time::sleep(waits).await; // so that lines are seen
        fs::write(&path, browser.picture().await).unwrap();
    }
    let size = fs::metadata(&path).unwrap().len();
    assert!(size <= 300 * 1024, "{size}");
}

/// Somebody who watches over the admin socket.
struct Watcher(BufReader<UnixStream>);

impl Watcher {
    /// Begins to watch: the status of the answer.
    async fn begin(proxy: &Crestline) -> (Self, String) {
        let mut stream = UnixStream::connect(proxy.admin_socket()).await.unwrap();
        stream.write_all(b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut watcher = Self(BufReader::new(stream));
        let status = watcher.line().await;
        (watcher, status)
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = soon("an event", self.0.read_line(&mut line)).await.unwrap();
        assert_ne!(read, 0, "the stream ended");
        line
    }

    /// The next event: its name and data.
    async fn event(&mut self) -> (String, Value) {
        let mut name = String::new();
        loop {
            let line = self.line().await;
            if let Some(named) = line.strip_prefix("event: ") {
                named.trim().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[tokio::test]
async fn who_watches_is_told_all_at_first_and_then_what_changes() {
    let (one, other) = (Origin::replying("hello"), Origin::replying("hello"));
    let yaml = |more: &str| {
        format!(
            "upstreams: {{ app: {{ backends: [\"{one}\", \"{other}\"], health_check: off{more} }} }}"
        )
    };
    let proxy = Crestline::start(&yaml("")).await;
    let (mut watcher, status) = Watcher::begin(&proxy).await;
    assert_eq!(status, "HTTP/1.1 200 OK\r\n");
    let (name, start) = watcher.event().await;
    assert_eq!((&*name, &start["status"]["pid"]), ("start", &proxy.id().into()));
    assert_eq!(start["status"]["upstreams"][0]["backends"].as_array().unwrap().len(), 2);
    let mut last = watcher.event().await;
    while last.1["upstreams"] != json!([]) {
        last = watcher.event().await; // what happened before may be told in the first second
    }

    for _ in 0..3 {
        proxy.get("/").await;
    }
    let (path, mut attempts, mut ended) =
        (format!("/v1/backends/app/{one}/drain"), BTreeMap::new(), 0);
    assert_eq!(proxy.api("POST", &path, "").await.0, 200);
    let is_drained = |backends: &BTreeMap<String, Value>| {
        backends.get(&one.to_string()).is_some_and(|one| one["availability"] == "draining")
    };
    while ended < 3 || !is_drained(&attempts) {
        let (name, tick) = watcher.event().await;
        assert_eq!(name, "second");
        ended = tick["pulse"]["reasons"]["ok"].as_u64().unwrap();
        for backend in tick["upstreams"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|one| one["backends"].as_array().unwrap())
        {
            attempts.insert(backend["address"].as_str().unwrap().to_owned(), backend.clone());
        }
    }
    let sum: u64 = attempts.values().map(|one| one["attempts"].as_u64().unwrap()).sum();
    assert_eq!((ended, sum), (3, 3), "{attempts:?}");

    proxy.reload(&yaml(", retries: 0")).await;
    loop {
        let (name, whole) = watcher.event().await;
        if name == "start" {
            assert_eq!(whole["status"]["configuration"]["version"], 2);
            let asked: f64 = whole["history"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["requests_per_second"].as_f64().unwrap())
                .sum();
            assert!(0.0 < asked, "the history has them: {whole}");
            break;
        }
    }
}

#[tokio::test]
async fn so_many_watch_at_a_time_and_commands_get_through() {
    let origin = Origin::replying("hello");
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;
    let mut watchers = Vec::new();
    for _ in 0..16 {
        let (watcher, status) = Watcher::begin(&proxy).await;
        assert_eq!(status, "HTTP/1.1 200 OK\r\n");
        watchers.push(watcher);
    }
    let one_more = Watcher::begin(&proxy).await;
    assert_eq!(one_more.1, "HTTP/1.1 503 Service Unavailable\r\n");
    assert_eq!(proxy.status().await["pid"], proxy.id());
    for watcher in &mut watchers {
        assert_eq!(watcher.event().await.0, "start");
    }
    watchers.pop();
    soon("a place", async { while Watcher::begin(&proxy).await.1.contains("503") {} }).await;
}

/// The owner may have the socket within reach of a browser.
#[tokio::test]
async fn the_socket_has_the_page_as_well_and_refuses_strangers() {
    let origin = Origin::replying("hello");
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;
    let socket = proxy.admin_socket().display().to_string();
    let ask = async |url: &str, fields: &[&str]| {
        let mut arguments = vec!["-i", "--unix-socket", &socket, url];
        arguments.extend(fields.iter().flat_map(|field| ["-H", field]));
        String::from_utf8(crate::support::curl(&arguments).await.stdout).unwrap()
    };
    let page = ask("http://localhost:9180/", &[]).await;
    assert!(page.contains("<title>Crestline</title>") && page.contains("data-token=\"none\""));
    for field in [
        "Content-Security-Policy: default-src 'none'; script-src 'self'",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
    ] {
        assert!(page.to_lowercase().contains(&field.to_lowercase()), "{page}");
    }
    assert!(page.contains("frame-ancestors 'none'; require-trusted-types-for 'script'"));
    let link = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"];
    assert!(ask("http://localhost:9180/", &link).await.starts_with("HTTP/1.1 200"));
    for (url, fields) in [
        ("http://evil.test/v1/status", &[][..]),
        ("http://localhost:9180/v1/status", &["Origin: http://evil.test"]),
        ("http://localhost:9180/v1/status", &link),
        ("http://localhost:9180/", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: iframe"]),
        ("http://localhost:9180/page/app.js", &link),
    ] {
        assert!(ask(url, fields).await.starts_with("HTTP/1.1 403"), "{url} {fields:?}");
    }
}

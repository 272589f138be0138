//! A browser that is told what to do: Chromium's own protocol, over a pair of pipes.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{self, Instant},
};

use super::{PATIENCE, soon};

/// No host but this one is ever asked, and nothing is looked for on the system's bus.
pub(crate) const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
    "--user-data-dir=browser",
];

/// The browser reads what it is told from descriptor 3, and answers on 4. Descriptors cannot be
/// put at a number from here without `unsafe`; a shell can.
const AS_A_SERVANT: &str = "exec 3<&0 4>&1 </dev/null >/dev/null; exec \"$@\"";

/// A browser with one page. It ends when this is dropped.
pub(crate) struct Chromium {
    _child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// What pages complained of.
    complaints: Vec<String>,
}

impl Chromium {
    /// Starts it, with a page of such a size.
    pub(crate) async fn start(folder: &Path, width: u32, height: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", AS_A_SERVANT, "sh", "chromium", "--remote-debugging-pipe"]);
        command.args(FLAGS).current_dir(folder).env("HOME", folder).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (session, complaints) = (None, Vec::new());
        let mut browser =
            Self { _child: child, to, from: BufReader::new(from), session, last: 0, complaints };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({})).await;
        }
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", size).await;
        browser
    }

    /// Asks for something of the protocol, and returns the answer.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut order = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            order["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{order}\0").as_bytes()).await.unwrap();
        loop {
            let told = soon(method, self.told()).await;
            if told["id"] == self.last {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].clone();
            }
            self.listen(&told);
        }
    }

    async fn told(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).await.unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser ended: is chromium there? make setup");
        serde_json::from_slice(&bytes).unwrap()
    }

    fn listen(&mut self, told: &Value) {
        let params = &told["params"];
        let is_bad = match told["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => params["type"] == "error",
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if is_bad {
            self.complaints.push(params.to_string());
        }
    }

    /// What pages complained of since it was last asked.
    pub(crate) async fn complaints(&mut self) -> Vec<String> {
        self.value("0").await; // whatever was said before was read when the answer is
        std::mem::take(&mut self.complaints)
    }

    /// Opens a page, and waits until it is there.
    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'").await;
    }

    /// The value of an expression in the page.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        let start = Instant::now();
        while self.value(&format!("Boolean({expression})")).await != true {
            if PATIENCE < start.elapsed() {
                let page = self.value("document.body.innerText").await;
                panic!("waited in vain for {expression}: {page}\n{:?}", self.complaints);
            }
            time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Presses a key and lets it go: `Tab`, `Enter`.
    pub(crate) async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            _ => panic!("what is {key}?"),
        };
        let mut event = json!({ "key": key, "code": key, "windowsVirtualKeyCode": code });
        event["type"] = "keyDown".into();
        if let Some(text) = text {
            event["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", event.clone()).await;
        event["type"] = "keyUp".into();
        event.as_object_mut().unwrap().remove("text");
        self.call("Input.dispatchKeyEvent", event).await;
    }

    /// Has pages in light or in dark.
    pub(crate) async fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// What the page looks like, as PNG.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        BASE64_STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }
}

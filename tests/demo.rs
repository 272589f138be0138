//! The demonstration, as a newcomer meets it, and Pingora's own way of upgrading.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::support::{Client, get, soon};

/// A demonstration on ports that the system chose.
struct Demo {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_crestline"))
            .args(["demo", "--port", "0", "--origins", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, _child: child }
    }

    /// What follows `before` in the next line that has it, up to the next space.
    async fn word_after(&mut self, before: &str) -> String {
        let line = self.line_with(before).await;
        let (_, after) = line.split_once(before).unwrap();
        after.split([' ', ',']).next().unwrap().trim_end_matches('.').to_owned()
    }

    async fn line_with(&mut self, text: &str) -> String {
        let find = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the demo goes on");
                if line.contains(text) {
                    return line;
                }
            }
        };
        soon(text, find).await
    }
}

#[tokio::test]
async fn the_demo_answers_through_the_proxy_with_the_injected_field() {
    let mut demo = Demo::start(&[]);
    let origin = demo.word_after("Three origins listen on ").await;
    let proxy = demo.word_after("The proxy listens on ").await;

    let listening = async {
        while tokio::net::TcpStream::connect(&proxy).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("the proxy listens", listening).await;
    let mut origins = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let answer = Client::connect(&proxy).await.exchange(get("/hello/def")).await;
        assert_eq!((answer.status, answer.text()), (200, "hello, def!\n"));
        assert_eq!(answer.get("key1"), Some("value1"));
        origins.insert(answer.get("x-origin").unwrap().to_owned());
    }
    assert_eq!(origins.len(), 3, "all three took their turn");
    assert!(origins.contains(&origin));
}

/// An origin dies under load: no request fails, and the demo says when the last retry came.
#[tokio::test]
async fn chaos_counts_requests_and_no_failures() {
    let mut demo = Demo::start(&["--chaos"]);
    demo.line_with(" dies").await;
    let report = demo.line_with(" requests, ").await;
    let requests = report.strip_prefix("chaos: ").unwrap().split(' ').next().unwrap();
    assert!(100 < requests.parse::<u64>().unwrap(), "{report}");
    assert!(report.contains(" requests, 0 failures; "), "{report}");
}

//! `crestline top`, on a terminal that the test is at the other end of.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZero,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};
use tokio::{
    process::{Child, Command},
    time::{self, Duration, Instant},
};

use crate::support::{Crestline, Origin, PATIENCE, eventually, get, soon};

const ROWS: NonZero<u16> = NonZero::new(20).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(130).unwrap();

/// A terminal, and what is run on it.
struct Terminal {
    /// The side of the person.
    person: File,
    /// The side of the program, kept open so that its settings can be read.
    program: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<vt100::Parser>>,
    child: Child,
}

impl Terminal {
    /// Runs `crestline top` as an SSH session does: on a terminal of its own.
    fn run(proxy: &Crestline, arguments: &[&str]) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let program = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size =
            Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&program, size).unwrap();
        let before = tcgetattr(&program).unwrap();
        let side = || Stdio::from(program.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_crestline"), "-c"]);
        command.arg(proxy.file()).arg("top").args(arguments).env("TERM", "xterm-256color");
        command.stdin(side()).stdout(side()).stderr(side()).kill_on_drop(true);
        let child = command.spawn().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let person = File::from(person);
        let (mut from, drawn) = (person.try_clone().unwrap(), screen.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..length]);
            }
        });
        Self { person, program, before, screen, child }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until all of these stand on the screen, in this order.
    async fn shows(&self, words: &[&str]) {
        let start = Instant::now();
        while let Some(missing) = lacks(&self.text(), words) {
            assert!(start.elapsed() < PATIENCE, "no {missing:?} in\n{}", self.text());
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.person.write_all(keys).unwrap();
    }

    /// Waits for its end, after which the terminal must be as it was before.
    async fn ends(mut self) -> ExitStatus {
        let status = soon("its end", self.child.wait()).await.unwrap();
        let after = tcgetattr(&self.program).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        eventually("the old screen, with a cursor", || {
            let screen = self.screen.lock().unwrap();
            !screen.screen().alternate_screen() && !screen.screen().hide_cursor()
        })
        .await;
        status
    }
}

/// The first of these words that a text lacks behind those before it.
fn lacks<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let mut rest = text;
    for word in words {
        match rest.split_once(word) {
            Some((_, behind)) => rest = behind,
            None => return Some(word),
        }
    }
    None
}

#[tokio::test]
async fn upstreams_and_backends_are_sorted_as_a_key_says() {
    let (slow, dead) = (Origin::stalling(), Origin::refusing());
    let proxy = Crestline::start(&format!(
        "
        upstreams:
          alpha: {{ backends: [\"{slow}\"], health_check: off }}
          beta: {{ backends: [\"{dead}\"], health_check: off, ejection: off }}
        routes:
          - {{ name: alpha, match: {{ path: /alpha }}, upstream: alpha }}
          - {{ name: beta, match: {{ path: /beta }}, upstream: beta }}
        "
    ))
    .await;
    let mut waiting = proxy.client().await;
    waiting.send(&get("/alpha")).await;
    for _ in 0..3 {
        assert_eq!(proxy.get("/beta").await.status, 502);
    }

    let mut terminal = Terminal::run(&proxy, &[]);
    let [slow, dead] = [slow.to_string(), dead.to_string()];
    let process = format!("process {}", proxy.id());
    let head = ["Crestline", &process, "serving", "live", "requests/s", "failures/s", "p99"];
    terminal.shows(&head).await;
    terminal.shows(&["alpha", "1 of 1", &slow, "ready", "beta", &dead, "by load"]).await;
    terminal.shows(&["connections, 1 in flight", &dead, "request: refused, at 20"]).await;
    terminal.press(b"e");
    terminal.shows(&["beta", &dead, "alpha", &slow, "by errors"]).await;
    terminal.press(b"n");
    terminal.shows(&["alpha", &slow, "beta", &dead, "by name"]).await;
    terminal.press(b"q");
    assert_eq!(terminal.ends().await.code(), Some(0));
}

#[tokio::test]
async fn whatever_ends_it_the_terminal_is_as_it_was() {
    let origin = Origin::replying("hello");
    let proxy =
        Crestline::start(&format!("upstreams: {{ app: {{ backends: [\"{origin}\"] }} }}")).await;
    for ends in [&b"\x1b"[..], b"\x03", b"SIGTERM"] {
        let mut terminal = Terminal::run(&proxy, &["--sort", "errors"]);
        terminal.shows(&["live", &origin.to_string(), "by errors"]).await;
        assert!(terminal.screen.lock().unwrap().screen().alternate_screen());
        let id = Pid::from_raw(terminal.child.id().unwrap().try_into().unwrap()).unwrap();
        match ends {
            b"SIGTERM" => kill_process(id, Signal::TERM).unwrap(),
            key => terminal.press(key),
        }
        assert_eq!(terminal.ends().await.code(), Some(0), "{ends:?}");
    }
    let told = proxy.command(&["top"]).await;
    assert_eq!((told.code, &*told.stdout), (Some(64), ""));
    assert!(told.stderr.contains("draws on a terminal, and its output is none"), "{told:?}");

    // A process that is gone is told of on the screen, and before it as by all commands.
    let mut terminal = Terminal::run(&proxy, &[]);
    terminal.shows(&["live"]).await;
    proxy.signal(Signal::KILL);
    terminal.shows(&["not reached, asks again", &origin.to_string()]).await;
    terminal.press(b"q");
    assert_eq!(terminal.ends().await.code(), Some(0));
    let terminal = Terminal::run(&proxy, &[]);
    terminal.shows(&["error: no running process can be reached at", "help: "]).await;
    assert_eq!(terminal.ends().await.code(), Some(69));
}

//! One line of the process log.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::SystemTime,
};

use jiff::Timestamp;
use log::{Level, Record};
use rustix::fs::fstat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// For people: time, level, and what happened.
    #[default]
    Text,
    /// For programs: an object with `time`, `level`, `module` and `message`.
    Json,
}

/// What standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// The journal of systemd, which reads a priority before each line (sd-daemon(3)).
    Journal,
    /// A terminal that shows colors.
    Terminal,
    /// A file, or a pipe.
    Plain,
}

impl Sink {
    /// Looks what standard error is.
    pub(super) fn find() -> Self {
        if is_journal() {
            return Self::Journal;
        }
        let is_colored = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
        if is_colored { Self::Terminal } else { Self::Plain }
    }
}

/// Whether standard error is the stream to the journal that systemd names: `DEVICE:INODE`
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let numbers = stream.split_once(':').and_then(|(device, inode)| {
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    let own = fstat(io::stderr()).ok();
    own.is_some_and(|own| numbers == Some((own.st_dev, own.st_ino)))
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: &'a str,
    module: &'a str,
    message: String,
}

impl Form {
    /// Writes a record as a line, with its end.
    pub(super) fn line(self, sink: Sink, record: &Record<'_>, now: SystemTime) -> Vec<u8> {
        let now = Timestamp::try_from(now).unwrap_or_default();
        let (mut line, level) = (Vec::with_capacity(256), record.level());
        if sink == Sink::Journal {
            line.extend([b'<', priority(level), b'>']);
        }
        let _ = match (self, sink) {
            (Self::Json, _) => {
                let level = level.as_str().to_ascii_lowercase();
                let (time, message) = (format!("{now:.3}"), record.args().to_string());
                let entry = Line { time, level: &level, module: record.target(), message };
                serde_json::to_writer(&mut line, &entry).map_err(io::Error::from)
            }
            // What has several lines would have several priorities.
            (Self::Text, Sink::Journal) => {
                line.write_all(record.args().to_string().replace('\n', " ").as_bytes())
            }
            (Self::Text, Sink::Plain) => write!(line, "{now:.3} {level:<5} {}", record.args()),
            (Self::Text, Sink::Terminal) => {
                let color = color(level);
                write!(line, "{now:.3} \u{1b}[{color}m{level:<5}\u{1b}[0m {}", record.args())
            }
        };
        line.push(b'\n');
        line
    }
}

/// As syslog(3) numbers them.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => b'3',
        Level::Warn => b'4',
        Level::Info => b'6',
        Level::Debug | Level::Trace => b'7',
    }
}

fn color(level: Level) -> u8 {
    match level {
        Level::Error => 31,
        Level::Warn => 33,
        Level::Info => 32,
        Level::Debug => 34,
        Level::Trace => 36,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(form: Form, sink: Sink, message: &str) -> String {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let mut record = Record::builder();
        record.level(Level::Warn).target("crestline::tls");
        String::from_utf8(form.line(sink, &record.args(format_args!("{message}")).build(), at))
            .unwrap()
    }

    #[test]
    fn a_line_has_its_form() {
        let text = "it went \"away\"\nand came";
        assert_eq!(
            line(Form::Text, Sink::Plain, text),
            format!("1970-01-01T00:00:01.500Z WARN  {text}\n")
        );
        assert_eq!(
            line(Form::Text, Sink::Terminal, "a"),
            "1970-01-01T00:00:01.500Z \u{1b}[33mWARN \u{1b}[0m a\n"
        );
        assert_eq!(line(Form::Text, Sink::Journal, text), "<4>it went \"away\" and came\n");
        let json = "{\"time\":\"1970-01-01T00:00:01.500Z\",\"level\":\"warn\",\"module\":\"crestline::tls\",\"message\":\"it went \\\"away\\\"\\nand came\"}\n";
        assert_eq!(line(Form::Json, Sink::Plain, text), json);
        assert_eq!(line(Form::Json, Sink::Journal, text), format!("<4>{json}"));
    }
}

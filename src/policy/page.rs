//! The body of an answer, as the operator writes it: a text or a file, with variables in it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    field::Value,
    policy::{
        contract::{Build, Facts, Page},
        template::Template,
        variable::When,
    },
    yaml::Spanned,
};

/// A body: a text, or a file that is read when the configuration is. Both may have variables,
/// such as `{id}`; in HTML what they stand for is escaped.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Body")]
pub struct Config {
    /// The body itself. Default: none.
    pub body: Option<Template>,
    /// The file that has it, seen from the folder of the main file. Default: none.
    pub file: Option<Spanned<PathBuf>>,
    /// Its media type. Default: by the ending of the file, else `text/plain; charset=utf-8`.
    pub content_type: Option<Value>,
}

/// What runs.
#[derive(Clone, Debug)]
pub struct Body {
    text: Text,
    content_type: HeaderValue,
}

#[derive(Clone, Debug)]
enum Text {
    Ready(Bytes),
    Filled(Template, Escape),
}

/// Whether what variables stand for is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    Html,
    Nothing,
}

impl Config {
    /// The file that it is read from.
    pub fn files(&self) -> Vec<&Path> {
        self.file.iter().map(|file| file.value.as_path()).collect()
    }

    /// Reads the file, and looks for variables; `None` if something is wrong, or nothing is given.
    pub fn build(&self, when: When, cx: &mut Build<'_>) -> Option<Body> {
        let text = match (&self.body, &self.file) {
            (Some(_), Some(file)) => {
                cx.problem_at(file.span, "`body` and `file` are both given", "remove one of them");
                return None;
            }
            (Some(body), None) => body.clone(),
            (None, Some(file)) => {
                let read = cx.read(&file.value, file.span)?;
                let name = file.value.display();
                let text = String::from_utf8(read).map_err(|_| format!("`{name}` is not UTF-8"));
                let text = text.and_then(|text| {
                    text.parse::<Template>().map_err(|why| {
                        let why = why.to_string();
                        format!("`{name}`: {}", why.lines().next().unwrap_or_default())
                    })
                });
                match text {
                    Ok(text) => text,
                    Err(why) => {
                        cx.problem_at(file.span, why, "write `{{` for a brace before a name");
                        return None;
                    }
                }
            }
            (None, None) => return None,
        };
        let span = self.file.as_ref().map_or(cx.span, |file| file.span);
        cx.check(text.variables(), when, span);
        let by_name = self.file.as_ref().and_then(|file| by_ending(&file.value));
        let content_type = self.content_type.as_ref().map(|value| value.0.clone());
        let content_type = content_type.or(by_name.map(HeaderValue::from_static));
        let content_type =
            content_type.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
        let is_html = content_type.as_bytes().starts_with(b"text/html");
        let escape = if is_html { Escape::Html } else { Escape::Nothing };
        let text = match text.plain() {
            Some(text) => Text::Ready(Bytes::from(text.to_owned())),
            None => Text::Filled(text, escape),
        };
        Some(Body { text, content_type })
    }
}

/// The media type that the ending of a name tells.
pub(super) fn by_ending(path: &Path) -> Option<&'static str> {
    Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/vnd.microsoft.icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => return None,
    })
}

impl Body {
    /// The page for a request.
    pub fn page(&self, facts: &Facts<'_>, status: u16) -> Page {
        let body = match &self.text {
            Text::Ready(text) => text.clone(),
            Text::Filled(text, escape) => {
                let mut filled = Vec::new();
                text.render_each(facts, Some(status), &mut filled, |value, out| match escape {
                    Escape::Html => escape_html(value, out),
                    Escape::Nothing => out.extend_from_slice(value),
                });
                filled.into()
            }
        };
        Page { content_type: Some(self.content_type.clone()), body }
    }
}

fn escape_html(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::tests::{self, Given, build, problems};

    fn page(config: &str) -> (String, String) {
        let body = build(config, |config: &Config, cx| config.build(When::Asked, cx));
        let given = Given::request("GET", "/?name=%3Cscript%3E'%22%26").field("host", "shop.test");
        let page = body.page(&given.facts(), 503);
        let content_type = page.content_type.unwrap().to_str().unwrap().to_owned();
        (content_type, String::from_utf8(page.body.to_vec()).unwrap())
    }

    #[test]
    fn variables_are_filled_in_and_escaped_in_html() {
        let (content_type, body) = page("{ body: '{status} {id} {query.name}' }");
        assert_eq!(content_type, "text/plain; charset=utf-8");
        assert_eq!(body, format!("503 {} <script>'\"&", tests::ID));
        let html = "{ body: '<b>{query.name}</b>', content_type: text/html }";
        assert_eq!(page(html).1, "<b>&lt;script&gt;&#39;&quot;&amp;</b>");
    }

    #[test]
    fn a_file_is_read_and_its_ending_tells_its_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("down.html");
        fs::write(&path, "<p>{host}: {query.name}</p>").unwrap();
        let config = format!("{{ file: {} }}", path.display());
        let (content_type, body) = page(&config);
        assert_eq!(content_type, "text/html; charset=utf-8");
        assert_eq!(body, "<p>shop.test: &lt;script&gt;&#39;&quot;&amp;</p>");
        fs::write(&path, "<style>p{color:red}</style>{hots}").unwrap();
        let told = problems(&config, |config: &Config, cx| config.build(When::Asked, cx));
        assert!(told[0].ends_with("unknown variable `{hots}`"), "{told:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let config = "{ file: nowhere/at/all.html }";
        let told = problems(config, |config: &Config, cx| config.build(When::Asked, cx));
        assert!(told[0].starts_with("cannot read `./nowhere/at/all.html`"), "{told:?}");
    }
}

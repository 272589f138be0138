//! The page at `/`: what runs, live, in a browser.
//!
//! Its files are part of the program and ask for nothing elsewhere. It holds no secret, so that
//! whoever reaches the listener may load it; what it shows comes from the API, like anybody's.
//!
//! INVARIANT: what clients sent is put into the page as text alone. The policy below has the
//! browser refuse everything else, and all programs but those of these files.

use std::borrow::Cow;

use http::{Method, StatusCode};

use crate::admin::answer::{Answer, refused};

/// What browsers are told of every answer of the API.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The page itself.
pub(super) const ROOT: &str = "/";
/// Where its other files are.
const FOLDER: &str = "/page/";
/// How the page says that no token is asked for, and that one is.
const TOKEN: [&str; 2] = ["data-token=\"none\"", "data-token=\"asked\""];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type and text of each file.
const FILES: [(&str, &str, &str); 11] = [
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("app.js", SCRIPT, include_str!("app.js")),
    ("stream.js", SCRIPT, include_str!("stream.js")),
    ("charts.js", SCRIPT, include_str!("charts.js")),
    ("upstreams.js", SCRIPT, include_str!("upstreams.js")),
    ("tables.js", SCRIPT, include_str!("tables.js")),
    ("requests.js", SCRIPT, include_str!("requests.js")),
    ("story.js", SCRIPT, include_str!("story.js")),
    ("words.js", SCRIPT, include_str!("words.js")),
    ("dom.js", SCRIPT, include_str!("dom.js")),
];

/// A file of the page as it is sent.
pub(super) struct Asset {
    pub(super) content_type: &'static str,
    pub(super) text: Cow<'static, str>,
}

/// Whether a request is for the page: without a token, too.
pub(super) fn is_of_it(method: &Method, path: &str) -> bool {
    method == Method::GET && (path == ROOT || path.starts_with(FOLDER))
}

/// Answers with a file of the page; the page itself says whether it should ask for the token.
pub(super) fn find(path: &str, wants_token: bool) -> Answer {
    if path == ROOT {
        let text = include_str!("index.html");
        let [none, asked] = TOKEN;
        let text = if wants_token { text.replacen(none, asked, 1).into() } else { text.into() };
        return Answer::Asset(Asset { content_type: "text/html; charset=utf-8", text });
    }
    let name = path.strip_prefix(FOLDER).unwrap_or_default();
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, content_type, text)) => {
            Answer::Asset(Asset { content_type, text: Cow::Borrowed(text) })
        }
        None => Answer::Whole(StatusCode::NOT_FOUND, refused("there is no such path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_its_own_files_and_asks_for_nothing_elsewhere() {
        let Answer::Asset(page) = find(ROOT, true) else { panic!("a page") };
        assert!(page.text.contains(TOKEN[1]) && !page.text.contains(TOKEN[0]));
        let all = FILES.iter().map(|(.., text)| *text).chain([&*page.text]);
        for text in all {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
            assert!(!text.contains("innerHTML") && !text.contains("insertAdjacentHTML"), "{text}");
            assert!(!text.contains("localStorage"), "the token is kept for one tab");
            for quoted in text.split('"').filter(|quoted| quoted.starts_with(FOLDER)) {
                assert!(matches!(find(quoted, false), Answer::Asset(_)), "{quoted}");
            }
        }
        let gone = find("/page/../Cargo.toml", false);
        assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    }
}

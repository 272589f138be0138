//! Sends the client elsewhere.

use std::str::FromStr;

use http::header::LOCATION;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::{
    policy::{
        contract::{Build, Flow, Hooks, Page, Request, Written},
        location,
        pattern::Pattern,
        template::Template,
        variable::When,
    },
    reason::Reason,
    reply::Reply,
    units,
    yaml::{self, Short, Word},
};

/// Sends the client elsewhere; `https` alone sends those in plaintext to the same address over TLS.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub Short<WhereConfig>);

/// Where to, and of whom.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Redirect")]
pub struct WhereConfig {
    /// Where to, with variables, such as `https://new.example.com{uri}`. Default: none.
    pub to: Option<Template>,
    /// Only paths in which an expression is found; `to` may then have `$1` or `$name` for what
    /// was captured, beside variables. Default: all paths.
    pub regex: Option<Pattern>,
    /// Whether a path ends with a slash: one that does not is sent to the one that does (`add`),
    /// or the other way round (`remove`). Default: not looked at.
    pub slash: Option<Slash>,
    /// 301 or 308 for good, 302 or 307 for now, 303 to ask with `GET`. Clients keep the method with
    /// 307 and 308. Default: `308`.
    pub status: Status,
    #[serde(skip)]
    is_https: bool,
}

/// What becomes of the slash at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RedirectSlash")]
pub enum Slash {
    /// There is one. The last segment of a file, such as `/a.css`, has none all the same.
    Add,
    /// There is none, but for `/` itself.
    Remove,
}

/// The status of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub struct Status(#[schemars(extend("enum" = [301, 302, 303, 307, 308]))] u16);

impl Default for Status {
    fn default() -> Self {
        Self(308)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match units::in_range(deserializer, 300..=399)? {
            status @ (301 | 302 | 303 | 307 | 308) => Ok(Self(status)),
            status => Err(serde::de::Error::custom(format!(
                "`{status}` sends nobody elsewhere\nhelp: write 301, 302, 303, 307 or 308"
            ))),
        }
    }
}

impl FromStr for WhereConfig {
    type Err = NotHttps;

    fn from_str(text: &str) -> Result<Self, NotHttps> {
        match text {
            "https" => Ok(Self { is_https: true, ..Self::default() }),
            _ => Err(NotHttps(text.to_owned())),
        }
    }
}

impl Word for WhereConfig {
    fn word(_: &mut SchemaGenerator) -> Schema {
        yaml::words(&[("https", "To the same address over TLS.")])
    }
}

/// The only word that it knows.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no redirect\nhelp: write `https`, or a mapping such as `{{ to: \"https://new.example.com{{uri}}\" }}`"
)]
pub struct NotHttps(String);

/// What runs.
#[derive(Debug)]
pub struct Policy {
    way: Way,
    status: u16,
}

#[derive(Debug)]
enum Way {
    Https,
    Slash(Slash),
    To(Template),
    Captured(Pattern, Template),
}

impl Config {
    /// Makes it ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let config = &self.0.0;
        let mut refuse = |message: &str, help: &str| cx.problem(message, help);
        let way = match (config.is_https, config.slash, &config.to, &config.regex) {
            (true, ..) => Way::Https,
            (_, Some(slash), None, None) => Way::Slash(slash),
            (_, Some(_), ..) => {
                refuse("`slash` says where to by itself", "put it into a `redirect` of its own");
                return None;
            }
            (_, None, Some(to), None) => Way::To(to.clone()),
            (_, None, Some(to), Some(regex)) => Way::Captured(regex.clone(), to.clone()),
            (_, None, None, _) => {
                let help = "add `to: \"https://new.example.com{uri}\"`";
                refuse("this `redirect` does not say where to", help);
                return None;
            }
        };
        if let Way::Captured(regex, to) = &way
            && let Some(group) = regex.missing_group(&to.to_string())
        {
            let message = format!("`{to}` names the group `{group}`, which `regex` does not have");
            cx.problem(
                message,
                "a name ends before the first sign that is no letter, digit or `_`",
            );
            return None;
        }
        cx.check(config.to.iter().flat_map(Template::variables), When::Asked, cx.span);
        Some(Policy { way, status: config.status.0 })
    }
}

impl Policy {
    /// Where a request is sent; `None` if it goes on.
    fn to(&self, request: &Request<'_>) -> Option<String> {
        let facts = &request.facts;
        match &self.way {
            Way::Https if facts.scheme() == "https" => None,
            Way::Https => Some(format!("https://{}{}", facts.host(), location::target(facts))),
            Way::Slash(slash) => {
                let path = facts.path();
                let path = match slash {
                    Slash::Add if path.ends_with('/') || is_file(path) => return None,
                    Slash::Add => format!("{path}/"),
                    Slash::Remove if path == "/" || !path.ends_with('/') => return None,
                    Slash::Remove => path.trim_end_matches('/').to_owned(),
                };
                let path = if path.is_empty() { "/".to_owned() } else { path };
                Some(match facts.query() {
                    Some(query) => format!("{path}?{query}"),
                    None => path,
                })
            }
            Way::To(to) => String::from_utf8(to.render(facts, None)).ok(),
            Way::Captured(regex, to) => {
                // What is captured is put in first, so that it cannot name variables.
                let filled = |text: &str| regex.rewritten(facts.path(), text);
                let rendered = to.render_with(facts, None, &filled)?;
                String::from_utf8(rendered).ok()
            }
        }
    }
}

/// Whether the last segment of a path looks like a file's.
fn is_file(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|segment| segment.contains('.'))
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let Some(to) = self.to(request) else { return Flow::Continue };
        let Some(location) = location::value(&to, &request.facts) else {
            request.notes.reason = Some(Reason::BadRedirect);
            return Flow::Respond(Reply::status(400));
        };
        request.notes.reason = Some(Reason::Redirected);
        let page = Page { content_type: None, body: bytes::Bytes::new() };
        Flow::Respond(Reply::status(self.status).with(LOCATION, location).showing(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    /// The status and the place that a client is sent to.
    fn sent(config: &str, target: &str) -> Option<(u16, String)> {
        let policy = build(config, |config: &Config, cx| config.build(cx));
        let given = Given::request("GET", target).field("host", "shop.test:8080");
        match given.ask(&policy).0 {
            Flow::Continue => None,
            Flow::Respond(reply) => {
                let location = reply.fields.first().map(|(_, value)| value.to_str().unwrap());
                Some((reply.status.as_u16(), location.unwrap_or_default().to_owned()))
            }
        }
    }

    fn to(status: u16, location: &str) -> (u16, String) {
        (status, location.to_owned())
    }

    #[test]
    fn plaintext_is_sent_to_tls() {
        assert_eq!(sent("https", "/a?b=1"), Some(to(308, "https://shop.test/a?b=1")));
    }

    #[test]
    fn a_place_may_have_variables_and_captures() {
        let config = "{ to: 'https://new.test{uri}', status: 301 }";
        assert_eq!(sent(config, "/a?b=1"), Some(to(301, "https://new.test/a?b=1")));
        let config = "{ regex: '^/old/(.*)$', to: 'https://{host}/new/$1?from={query.x}' }";
        assert_eq!(
            sent(config, "/old/a%20b?x=1"),
            Some(to(308, "https://shop.test/new/a%20b?from=1"))
        );
        assert_eq!(sent(config, "/older"), None);
        assert_eq!(
            sent(config, "/old/%7Bhost%7D").unwrap().1,
            "https://shop.test/new/%7Bhost%7D?from="
        );
    }

    #[test]
    fn a_variable_cannot_name_a_capture() {
        let config = "{ regex: '^/old/(.*)$', to: '/new?x={query.x}' }";
        assert_eq!(sent(config, "/old/secret?x=$1").unwrap().1, "/new?x=$1");
    }

    #[test]
    fn a_slash_at_the_end_is_added_or_removed() {
        assert_eq!(sent("{ slash: add }", "/a?b"), Some(to(308, "/a/?b")));
        assert_eq!(sent("{ slash: add }", "/a/"), None);
        assert_eq!(sent("{ slash: add }", "/a.css"), None);
        assert_eq!(sent("{ slash: remove, status: 301 }", "/a/"), Some(to(301, "/a")));
        assert_eq!(sent("{ slash: remove }", "/"), None);
        assert_eq!(sent("{ slash: remove }", "//"), Some(to(308, "/")));
        let elsewhere = Some(to(308, "http://shop.test:8080//evil.test"));
        assert_eq!(sent("{ slash: remove }", "//evil.test/"), elsewhere);
    }

    #[test]
    fn what_cannot_work_is_told() {
        let told = |config| problems(config, |config: &Config, cx| config.build(cx));
        assert_eq!(told("{ status: 301 }"), ["this `redirect` does not say where to"]);
        assert_eq!(told("{ slash: add, to: / }"), ["`slash` says where to by itself"]);
        let told = told("{ regex: '^/a', to: /$1 }");
        assert_eq!(told, ["`/$1` names the group `1`, which `regex` does not have"]);
    }
}

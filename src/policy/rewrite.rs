//! Another path or query for the origin than the client sent.
//!
//! Rules were matched before: a rewritten path finds no other route. It is brought into its one
//! form again, so that no capture can put dot segments together; one without such a form is `400`.

use std::collections::BTreeMap;

use form_urlencoded::{Serializer, parse};
use http::Uri;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::{
        contract::{Build, Flow, Hooks, Request, Written},
        pattern::Pattern,
        template::Template,
        variable::When,
    },
    reason::Reason,
    reply::Reply,
    routing::path,
    yaml::Spanned,
};

/// Another path or query for the origin.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Rewrite")]
pub struct Config {
    /// Another beginning: `{ from: /api, to: /v2 }` makes `/v2/x` of `/api/x`, on the borders of
    /// segments; other paths stay. Default: none.
    pub prefix: Option<Spanned<PrefixConfig>>,
    /// Another path where an expression is found in it: `{ find: "^/u/([0-9]+)", to: "/users/$1" }`;
    /// `to` is the whole new path. Default: none.
    pub regex: Option<Spanned<RegexConfig>>,
    /// Other parameters. Default: `{}`.
    pub query: QueryConfig,
}

/// Another beginning of the path.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RewritePrefix")]
pub struct PrefixConfig {
    /// The beginning that is replaced.
    #[schemars(extend("pattern" = "^/"))]
    pub from: String,
    /// What stands there instead; `/` removes it.
    #[schemars(extend("pattern" = "^/"))]
    pub to: String,
}

/// Another path by an expression.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RewriteRegex")]
pub struct RegexConfig {
    /// What is looked for in the path.
    pub find: Pattern,
    /// The new path, with `$1` or `$name` for what was captured; in braces, `$${1}`.
    #[schemars(extend("pattern" = "^[/$]"))]
    pub to: String,
}

/// Other parameters of the query.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RewriteQuery")]
pub struct QueryConfig {
    /// Parameters that replace all of their name; values may have variables, such as `{client}`.
    /// Default: `{}`.
    pub set: BTreeMap<String, Template>,
    /// Names of parameters that are removed. Default: `[]`.
    pub remove: Vec<String>,
}

/// What runs.
#[derive(Debug)]
pub struct Policy {
    path: Path,
    query: QueryConfig,
}

#[derive(Debug)]
enum Path {
    AsIs,
    /// Both without the slash at their end.
    Prefix {
        from: String,
        to: String,
    },
    Regex {
        find: Pattern,
        to: String,
    },
}

impl Config {
    /// Makes it ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        let path = match (&self.prefix, &self.regex) {
            (Some(_), Some(regex)) => {
                let help = "write two policies, in the order in which they are to work";
                cx.problem_at(regex.span, "`prefix` and `regex` stand in one `rewrite`", help);
                return None;
            }
            (Some(prefix), None) => Path::of_prefix(prefix, cx)?,
            (None, Some(regex)) => Path::of_regex(regex, cx)?,
            (None, None) => Path::AsIs,
        };
        let query = self.query.clone();
        if matches!(path, Path::AsIs) && query.set.is_empty() && query.remove.is_empty() {
            cx.problem("this `rewrite` changes nothing", "give it `prefix`, `regex` or `query`");
            return None;
        }
        cx.check(query.set.values().flat_map(Template::variables), When::Asked, cx.span);
        Some(Policy { path, query })
    }
}

impl Path {
    fn of_prefix(prefix: &Spanned<PrefixConfig>, cx: &mut Build<'_>) -> Option<Self> {
        let PrefixConfig { from, to } = &prefix.value;
        for path in [from, to] {
            if !matches!(path::canonicalize(path), Ok(path::Canonical::AsIs(_))) {
                let message = format!("`{path}` is no canonical path");
                let help =
                    "write it as routes are matched: `/api`, without `.` segments, `?` or `#`";
                cx.problem_at(prefix.span, message, help);
                return None;
            }
        }
        let bare = |path: &str| path.trim_end_matches('/').to_owned();
        Some(Self::Prefix { from: bare(from), to: bare(to) })
    }

    fn of_regex(regex: &Spanned<RegexConfig>, cx: &mut Build<'_>) -> Option<Self> {
        let RegexConfig { find, to } = &regex.value;
        if !to.starts_with(['/', '$']) {
            let help = "it is the whole new path: begin it with `/`";
            cx.problem_at(regex.span, format!("`{to}` is no path"), help);
            return None;
        }
        if let Some(group) = find.missing_group(to) {
            let message = format!("`{to}` names the group `{group}`, which `find` does not have");
            cx.problem_at(
                regex.span,
                message,
                "a name ends before the first sign that is no letter, digit or `_`",
            );
            return None;
        }
        Some(Self::Regex { find: find.clone(), to: to.clone() })
    }

    /// The new path; `None` if it stays.
    fn of(&self, path: &str) -> Option<String> {
        match self {
            Self::AsIs => None,
            Self::Prefix { from, to } => {
                let rest = path.strip_prefix(from.as_str())?;
                if !(rest.is_empty() || rest.starts_with('/')) {
                    return None;
                }
                let new = format!("{to}{rest}");
                Some(if new.is_empty() { "/".to_owned() } else { new })
            }
            Self::Regex { find, to } => find.rewritten(path, to),
        }
    }
}

impl Policy {
    /// The new target; `None` if it stays, an error if there is none.
    fn target(&self, request: &Request<'_>) -> Result<Option<Uri>, ()> {
        let before = request.target();
        let path = self.path.of(before.path());
        let query = self.new_query(request);
        if path.is_none() && query.is_none() {
            return Ok(None);
        }
        let path = path.as_deref().unwrap_or(before.path());
        let path = path::canonicalize(path).map_err(drop)?;
        let target = match query.as_deref().or(before.query()) {
            Some("") | None => path.as_str().to_owned(),
            Some(query) => format!("{}?{query}", path.as_str()),
        };
        target.parse().map(Some).map_err(drop)
    }

    /// The new query; `None` if it stays.
    fn new_query(&self, request: &Request<'_>) -> Option<String> {
        let QueryConfig { set, remove } = &self.query;
        if set.is_empty() && remove.is_empty() {
            return None;
        }
        let before = request.target().query().unwrap_or_default();
        let is_kept = |name: &str| !set.contains_key(name) && !remove.iter().any(|it| it == name);
        // What stays is not written anew, since there are many ways to write one thing.
        let mut query = String::with_capacity(before.len());
        for pair in before.split('&').filter(|pair| !pair.is_empty()) {
            if parse(pair.as_bytes()).all(|(name, _)| is_kept(&name)) {
                push(&mut query, pair);
            }
        }
        for (name, value) in set {
            let value = value.render(&request.facts, None);
            let value = String::from_utf8_lossy(&value);
            push(&mut query, &Serializer::new(String::new()).append_pair(name, &value).finish());
        }
        Some(query)
    }
}

fn push(query: &mut String, pair: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(pair);
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        match self.target(request) {
            Ok(None) => Flow::Continue,
            Ok(Some(target)) => {
                request.notes.target = Some(target);
                Flow::Continue
            }
            Err(()) => {
                request.notes.reason = Some(Reason::BadRewrite);
                Flow::Respond(Reply::status(400))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    /// What the origin is asked for.
    fn rewritten(config: &str, target: &str) -> String {
        let policy = build(config, |config: &Config, cx| config.build(cx));
        let (flow, notes) = Given::request("GET", target).ask(&policy);
        match flow {
            Flow::Continue => notes.target.map_or(target.to_owned(), |target| target.to_string()),
            Flow::Respond(reply) => reply.status.as_str().to_owned(),
        }
    }

    #[test]
    fn a_prefix_is_replaced_on_the_borders_of_segments() {
        let config = "{ prefix: { from: /api/, to: /v2 } }";
        assert_eq!(rewritten(config, "/api/x?a=1"), "/v2/x?a=1");
        assert_eq!(rewritten(config, "/api"), "/v2");
        assert_eq!(rewritten(config, "/api/"), "/v2/");
        assert_eq!(rewritten(config, "/apix"), "/apix");
        let config = "{ prefix: { from: /api, to: / } }";
        assert_eq!(rewritten(config, "/api/x"), "/x");
        assert_eq!(rewritten(config, "/api"), "/");
        assert_eq!(rewritten("{ prefix: { from: /, to: /v2/ } }", "/x"), "/v2/x");
    }

    #[test]
    fn a_path_is_made_of_what_was_captured() {
        let config = "{ regex: { find: '^/u/([^/]+)', to: '/users/$1' } }";
        assert_eq!(rewritten(config, "/u/7/rest?a=1"), "/users/7?a=1");
        assert_eq!(rewritten(config, "/v/7"), "/v/7");
    }

    #[test]
    fn no_capture_can_put_dot_segments_together() {
        let config = "{ regex: { find: '^/x(.*)y$', to: '/a/$1/etc' } }";
        assert_eq!(rewritten(config, "/x..y"), "/etc");
        let config = "{ regex: { find: '^/x(.*)y$', to: '/$1/etc' } }";
        assert_eq!(rewritten(config, "/x..y"), "400", "it climbs above the root");
        let config = "{ regex: { find: '^/(.*)', to: '$1' } }";
        assert_eq!(rewritten(config, "/evil"), "400", "it is not rooted");
    }

    #[test]
    fn parameters_are_set_and_removed_and_others_stay_as_they_are() {
        let config = "{ query: { set: { page: '1', ip: '{client}' }, remove: [utm] } }";
        assert_eq!(rewritten(config, "/"), "/?ip=192.0.2.7&page=1");
        assert_eq!(
            rewritten(config, "/?a=%7e+b&utm=x&page=7&b&%75tm=y"),
            "/?a=%7e+b&b&ip=192.0.2.7&page=1"
        );
        assert_eq!(rewritten("{ query: { remove: [a] } }", "/x?a=1"), "/x");
        let config = "{ query: { set: { q: '{query.x}' } } }";
        assert_eq!(rewritten(config, "/?x=a%26b%0d%0ac"), "/?x=a%26b%0d%0ac&q=a%26bc");
    }

    #[test]
    fn what_cannot_work_is_told() {
        let told = |config| problems(config, |config: &Config, cx| config.build(cx));
        assert_eq!(told("{}"), ["this `rewrite` changes nothing"]);
        assert_eq!(told("{ prefix: { from: api, to: / } }"), ["`api` is no canonical path"]);
        let both = "{ prefix: { from: /, to: /a }, regex: { find: a, to: /b } }";
        assert_eq!(told(both), ["`prefix` and `regex` stand in one `rewrite`"]);
        let group = "{ regex: { find: '^/(.*)', to: /$2 } }";
        assert_eq!(told(group), ["`/$2` names the group `2`, which `find` does not have"]);
    }
}

//! Methods that are taken; others get `405` with those that are.

use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    policy::contract::{Build, Flow, Hooks, Request, Written},
    reason::Reason,
    reply::Reply,
    routing::method::{MethodName, Methods},
    yaml::Spanned,
};

/// Methods that are taken, such as `[GET, POST]`; `GET` takes `HEAD` as well. Others get `405`.
/// Unlike `methods` under `match`, no other route is asked.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Config(pub Spanned<Vec<MethodName>>);

/// What runs.
#[derive(Debug)]
pub struct Policy {
    methods: Methods,
}

impl Config {
    /// Makes the list ready.
    pub fn build(&self, cx: &mut Build<'_>) -> Option<Policy> {
        if self.0.is_empty() {
            let help = "name at least one, such as `[GET]`";
            cx.problem_at(self.0.span, "no method is taken", help);
            return None;
        }
        let methods = self.0.iter().map(|name| name.0.clone()).collect::<Methods>();
        Some(Policy { methods })
    }
}

impl Written for Config {}

impl Hooks for Policy {
    async fn on_request(&self, request: &mut Request<'_>) -> Flow {
        let method: &Method = &request.facts.header.method;
        if self.methods.iter().any(|taken| taken == method) {
            return Flow::Continue;
        }
        request.notes.reason = Some(Reason::MethodNotAllowed);
        Flow::Respond(Reply::method_not_allowed(self.methods.to_allow()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{Given, build, problems};

    #[test]
    fn other_methods_are_told_which_are_taken() {
        let policy = build("[GET, POST]", |config: &Config, cx| config.build(cx));
        for method in ["GET", "HEAD", "POST"] {
            assert_eq!(Given::request(method, "/").refused(&policy), None, "{method}");
        }
        let Flow::Respond(reply) = Given::request("DELETE", "/").ask(&policy).0 else {
            panic!("it is not taken")
        };
        assert_eq!(
            (reply.status.as_u16(), &reply.fields[0].1),
            (405, &"GET, HEAD, POST".parse().unwrap())
        );
        let told = problems("[]", |config: &Config, cx| config.build(cx));
        assert_eq!(told, ["no method is taken"]);
    }
}

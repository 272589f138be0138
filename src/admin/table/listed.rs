//! The table itself.

use serde_json::Value;

use crate::{
    admin::{
        answer::Refused,
        api::{Alive, Readiness},
        backends::{self, Ordered},
        live::{Start, Tick},
        order::{InForce, LevelsOrder, ReloadOrder, UpgradeOrder},
        requests::{Requests, Wanted},
        status::{RouteStatus, Status, UpstreamStatus},
        table::{Act, Body, Operation, Reply, SchemaOf, Takes, of},
    },
    cache::{Purge, Purged},
    control::{probation::Standing, receipt::Receipt},
    explain::{Explanation, Question},
    handover::step::Step,
    observe::recorder::Record,
};

const ERROR: SchemaOf = of::<Refused>();

const fn json(status: u16, says: &'static str, schema: SchemaOf) -> Reply {
    Reply { status, says, body: Body::Json(schema) }
}

const fn refused(status: u16, says: &'static str) -> Reply {
    json(status, says, ERROR)
}

const NO_BACKEND: Reply = refused(404, "There is no such upstream, or it has no such backend.");
const BACKEND: Reply = json(200, "The backend as it is now.", of::<Ordered>());
const LEVELS: Reply = json(200, "The levels in force.", of::<InForce>());
const BAD_ORDER: Reply = refused(400, "The order is none that there is.");
const NOT_SERVING: Reply = refused(503, "The process does not serve yet, or no more.");

/// All that the API answers.
pub(in crate::admin) const TABLE: &[Operation] = &[
    Operation {
        method: "GET",
        path: "/healthz",
        act: Act::Alive,
        says: "Whether the process lives",
        more: "Needs no token.",
        takes: Takes::Nothing,
        answers: &[json(200, "It does.", of::<Alive>())],
    },
    Operation {
        method: "GET",
        path: "/readyz",
        act: Act::Ready,
        says: "Whether the process should be sent clients, and why not",
        more: "Needs no token.",
        takes: Takes::Nothing,
        answers: &[
            json(200, "It should.", of::<Readiness>()),
            json(503, "It should not, for these reasons.", of::<Readiness>()),
        ],
    },
    Operation {
        method: "GET",
        path: "/metrics",
        act: Act::Metrics,
        says: "All metrics",
        more: "In the form that `Accept` asks for.",
        takes: Takes::Nothing,
        answers: &[Reply {
            status: 200,
            says: "The metrics, as Prometheus reads them.",
            body: Body::Texts(&["text/plain", "application/openmetrics-text"]),
        }],
    },
    Operation {
        method: "GET",
        path: "/v1/openapi.json",
        act: Act::Document,
        says: "This document",
        more: "",
        takes: Takes::Nothing,
        answers: &[json(200, "The document.", of::<serde_json::Map<String, Value>>())],
    },
    Operation {
        method: "GET",
        path: "/v1/status",
        act: Act::Status,
        says: "What runs",
        more: "What `crestline status --json` prints.",
        takes: Takes::Nothing,
        answers: &[json(200, "What runs.", of::<Status>())],
    },
    Operation {
        method: "GET",
        path: "/v1/live",
        act: Act::Live,
        says: "What changes, once a second, as server-sent events",
        more: "The first event is `start`, and tells everything; `second` tells what has changed \
               since the event before. When the configuration or the set of backends changes, and \
               once a minute, `start` comes again. The stream ends when a successor takes over.",
        takes: Takes::Nothing,
        answers: &[
            Reply {
                status: 200,
                says: "Events, until one of both sides ends it.",
                body: Body::Events(&[("start", of::<Start>()), ("second", of::<Tick>())]),
            },
            refused(503, "Sixteen watch already."),
        ],
    },
    Operation {
        method: "GET",
        path: "/v1/upstreams",
        act: Act::Upstreams,
        says: "The upstreams with their backends",
        more: "",
        takes: Takes::Nothing,
        answers: &[json(200, "All upstreams, by name.", of::<Vec<UpstreamStatus>>())],
    },
    Operation {
        method: "GET",
        path: "/v1/routes",
        act: Act::Routes,
        says: "The routes, and how their requests ended",
        more: "",
        takes: Takes::Nothing,
        answers: &[json(200, "All routes, by name.", of::<Vec<RouteStatus>>())],
    },
    Operation {
        method: "GET",
        path: "/v1/requests",
        act: Act::Requests,
        says: "The last requests that failed or were refused, and the slowest",
        more: "Each with the story of what happened to it.",
        takes: Takes::Query(of::<Wanted>()),
        answers: &[
            json(200, "Those that are recorded.", of::<Requests>()),
            refused(400, "A parameter is none that there is, or has another value."),
        ],
    },
    Operation {
        method: "GET",
        path: "/v1/requests/{id}",
        act: Act::Request,
        says: "The story of one request",
        more: "By the id that stands in its answer (`x-request-id`), and in the access log.",
        takes: Takes::Nothing,
        answers: &[
            json(200, "What happened to it.", of::<Record>()),
            refused(404, "It is not recorded, or no more."),
        ],
    },
    Operation {
        method: "POST",
        path: "/v1/backends/{upstream}/{address}/drain",
        act: Act::DrainBackend,
        says: "Take a backend out of service",
        more: "It ends what it has, and gets nothing new.",
        takes: Takes::Nothing,
        answers: &[BACKEND, NO_BACKEND],
    },
    Operation {
        method: "POST",
        path: "/v1/backends/{upstream}/{address}/ready",
        act: Act::ReadyBackend,
        says: "Bring a backend back",
        more: "",
        takes: Takes::Nothing,
        answers: &[BACKEND, NO_BACKEND],
    },
    Operation {
        method: "POST",
        path: "/v1/backends/{upstream}/{address}",
        act: Act::WeighBackend,
        says: "Give a backend another share, or that of the file again",
        more: "",
        takes: Takes::Body(of::<backends::Order>()),
        answers: &[BACKEND, BAD_ORDER, NO_BACKEND],
    },
    Operation {
        method: "POST",
        path: "/v1/cache/purge",
        act: Act::Purge,
        says: "Remove answers that are kept",
        more: "Those that meet all that is named; what was asked for before and still comes is not \
               kept. What `crestline purge` does.",
        takes: Takes::Body(of::<Purge>()),
        answers: &[json(200, "How many there were.", of::<Purged>()), BAD_ORDER],
    },
    Operation {
        method: "POST",
        path: "/v1/reload",
        act: Act::Reload,
        says: "Read the configuration again, or go back to a version",
        more: "",
        takes: Takes::MayBeBody(of::<ReloadOrder>()),
        answers: &[
            json(200, "What changed.", of::<Receipt>()),
            BAD_ORDER,
            refused(404, "There is no such version."),
            refused(409, "There is no file, or an upgrade is under way."),
            refused(422, "The configuration is wrong; nothing was changed."),
            NOT_SERVING,
        ],
    },
    Operation {
        method: "GET",
        path: "/v1/probation",
        act: Act::Probation,
        says: "How the last probation ended",
        more: "While one goes on, the answer comes at its end.",
        takes: Takes::Nothing,
        answers: &[json(200, "How it ended.", of::<Standing>()), refused(404, "There was none.")],
    },
    Operation {
        method: "GET",
        path: "/v1/log-levels",
        act: Act::LogLevels,
        says: "What the process log tells",
        more: "",
        takes: Takes::Nothing,
        answers: &[LEVELS],
    },
    Operation {
        method: "POST",
        path: "/v1/log-levels",
        act: Act::SetLogLevels,
        says: "Has the process log tell more, or less",
        more: "Until the configuration changes. What `crestline log-levels` does.",
        takes: Takes::MayBeBody(of::<LevelsOrder>()),
        answers: &[LEVELS, BAD_ORDER],
    },
    Operation {
        method: "POST",
        path: "/v1/explain",
        act: Act::Explain,
        says: "What becomes of a request, and why",
        more: "",
        takes: Takes::Body(of::<Question>()),
        answers: &[
            json(200, "What becomes of it.", of::<Explanation>()),
            refused(400, "That is no request."),
            refused(503, "The configuration changed again and again meanwhile."),
        ],
    },
    Operation {
        method: "POST",
        path: "/v1/upgrade",
        act: Act::Upgrade,
        says: "Let a new process take the place of this one",
        more: "",
        takes: Takes::MayBeBody(of::<UpgradeOrder>()),
        answers: &[
            Reply {
                status: 200,
                says: "The steps, as they happen; the last says how it ended.",
                body: Body::Lines(of::<Step>()),
            },
            BAD_ORDER,
            refused(409, "An upgrade is under way, or a change."),
            refused(422, "The new binary finds the configuration wrong."),
            NOT_SERVING,
        ],
    },
    Operation {
        method: "POST",
        path: "/v1/drain",
        act: Act::Drain,
        says: "Stop the process gracefully, as SIGTERM does",
        more: "",
        takes: Takes::Nothing,
        answers: &[json(202, "What runs, and drains.", of::<Status>())],
    },
];

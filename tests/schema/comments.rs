//! That the comments on keys say all that an operator asks, and that their defaults are the real
//! ones.

use std::collections::BTreeSet;

use crestline::{
    config::{File, Loaded, schema},
    diagnostic::Problems,
    snapshot,
};
use serde_json::{Map, Value, json};

use super::{choices, named, properties, resolve};

/// A key, and how to write a file with it.
struct Key<'a> {
    /// The key by the mapping that it belongs to, such as `Upstream.retries`.
    name: String,
    schema: &'a Value,
    is_required: bool,
    /// Is it one of several of which a mapping takes one?
    is_choice: bool,
    /// The smallest file in which the key may stand.
    without: Value,
    /// That file with the default written out, if the comment tells it as a value.
    with: Option<Value>,
}

/// Collects the keys of a schema; `within` makes a file of a value that stands here.
fn collect<'a>(
    root: &'a Value,
    (name, schema): (&str, &'a Value),
    within: &dyn Fn(Value) -> Value,
    seen: &mut BTreeSet<String>,
    keys: &mut Vec<Key<'a>>,
) {
    let (definition, schema) = resolve(root, schema);
    if definition.is_some_and(|name| !seen.insert(name.to_owned())) {
        return;
    }
    let name = definition.unwrap_or(name);
    let required = required(schema);
    let smallest = sample_mapping(root, schema);
    for (key, property) in properties(schema) {
        let without = within(Value::Object(smallest.clone()));
        let within = |value: Value| {
            let mut mapping = smallest.clone();
            mapping.insert(key.clone(), value);
            within(Value::Object(mapping))
        };
        let name = format!("{name}.{key}");
        keys.push(Key {
            name: name.clone(),
            schema: property,
            is_required: required.contains(&key.as_str()),
            is_choice: properties(schema).count() == 1 && required.contains(&key.as_str()),
            without,
            with: property.get("default").cloned().map(&within),
        });
        collect(root, (&name, property), &within, seen, keys);
    }
    for choice in choices(schema) {
        collect(root, (name, choice), within, seen, keys);
    }
    for named in named(schema) {
        collect(root, (name, named), &|value| within(json!({ "x-name": value })), seen, keys);
    }
    if let Some(items) = schema.get("items") {
        collect(root, (name, items), &|value| within(json!([value])), seen, keys);
    }
}

fn required(schema: &Value) -> Vec<&str> {
    let required = schema.get("required").and_then(Value::as_array);
    required.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A mapping with nothing but what it needs.
fn sample_mapping(root: &Value, schema: &Value) -> Map<String, Value> {
    let sample = |key: &str| (key.to_owned(), sample(root, &schema["properties"][key]));
    required(schema).into_iter().map(sample).collect()
}

/// Any value that a schema takes.
fn sample(root: &Value, schema: &Value) -> Value {
    let (_, schema) = resolve(root, schema);
    if let Some(examples) = schema.get("examples") {
        return examples[0].clone();
    }
    if let Some(word) = schema.get("const") {
        return word.clone();
    }
    if let Some(first) = choices(schema).next() {
        return sample(root, first);
    }
    match schema["type"].as_str() {
        Some("array") => json!([sample(root, &schema["items"])]),
        Some("object") => Value::Object(sample_mapping(root, schema)),
        Some("integer") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        _ => json!("a text"),
    }
}

/// Calls with every key of the file.
fn for_all(mut look: impl FnMut(&Key<'_>)) {
    let (root, mut keys) = (schema::types(), Vec::new());
    collect(&root, ("top level", &root), &|value| value, &mut BTreeSet::new(), &mut keys);
    assert!(80 < keys.len(), "only {} keys were found", keys.len());
    keys.iter().for_each(&mut look);
}

fn description<'a>(key: &Key<'a>) -> &'a str {
    key.schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn every_key_says_what_it_means_and_what_holds_without_it() {
    for_all(|key| {
        let (name, text) = (&key.name, description(key));
        let sentences = text.split("Default: ").next().unwrap();
        assert!(!sentences.trim().is_empty(), "{name} says nothing: write a `///` comment");
        assert!(text.ends_with('.'), "{name} does not end its sentence: {text}");
        assert!(!text.contains("[`"), "{name} links to code, which an operator cannot follow");
        let tells_default = text.contains("Default: ");
        if key.is_required || key.is_choice {
            assert!(!tells_default, "{name} must be there, and tells a default: {text}");
        } else {
            assert!(
                tells_default,
                "{name} may be left out, so the first paragraph of its comment ends in \
                 \"Default: `value`.\", or in words: {text}"
            );
        }
    });
}

/// Reads a file, which must be well-formed.
fn read(file: &Value) -> File {
    let mut problems = Problems::default();
    let loaded = Loaded::of(&file.to_string(), &mut problems);
    let read = File::read(&loaded, &mut problems);
    let told: Vec<_> = problems.iter().map(|problem| &problem.message).collect();
    assert!(!problems.has_errors(), "{file}: {told:?}");
    // Which keys were written is known, too, and must differ.
    File { server_keys: Vec::new(), ..read.unwrap() }
}

#[test]
fn documented_defaults_are_the_real_ones() {
    let mut proven = 0;
    for_all(|key| {
        let Some(with) = &key.with else { return };
        let (with, without) = (read(with), read(&key.without));
        assert!(with == without, "{} is not {} by default", key.name, key.schema["default"]);
        proven += 1;
    });
    assert!(40 < proven, "only {proven} defaults are values");
}

/// Defaults that are told in words, and why they are not told as values.
const IN_WORDS: &[(&str, &str)] = &[
    ("top level.threads", "depends on the machine"),
    ("top level.graceful_shutdown_timeout_seconds", "in the midst of Pingora's code"),
    ("top level.upstream_connect_offload_threadpools", "there is no value for none"),
    ("top level.upstream_connect_offload_thread_per_pool", "there is no value for none"),
    ("top level.max_blocking_threads", "in tokio's code"),
    ("top level.blocking_threads_ttl_seconds", "in tokio's code"),
    ("top level.daemon_ready_timeout_seconds", "in the midst of Pingora's code"),
    ("top level.daemon_notify_timeout_seconds", "in the midst of Pingora's code"),
    ("top level.error_log", "there is no value for standard error"),
    ("top level.user", "depends on who starts it"),
    ("top level.group", "depends on who starts it"),
    ("top level.working_directory", "depends on where it is started"),
    ("Geo.country", "there is no value for none"),
    ("Geo.asn", "there is no value for none"),
    ("Oidc.client_secret", "there is no value for none"),
    ("Oidc.origin", "depends on the request"),
    ("Oidc.realm", "depends on the route"),
    ("ForwardAuth.user", "there is no value for none"),
    ("top level.lame_duck", "there is no value for none"),
    ("AccessLog.otlp", "there is no value for none"),
    ("AccessLog.syslog", "there is no value for none"),
    ("top level.traces", "there is no value for none"),
    ("TraceRule.route", "there is no value for any"),
    ("TraceRule.path", "there is no value for any"),
    ("TraceRule.headers", "there is no value for none"),
    ("Otlp.ca", "depends on the machine"),
    ("top level.acme", "there is no value for none"),
    ("top level.admin", "there is no value for none"),
    ("Admin.tls", "there is no value for none"),
    ("Admin.token", "there is no value for none"),
    ("AdminTls.client_certificates", "there is no value for none"),
    ("Acme.ca", "there is no value for none"),
    ("Acme.external_account", "there is no value for none"),
    ("top level.listeners", "decided after reading: see the next test"),
    ("top level.upstreams", "a file needs one"),
    ("top level.routes", "depends on the upstreams"),
    ("ApiTls.ca", "depends on the machine"),
    ("ApiTls.cert", "there is no value for none"),
    ("ApiTls.key", "there is no value for none"),
    ("Consul.datacenter", "depends on the agent"),
    ("Consul.tag", "there is no value for all"),
    ("Consul.tls", "there is no value for none"),
    ("Consul.token", "there is no value for none"),
    ("Consul.token_file", "there is no value for none"),
    ("Discovery.consul", "there is no value for none"),
    ("Discovery.docker", "there is no value for none"),
    ("Discovery.etcd", "there is no value for none"),
    ("Discovery.kubernetes", "there is no value for none"),
    ("Discovery.srv", "there is no value for none"),
    ("Docker.label", "depends on the upstream"),
    ("Docker.network", "depends on the containers"),
    ("Docker.port", "depends on the containers"),
    ("Docker.tls", "there is no value for none"),
    ("Etcd.password", "there is no value for none"),
    ("Etcd.tls", "there is no value for none"),
    ("Etcd.user", "there is no value for none"),
    ("Kubernetes.namespace", "depends on the pod"),
    ("Kubernetes.port", "depends on the service"),
    ("Kubernetes.tls", "depends on the pod"),
    ("Kubernetes.token_file", "depends on the pod"),
    ("Kubernetes.url", "depends on the pod"),
    ("Discovery.file", "there is no value for none"),
    ("Discovery.max_stale", "there is no value for ever"),
    ("HealthCheck.tcp", "depends on `http`"),
    ("HealthCheck.http", "there is no value for none"),
    ("HttpCheck.host", "depends on the backend"),
    ("HttpCheck.port", "depends on the backend"),
    ("Limits.connections", "depends on the machine"),
    ("Limits.connections_per_client", "there is no value for none"),
    ("Limits.accepts_per_client", "there is no value for none"),
    ("Listener.tls", "there is no value for none"),
    ("Listener.passthrough", "there is no value for none"),
    ("Listener.upstream", "there is no value for none"),
    ("Listener.proxy_protocol", "there is no value for none"),
    ("ListenerSocket.tcp_keepalive", "there is no value for none"),
    ("ListenerSocket.user_timeout", "the kernel's"),
    ("ListenerSocket.fast_open", "there is no value for none"),
    ("ListenerSocket.dscp", "the kernel's"),
    ("ListenerTls.client_certificates", "there is no value for none"),
    ("ListenerTls.key_log", "there is no value for none"),
    ("Backend.zone", "there is no value for none"),
    ("CacheStore.disk", "there is no value for none"),
    ("Certificate.ocsp", "there is no value for none"),
    ("Ejection.failure_share", "there is no value for none"),
    ("Ejection.latency_factor", "there is no value for none"),
    ("Ejection.success_rate_deviations", "there is no value for none"),
    ("ForwardedClient.subject", "there is no value for none"),
    ("ForwardedClient.sans", "there is no value for none"),
    ("ForwardedClient.fingerprint", "there is no value for none"),
    ("Match.headers", "there is no value for any host"),
    ("Match.hosts", "there is no value for any host"),
    ("Match.methods", "there is no value for any host"),
    ("Match.query", "there is no value for any host"),
    ("Overload.loop_delay", "there is no value for none"),
    ("Route.mirror", "there is no value for none"),
    ("Upstream.backends", "there is no value for none"),
    ("Upstream.discovery", "there is no value for none"),
    ("Upstream.max_connections", "there is no value for none"),
    ("Upstream.max_requests", "there is no value for none"),
    ("Upstream.queue", "there is no value for none"),
    ("Upstream.send_proxy_protocol", "there is no value for none"),
    ("Upstream.tls", "there is no value for none"),
    ("UpstreamTimeouts.ping", "there is no value for none"),
    ("UpstreamTls.ca", "depends on the machine"),
    ("UpstreamTls.client_cert", "there is no value for none"),
    ("UpstreamTls.sni", "depends on the backend"),
    ("Body.body", "there is no value for none"),
    ("Body.content_type", "depends on the file"),
    ("Body.file", "there is no value for none"),
    ("Maintenance.page", "there is no value for none"),
    ("Bandwidth.per_key", "there is no value for none"),
    ("Bandwidth.per_request", "there is no value for none"),
    ("Compression.types", "a list that is too long to be read"),
    ("Jwt.issuer", "there is no value for none"),
    ("JwtKeys.file", "there is no value for none"),
    ("JwtKeys.url", "there is no value for none"),
    ("ForwardAuth.cache", "there is no value for none"),
    ("Jwt.audience", "an empty list is anybody"),
    ("Fault.abort", "there is no value for none"),
    ("Fault.delay", "there is no value for none"),
    ("Fault.header", "there is no value for none"),
    ("FaultField.value", "there is no value for none"),
    ("RateLimit.store", "there is no value for none"),
    ("RateStore.name", "depends on the route"),
    ("RateWindow.burst", "depends on the rate"),
    ("ApiKey.file", "there is no value for none"),
    ("ApiKey.tell", "there is no value for none"),
    ("BasicAuth.tell", "there is no value for none"),
    ("Files.strip", "there is no value for none"),
    ("Files.cache_control", "there is no value for none"),
    ("Redirect.regex", "there is no value for none"),
    ("Redirect.slash", "there is no value for none"),
    ("Redirect.to", "there is no value for none"),
    ("Respond.content", "there is no value for none"),
    ("Retries.hedge_after", "there is no value for none"),
    ("Retries.per_try_timeout", "what `timeouts` allow"),
    ("Retries.retriable_header", "there is no value for none"),
    ("Rewrite.prefix", "there is no value for none"),
    ("Rewrite.regex", "there is no value for none"),
    ("Route.timeout", "there is no value for none"),
    ("SecurityHeaders.csp", "there is no value for none"),
    ("SecurityHeaders.hsts", "there is no value for none"),
    ("Sticky.key", "it is another one at each start"),
    ("Sticky.lasts", "there is no value for none"),
    ("Upstream.slow_start", "there is no value for none"),
    ("top level.zone", "there is no value for none"),
];

#[test]
fn defaults_in_words_are_those_that_are_no_values() {
    let mut in_words = BTreeSet::new();
    for_all(|key| {
        if description(key).contains("Default: ") && key.with.is_none() {
            in_words.insert(key.name.clone());
        }
    });
    let known: BTreeSet<String> = IN_WORDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(in_words, known, "left: told in words; right: IN_WORDS, with the reasons");
}

#[test]
fn without_listeners_there_is_the_documented_one() {
    let compile = |more: &str| {
        let text = format!("upstreams: {{ app: {{ backends: [127.0.0.1:3031] }} }}\n{more}");
        let compiled = snapshot::compile(&text, &mut Problems::default()).unwrap();
        format!("{:?}", compiled.listeners)
    };
    assert_eq!(compile(""), compile("listeners: [{ address: 0.0.0.0:8080 }]"));
}

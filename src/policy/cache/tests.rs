//! What may be kept, and for how long.

use std::time::{Duration, SystemTime};

use http::HeaderName;
use pingora_cache::{CacheMeta, NoCacheReason};
use pingora_http::ResponseHeader;

use super::*;
use crate::policy::{
    contract::Notes,
    tests::{Given, build, problems},
};

fn rules(yaml: &str) -> Rules {
    build(yaml, |config: &Config, cx| config.build(cx)).0
}

fn answer(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut header = ResponseHeader::build(status, None).unwrap();
    header.append_header("content-length", "2").unwrap();
    for (name, value) in fields {
        header.append_header(*name, *value).unwrap();
    }
    header
}

fn judged(
    yaml: &str,
    is_known: bool,
    status: u16,
    fields: &[(&'static str, &str)],
) -> Result<CacheMeta, NoCacheReason> {
    let asked = Asked { is_known, took: Duration::ZERO };
    rules(yaml).judge(&answer(status, fields), asked, SystemTime::now())
}

/// For how many seconds an answer is fresh from now; `None` if it is not kept.
fn fresh(yaml: &str, status: u16, fields: &[(&'static str, &str)]) -> Option<u64> {
    let meta = judged(yaml, false, status, fields).ok()?;
    let left = meta.fresh_until().duration_since(SystemTime::now()).unwrap_or_default();
    Some((left + Duration::from_millis(500)).as_secs())
}

const CC: &str = "cache-control";

type Fields = &'static [(&'static str, &'static str)];

#[test]
fn the_origin_says_how_long() {
    let cases: [(Fields, Option<u64>); 14] = [
        (&[(CC, "max-age=60")], Some(60)),
        (&[(CC, "max-age=60, s-maxage=10")], Some(10)),
        (&[(CC, "s-maxage=10"), ("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], Some(10)),
        (&[(CC, "max-age=60"), ("age", "20")], Some(40)),
        (&[("expires", "0"), ("etag", "\"a\"")], Some(0)),
        (&[("expires", "0")], None),
        (&[(CC, "no-cache"), ("etag", "\"a\"")], Some(0)),
        (&[(CC, "no-cache, max-age=60")], None),
        (&[(CC, "no-store, max-age=60")], None),
        (&[(CC, "private, max-age=60")], None),
        (&[(CC, "no-store"), ("cdn-cache-control", "max-age=7"), ("expires", "0")], Some(7)),
        (&[(CC, "max-age=60"), ("cdn-cache-control", "private")], None),
        (&[(CC, "public")], None),
        (&[], None),
    ];
    for (fields, expected) in cases {
        assert_eq!(fresh("{}", 200, fields), expected, "{fields:?}");
    }
    let now = SystemTime::now();
    let date = |at| httpdate::fmt_http_date(at);
    let fields = [("date", date(now)), ("expires", date(now + Duration::from_secs(30)))];
    let fields = fields.each_ref().map(|(name, value)| (*name, &**value));
    assert!(matches!(fresh("{}", 200, &fields), Some(29..=30)));
}

#[test]
fn what_does_not_say_is_kept_as_the_operator_says() {
    let yaml = "{ ttl: { 200: 1m, 404: 10s } }";
    assert_eq!(fresh(yaml, 200, &[]), Some(60));
    assert_eq!(fresh(yaml, 404, &[]), Some(10));
    assert_eq!(fresh(yaml, 301, &[]), None);
    assert_eq!(fresh(yaml, 200, &[(CC, "max-age=5")]), Some(5));
    assert_eq!(fresh(yaml, 200, &[(CC, "no-store")]), None);
    assert_eq!(fresh(yaml, 200, &[("set-cookie", "a=1")]), None);
}

#[test]
fn what_is_for_one_alone_is_not_kept_unless_the_origin_says_so() {
    let known = |said| judged("{}", true, 200, &[(CC, said)]).is_ok();
    assert!(!known("max-age=60"));
    assert!(known("max-age=60, public") && known("s-maxage=60"));
    assert!(known("max-age=60, must-revalidate"));
    let cookie = |said| judged("{}", false, 200, &[(CC, said), ("set-cookie", "a=1")]);
    assert!(cookie("max-age=60").is_err());
    assert!(cookie("public, max-age=60").unwrap().headers().contains_key("set-cookie"));
    let stripped = cookie("max-age=60, private=\"set-cookie\"").unwrap();
    assert!(!stripped.headers().contains_key("set-cookie"));
}

#[test]
fn parts_and_what_may_be_cut_short_are_not_kept() {
    let kept = |status| judged("{}", false, status, &[(CC, "max-age=60")]).is_ok();
    assert!(!kept(206) && !kept(304) && kept(404) && kept(503));
    assert!(judged("{}", false, 200, &[(CC, "max-age=60"), ("vary", "a, *")]).is_err());
    let mut open = answer(200, &[(CC, "max-age=60")]);
    open.remove_header("content-length");
    let asked = Asked { is_known: false, took: Duration::ZERO };
    assert!(rules("{}").judge(&open, asked, SystemTime::now()).is_err());
}

#[test]
fn what_belongs_to_the_exchange_is_not_kept() {
    let fields =
        [(CC, "max-age=60"), ("connection", "x-a"), ("x-a", "1"), ("transfer-encoding", "chunked")];
    let meta = judged("{}", false, 200, &fields).unwrap();
    assert!(!meta.headers().contains_key("connection") && !meta.headers().contains_key("x-a"));
    assert!(!meta.headers().contains_key("transfer-encoding"));
}

#[test]
fn stale_answers_are_given_as_the_origin_says_or_else_the_operator() {
    let yaml = "{ stale_while_revalidate: 10s, stale_if_error: 1h }";
    let stale = |said| {
        let meta = judged(yaml, false, 200, &[(CC, said)]).unwrap();
        [meta.stale_while_revalidate_sec(), meta.stale_if_error_sec()]
    };
    assert_eq!(stale("max-age=1"), [10, 3_600]);
    assert_eq!(stale("max-age=1, stale-while-revalidate=5, stale-if-error=0"), [5, 0]);
    assert_eq!(stale("s-maxage=1"), [0, 0]);
    assert_eq!(stale("s-maxage=1, stale-if-error=7"), [0, 7]);
    assert_eq!(stale("max-age=1, must-revalidate, stale-if-error=7"), [0, 0]);
    assert_eq!(stale("max-age=1, proxy-revalidate"), [0, 0]);
}

#[test]
fn a_304_brings_news_but_no_other_body() {
    let mut kept = answer(200, &[("etag", "\"a\""), ("age", "9"), ("x-a", "1")]);
    let news =
        answer(304, &[("x-a", "2"), ("x-a", "3"), ("content-type", "text/x")]).headers.clone();
    renew(&mut kept, &news).unwrap();
    let all: Vec<_> = kept.headers.get_all("x-a").iter().collect();
    assert_eq!(all, ["2", "3"]);
    assert!(!kept.headers.contains_key("age") && !kept.headers.contains_key("content-type"));
    assert_eq!(kept.headers["etag"], "\"a\"");
}

fn ask(yaml: &str, given: &Given) -> Ask {
    rules(yaml).ask(&given.facts(), &Notes::default(), false, false)
}

#[test]
fn requests_that_talk_origins_into_something_are_left_to_them() {
    let get = || Given::request("GET", "/");
    assert_eq!(ask("{}", &get()), Ask::Use(Use::default()));
    for name in ["x-http-method-override", "x-original-url", "x-host", "x-forwarded-scheme"] {
        assert_eq!(ask("{}", &get().field(name, "a")), Ask::Bypass("field"), "{name}");
    }
    assert_eq!(ask("{}", &get().field("if-match", "\"a\"")), Ask::Bypass("condition"));
    assert_eq!(ask("{}", &Given::request("POST", "/")), Ask::Change);
    assert_eq!(ask("{}", &Given::request("OPTIONS", "/")), Ask::Bypass("method"));
    let rules = rules("{}");
    let with_body = rules.ask(&get().facts(), &Notes::default(), true, false);
    assert_eq!(with_body, Ask::Bypass("body"));
}

#[test]
fn who_is_known_is_told_apart() {
    let known = Ask::Use(Use { is_known: true, ..Use::default() });
    let get = Given::request("GET", "/");
    assert_eq!(ask("{}", &Given::request("GET", "/").field("authorization", "x")), known);
    assert_eq!(rules("{}").ask(&get.facts(), &Notes::default(), false, true), known);
    let name = HeaderName::from_static("x-user");
    let mut told = Notes::default();
    told.to_origin.push((name, http::HeaderValue::from_static("a")));
    assert_eq!(rules("{}").ask(&get.facts(), &told, false, false), known);
    let yaml = "{ bypass_cookies: [session] }";
    let cookie = |value| Given::request("GET", "/").field("cookie", value);
    assert_eq!(ask(yaml, &cookie("a=1; session=x")), Ask::Bypass("cookie"));
    assert_eq!(ask(yaml, &cookie("a=session; sessions=1")), Ask::Use(Use::default()));
}

#[test]
fn clients_are_heeded_where_they_may_be() {
    let get = |said| Given::request("GET", "/").field(CC, said);
    assert_eq!(ask("{}", &get("no-cache, no-store, max-age=0")), Ask::Use(Use::default()));
    let honour = "{ honour_client: true }";
    assert_eq!(ask(honour, &get("no-store")), Ask::Bypass("no-store"));
    let meta = judged(honour, false, 200, &[(CC, "max-age=60"), ("age", "30")]).unwrap();
    let now = SystemTime::now();
    let suits = |said| {
        let Ask::Use(ask) = ask(honour, &get(said)) else { panic!("{said}") };
        rules(honour).suits(&ask, &meta, now)
    };
    assert!(suits("max-age=40") && suits("min-fresh=20"));
    assert!(!suits("max-age=20") && !suits("min-fresh=40") && !suits("no-cache"));
    let Ask::Use(only) = ask("{}", &get("only-if-cached")) else { panic!("it may be used") };
    assert!(only.only_if_cached);
}

#[test]
fn what_can_keep_nothing_is_refused() {
    let told = |yaml| problems(yaml, |config: &Config, cx| config.build(cx));
    assert_eq!(told("{ object_max: 0B }"), ["no such body can be kept"]);
    assert_eq!(told("{ object_max: 4GiB }"), ["no such body can be kept"]);
}

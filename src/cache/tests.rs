//! The store, driven as Pingora drives it.

mod followers;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use pingora_cache::{
    CacheKey, CacheMeta,
    lock::{CacheKeyLock, LockStatus, Locked},
    storage::{HandleHit, MissHandler, Storage},
    trace::Span,
};
use pingora_http::ResponseHeader;

use super::*;
use crate::clock;

fn leaked() -> &'static Store {
    Box::leak(Box::default())
}

fn key(url: &str) -> CacheKey {
    let mut key = CacheKey::new(url, "");
    let subject = Subject {
        route: "shop".into(),
        url: url.into(),
        length_max: 1_000,
        wants_all: true,
        asked: clock::stamp(),
    };
    key.extensions.insert(Arc::new(subject));
    key
}

async fn begin(
    store: &'static Store,
    key: &CacheKey,
    fields: &[(&'static str, &str)],
) -> MissHandler {
    let mut header = ResponseHeader::build(200, None).unwrap();
    for (name, value) in fields {
        header.append_header(*name, *value).unwrap();
    }
    let now = SystemTime::now();
    let meta = CacheMeta::new(now + Duration::from_secs(60), now, 0, 0, header);
    store.get_miss_handler(key, &meta, &Span::inactive().handle()).await.unwrap()
}

async fn push(miss: &mut MissHandler, bytes: &'static str) {
    miss.write_body(Bytes::from_static(bytes.as_bytes()), false).await.unwrap();
}

/// What is there for a key: `None` is nothing.
async fn found(store: &'static Store, key: &CacheKey) -> Option<String> {
    let found = store.lookup(key, &Span::inactive().handle()).await.unwrap();
    let (_, mut reader) = found?;
    Some(rest(&mut reader).await)
}

async fn rest(reader: &mut Box<dyn HandleHit + Sync + Send>) -> String {
    let mut all = Vec::new();
    while let Some(piece) = reader.read_body().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn what_came_whole_is_there_in_whole_and_in_part() {
    let (store, key) = (leaked(), key("http://a/"));
    let mut miss = begin(store, &key, &[]).await;
    push(&mut miss, "hello ").await;
    assert_eq!(found(store, &key).await, None, "its length is not known");
    push(&mut miss, "world").await;
    miss.finish().await.unwrap();
    assert_eq!(found(store, &key).await.as_deref(), Some("hello world"));

    let found = store.lookup(&key, &Span::inactive().handle()).await.unwrap();
    let (meta, mut reader) = found.unwrap();
    assert_eq!(meta.headers()["content-length"], "11");
    assert!(reader.can_seek());
    for (from, until, part) in [(0, Some(5), "hello"), (6, None, "world"), (4, Some(7), "o w")] {
        reader.seek(from, until).unwrap();
        assert_eq!(rest(&mut reader).await, part);
    }
    assert!(store.reserve(store.memory() / 4), "nothing stays reserved");
}

#[tokio::test]
async fn what_was_cut_short_leaves_nothing_behind() {
    let (store, key) = (leaked(), key("http://b/"));
    let mut miss = begin(store, &key, &[("content-length", "10")]).await;
    push(&mut miss, "hello").await;
    let (_, mut follower) =
        store.lookup(&key, &Span::inactive().handle()).await.unwrap().expect("it is followed");
    assert_eq!(follower.read_body().await.unwrap().unwrap(), "hello");
    drop(miss);
    assert!(follower.read_body().await.is_err(), "who followed is told");
    assert_eq!(found(store, &key).await, None);

    let mut miss = begin(store, &key, &[("content-length", "10")]).await;
    push(&mut miss, "hello").await;
    miss.finish().await.unwrap();
    assert_eq!(found(store, &key).await, None, "it was told to be longer");
}

#[tokio::test]
async fn what_is_as_long_as_it_said_is_whole_before_its_end() {
    for (url, told, body) in [("http://i/1", "4", "here"), ("http://i/2", "0", "")] {
        let (store, key) = (leaked(), key(url));
        let mut miss = begin(store, &key, &[("content-length", told)]).await;
        if !body.is_empty() {
            push(&mut miss, body).await;
        }
        drop(miss);
        assert_eq!(found(store, &key).await.as_deref(), Some(body));
        assert!(store.reserve(store.memory() / 4), "nothing stays reserved");
    }
}

#[tokio::test]
async fn what_is_too_long_goes_on_and_is_not_kept() {
    let (store, key) = (leaked(), key("http://c/"));
    let mut miss = begin(store, &key, &[]).await;
    miss.write_body(vec![b'x'; 900].into(), false).await.unwrap();
    miss.write_body(vec![b'x'; 900].into(), false).await.unwrap();
    miss.finish().await.unwrap();
    assert_eq!(found(store, &key).await, None);
    let miss = begin(store, &key, &[("content-length", "1001")]).await;
    assert_eq!(found(store, &key).await, None);
    drop(miss);
    assert!(store.reserve(store.memory() / 4), "nothing stays reserved");
}

#[tokio::test]
async fn a_purge_meets_what_it_names_and_what_is_still_coming() {
    let store = leaked();
    for (url, tag) in [("http://d/1", "x, y"), ("http://d/2", "y"), ("http://e/1", "xy")] {
        let mut miss = begin(store, &key(url), &[("cache-tag", tag)]).await;
        push(&mut miss, "old").await;
        miss.finish().await.unwrap();
    }
    let early = key("http://d/4");
    let coming = key("http://d/3");
    let mut miss = begin(store, &coming, &[("surrogate-key", "x")]).await;
    push(&mut miss, "old").await;
    let tag = Purge { tag: Some("x".to_owned()), ..Purge::default() };
    assert_eq!(store.purge(&tag).purged, 1);
    miss.finish().await.unwrap();
    assert_eq!(found(store, &coming).await, None);
    assert_eq!(found(store, &key("http://d/1")).await, None);
    assert!(found(store, &key("http://d/2")).await.is_some());

    let mut miss = begin(store, &early, &[]).await;
    push(&mut miss, "old").await;
    miss.finish().await.unwrap();
    assert_eq!(found(store, &early).await, None, "it was asked for before the purge");

    let url = Purge { prefix: Some("http://d/".to_owned()), ..Purge::default() };
    assert_eq!(store.purge(&url).purged, 1);
    assert!(found(store, &key("http://e/1")).await.is_some());
    assert!(Purge::default().check().is_err(), "nothing is emptied by mistake");
}

#[tokio::test]
async fn a_store_that_shrinks_keeps_what_has_room() {
    let store = leaked();
    let mut miss = begin(store, &key("http://f/"), &[]).await;
    push(&mut miss, "kept").await;
    miss.finish().await.unwrap();
    let memory = crate::units::ByteSize(64 * 1024);
    store.follow(&config::Config { memory, disk: None }, Path::new(""));
    assert_eq!(store.memory(), 64 * 1024);
    assert_eq!(found(store, &key("http://f/")).await.as_deref(), Some("kept"));
}

#[tokio::test]
async fn of_many_variants_the_oldest_goes() {
    let store = leaked();
    let variant = |n: u32| {
        let mut key = key("http://g/");
        key.set_variance_key(u128::from(n).to_be_bytes());
        key
    };
    for n in 0..=64 {
        let mut header = ResponseHeader::build(200, None).unwrap();
        header.append_header("vary", "x").unwrap();
        let now = SystemTime::now();
        let mut meta = CacheMeta::new(now + Duration::from_secs(60), now, 0, 0, header);
        meta.set_variance(u128::from(n).to_be_bytes());
        let miss = store.get_miss_handler(&variant(n), &meta, &Span::inactive().handle()).await;
        miss.unwrap().finish().await.unwrap();
    }
    assert_eq!(found(store, &variant(0)).await, None);
    assert!(found(store, &variant(1)).await.is_some());
}

#[tokio::test]
async fn who_waits_is_told_before_the_fetch_is_over() {
    let (fetches, key) = (Fetches::new(FETCH_MAX), key("http://h/"));
    let Locked::Write(first) = fetches.lock(&key, false) else { panic!("nobody fetches it") };
    let Locked::Read(waiting) = fetches.lock(&key, false) else { panic!("one fetches it") };
    fetches.tell(&key, LockStatus::GiveUp);
    waiting.wait().await;
    assert_eq!(waiting.lock_status(), LockStatus::GiveUp);
    let Locked::Write(second) = fetches.lock(&key, false) else { panic!("it is free again") };
    fetches.release(&key, first, LockStatus::Done);
    assert!(!fetches.lock(&key, false).is_write(), "what the second has is not the first's");
    fetches.release(&key, second, LockStatus::Done);
    let Locked::Write(third) = fetches.lock(&key, false) else { panic!("it is free again") };
    fetches.release(&key, third, LockStatus::Done);
}

#[tokio::test]
async fn nobody_fetches_what_has_begun_to_come_since_the_look() {
    let (store, key) = (store(), key("http://j/"));
    let miss = begin(store, &key, &[("content-length", "4")]).await;
    let fetches = Fetches::new(FETCH_MAX);
    let Locked::Read(told) = fetches.lock(&key, false) else { panic!("it is coming") };
    told.wait().await;
    assert_eq!(told.lock_status(), LockStatus::Done, "so that it is looked for again");
    let Locked::Write(permit) = fetches.lock(&key, true) else { panic!("another is asked for") };
    fetches.release(&key, permit, LockStatus::Done);
    drop(miss);
}

/// A `304` is about what was asked about.
#[tokio::test]
async fn a_head_is_renewed_with_its_own_body_alone() {
    let (store, key) = (leaked(), key("http://v/"));
    let mut miss = begin(store, &key, &[("etag", "\"a\"")]).await;
    push(&mut miss, "old").await;
    miss.finish().await.unwrap();
    for (tag, is_it) in [("\"b\"", false), ("\"a\"", true)] {
        let mut header = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [("etag", tag), ("content-length", "3"), ("x-new", "1")] {
            header.append_header(name, value).unwrap();
        }
        let now = SystemTime::now();
        let meta = CacheMeta::new(now + Duration::from_secs(60), now, 0, 0, header);
        let trace = Span::inactive().handle();
        assert_eq!(store.update_meta(&key, &meta, &trace).await.unwrap(), is_it);
        let (meta, _) = store.lookup(&key, &trace).await.unwrap().unwrap();
        assert_eq!(meta.headers().contains_key("x-new"), is_it);
    }
}

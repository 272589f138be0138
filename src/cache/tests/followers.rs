//! Those who follow an answer that is coming, whoever writes it.

use std::sync::mpsc;

use pingora_cache::{key::CacheHashKey, storage::HitHandler};
use tokio::time;

use super::*;

/// An answer of ten bytes of which five have come, one who follows it, and where the writers come
/// out that are to fetch it once more.
async fn followed(
    store: &'static Store,
    key: &CacheKey,
) -> (MissHandler, HitHandler, mpsc::Receiver<Writer>) {
    let mut miss = begin(store, key, &[("content-length", "10")]).await;
    push(&mut miss, "hello").await;
    let (_, follower) = store.lookup(key, &Span::inactive().handle()).await.unwrap().unwrap();
    let reader: &Reader = follower.as_any().downcast_ref().unwrap();
    let (out, writers) = mpsc::channel();
    assert!(reader.wants_refetch());
    reader.set_refetch(move |writer| out.send(writer).unwrap());
    assert!(!reader.wants_refetch(), "one is enough");
    (miss, follower, writers)
}

/// The one who fetches it beside, since nothing comes for so many seconds.
async fn beside(
    follower: &mut HitHandler,
    writers: &mpsc::Receiver<Writer>,
    seconds: u64,
) -> Writer {
    assert_eq!(follower.read_body().await.unwrap().unwrap(), "hello");
    let next = time::timeout(Duration::from_secs(seconds), follower.read_body()).await;
    assert!(next.is_err(), "nothing has come");
    writers.try_recv().unwrap()
}

fn ten_bytes(tag: Option<&str>) -> ResponseHeader {
    let mut header = ResponseHeader::build(200, None).unwrap();
    header.append_header("content-length", "10").unwrap();
    if let Some(tag) = tag {
        header.append_header("etag", tag).unwrap();
    }
    header
}

fn written(writer: &mut Writer, pieces: &[&'static str]) -> bool {
    pieces.iter().all(|piece| writer.write(&Bytes::from_static(piece.as_bytes())))
}

#[tokio::test]
async fn what_breaks_off_is_fetched_once_more_for_those_who_follow() {
    let (store, key) = (leaked(), key("http://k/"));
    let (miss, mut follower, writers) = followed(store, &key).await;
    drop(miss);
    let mut again = writers.try_recv().unwrap();
    assert_eq!(found(store, &key).await, None, "who comes now is better off alone");
    assert!(again.begin(&ten_bytes(None), None));
    assert!(written(&mut again, &["he", "llow"]));
    assert!(again.begin(&ten_bytes(None), None), "another backend");
    assert!(written(&mut again, &["hel", "lowo", "", "rl"]) && again.is_wanted());
    let late = store.lookup(&key, &Span::inactive().handle()).await.unwrap();
    let (_, mut late) = late.expect("it goes on");
    assert!(written(&mut again, &["d"]) && !again.is_wanted());
    drop(again);
    assert_eq!(rest(&mut late).await, "helloworld");
    assert_eq!(rest(&mut follower).await, "helloworld");
    assert_eq!(found(store, &key).await.as_deref(), Some("helloworld"));
    assert!(store.reserve(store.memory() / 4), "nothing stays reserved");
}

#[tokio::test]
async fn what_differs_is_not_put_together() {
    let (store, key) = (leaked(), key("http://l/"));
    let (miss, mut follower, writers) = followed(store, &key).await;
    drop(miss);
    let mut again = writers.try_recv().unwrap();
    assert!(!again.begin(&ten_bytes(Some("\"a\"")), None));
    assert!(!again.begin(&ten_bytes(None), Some([1; 16])), "another variant");
    assert!(again.begin(&ten_bytes(None), None));
    assert!(!written(&mut again, &["he", "lpworld"]));
    drop(again);
    assert_eq!(found(store, &key).await, None);
    assert!(follower.read_body().await.is_err(), "who followed is told");
    assert!(store.reserve(store.memory() / 4), "nothing stays reserved");
}

/// The one that is ahead adds to it, whoever that is.
#[tokio::test(start_paused = true)]
async fn what_hardly_goes_on_is_fetched_beside() {
    let (store, key) = (leaked(), key("http://m/"));
    let (mut miss, mut follower, writers) = followed(store, &key).await;
    let mut beside = beside(&mut follower, &writers, 3).await;
    assert!(written(&mut beside, &["hellowo"]));
    push(&mut miss, "worl").await;
    assert!(written(&mut beside, &["rl"]));
    assert!(beside.is_wanted());
    push(&mut miss, "d").await;
    assert!(written(&mut beside, &["d"]), "it agrees with what is over");
    miss.finish().await.unwrap();
    assert_eq!(rest(&mut follower).await, "world");
    assert_eq!(found(store, &key).await.as_deref(), Some("helloworld"));
    assert!(store.reserve(store.memory() / 4), "nothing stays reserved");
}

/// Not for one that will soon be there, but for one that takes its time.
#[tokio::test(start_paused = true)]
async fn what_comes_at_a_good_pace_is_fetched_once() {
    for (pause, again) in [(200, 0), (1_400, 1)] {
        let (store, key) = (leaked(), key("http://r/"));
        let mut miss = begin(store, &key, &[("content-length", "100")]).await;
        push(&mut miss, "ten bytes.").await;
        let (_, follower) = store.lookup(&key, &Span::inactive().handle()).await.unwrap().unwrap();
        let (out, writers) = mpsc::channel();
        let reader: &Reader = follower.as_any().downcast_ref().unwrap();
        reader.set_refetch(move |writer| out.send(writer).unwrap());
        let reading = tokio::spawn(async move {
            let mut follower = follower;
            rest(&mut follower).await
        });
        for _ in 1..10 {
            time::sleep(Duration::from_millis(pause)).await;
            push(&mut miss, "ten bytes.").await;
        }
        assert_eq!(reading.await.unwrap(), "ten bytes.".repeat(10));
        assert_eq!(writers.try_iter().count(), again, "{pause} ms for each piece");
    }
}

/// What one that was overtaken still brings takes no room.
#[tokio::test(start_paused = true)]
async fn one_that_was_overtaken_goes_on_alone() {
    let (store, key) = (leaked(), key("http://o/"));
    let (mut miss, mut follower, writers) = followed(store, &key).await;
    assert!(written(&mut beside(&mut follower, &writers, 3).await, &["helloworld"]));
    assert_eq!(rest(&mut follower).await, "world");
    drop(follower);
    push(&mut miss, "another text").await;
    miss.finish().await.unwrap();
    assert_eq!(found(store, &key).await.as_deref(), Some("helloworld"));
    assert!(store.reserve(store.memory() / 4), "nothing stays reserved");
}

/// Nor does one that comes too late bring it back.
#[tokio::test(start_paused = true)]
async fn what_is_whole_is_not_coming_any_more() {
    let (store, key) = (leaked(), key("http://s/"));
    let (mut miss, mut follower, writers) = followed(store, &key).await;
    let mut late = beside(&mut follower, &writers, 3).await;
    push(&mut miss, "world").await;
    drop(miss);
    assert!(late.begin(&ten_bytes(None), None) && written(&mut late, &["hello"]));
    drop(late);
    assert_eq!(rest(&mut follower).await, "world");
    store.invalidate(&key);
    assert_eq!(found(store, &key).await, None);
    assert!(!store.is_followed(u128::from_be_bytes(key.combined_bin())));
}

/// A change of what is asked for ends it for those who come now.
#[tokio::test]
async fn what_is_coming_is_not_found_after_a_change() {
    let (store, key) = (leaked(), key("http://t/"));
    let (mut miss, mut follower, _) = followed(store, &key).await;
    store.invalidate(&key);
    assert_eq!(found(store, &key).await, None);
    push(&mut miss, "world").await;
    assert_eq!(rest(&mut follower).await, "helloworld");
    assert_eq!(found(store, &key).await, None);
}

/// It hardly went on, which did not help, and then it broke off.
#[tokio::test(start_paused = true)]
async fn each_cause_has_its_own_turn() {
    let (store, key) = (leaked(), key("http://u/"));
    let (miss, mut follower, writers) = followed(store, &key).await;
    drop(beside(&mut follower, &writers, 9).await);
    assert!(writers.try_recv().is_err(), "once is enough");
    drop(miss);
    let mut again = writers.try_recv().unwrap();
    assert!(again.begin(&ten_bytes(None), None) && written(&mut again, &["helloworld"]));
    assert_eq!(rest(&mut follower).await, "world");
}

/// It may be fetched for an order that has come since.
#[tokio::test]
async fn what_was_purged_meanwhile_is_given_to_those_who_follow_alone() {
    let (store, key) = (leaked(), key("http://p/"));
    let (miss, mut follower, writers) = followed(store, &key).await;
    drop(miss);
    store.purge(&Purge { url: Some("http://p/".to_owned()), ..Purge::default() });
    let mut again = writers.try_recv().unwrap();
    assert!(again.begin(&ten_bytes(None), None) && written(&mut again, &["hellow"]));
    assert_eq!(found(store, &key).await, None, "nobody else is shown it");
    assert!(written(&mut again, &["orld"]));
    assert_eq!(rest(&mut follower).await, "helloworld");
    assert_eq!(found(store, &key).await, None);
}

/// The older of two is not kept over the newer one.
#[tokio::test]
async fn what_another_replaced_is_not_kept() {
    let (store, key) = (leaked(), key("http://q/"));
    let mut older = begin(store, &key, &[("content-length", "3")]).await;
    let mut newer = begin(store, &key, &[("content-length", "3")]).await;
    push(&mut newer, "new").await;
    push(&mut older, "old").await;
    assert_eq!(found(store, &key).await.as_deref(), Some("new"));
}

/// Nobody fetches for those who have left.
#[tokio::test]
async fn what_nobody_follows_any_more_is_broken_off() {
    let (store, key) = (leaked(), key("http://n/"));
    let (miss, follower, writers) = followed(store, &key).await;
    drop((follower, miss));
    assert!(writers.recv().is_err());

    let (miss, follower, writers) = followed(store, &key).await;
    drop(miss);
    let again = writers.try_recv().unwrap();
    let left = again.left();
    drop(follower);
    left.await;
    assert!(!again.is_wanted());
    drop(again);
    assert_eq!(found(store, &key).await, None);
    assert!(store.reserve(store.memory() / 4), "nothing stays reserved");
}

//! Rows 51 and 52: limits.

use std::fmt::Write as _;

use super::*;

// Row 51.
#[test]
fn a_target_over_its_limit_is_refused_as_soon_as_it_is() {
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));
    accept(with_target(&target(10 * 1024)));
    accept(with_target(&target(16 * 1024)));
    for length in [16 * 1024 + 1, 70 * 1024] {
        assert_eq!(refuse(with_target(&target(length))), Refusal::TARGET_TOO_LONG);
        assert_eq!(refuse(format!("GET {}", target(length))), Refusal::TARGET_TOO_LONG);
        assert_eq!(refuse(format!("GET /?{}", target(length))), Refusal::TARGET_TOO_LONG);
    }
    assert_eq!(read(format!("GET {}", target(16 * 1024)).as_bytes()), Ok(None));
    assert_eq!(Refusal::TARGET_TOO_LONG.status, 414);
}

// Row 52.
#[test]
fn a_head_over_its_limits_is_refused_even_if_it_never_ends() {
    let filled = |size: usize| with(format!("X: {}\r\n", "v".repeat(size)).as_bytes());
    let spare = 64 * 1024 - filled(0).len();
    for size in [9 * 1024, 40 * 1024, spare] {
        accept(filled(size));
    }
    assert_eq!(refuse(filled(spare + 1)), Refusal::HEAD_TOO_LARGE);
    assert_eq!(refuse(filled(100 * 1024)), Refusal::HEAD_TOO_LARGE);
    let endless = &filled(100 * 1024)[..64 * 1024];
    assert_eq!(refuse(endless), Refusal::HEAD_TOO_LARGE);
    assert_eq!(read(&endless[..64 * 1024 - 1]), Ok(None));

    let fields = |count: usize| {
        with(
            (1..count)
                .fold(String::new(), |mut text, i| {
                    let _ = write!(text, "X-{i}: v\r\n");
                    text
                })
                .as_bytes(),
        )
    };
    for count in [110, 128] {
        accept(fields(count));
    }
    for count in [129, 1100] {
        assert_eq!(refuse(fields(count)), Refusal::TOO_MANY_FIELDS);
    }
    assert_eq!((Refusal::HEAD_TOO_LARGE.status, Refusal::TOO_MANY_FIELDS.status), (431, 431));
}

#[test]
fn limits_that_a_reload_lowers_refuse_what_is_over_them() {
    let low = Limits { header_size: 40, header_fields: 1, target_size: 5 };
    for (start, refusal) in [
        (with_value(&[b'v'; 100]), Refusal::HEAD_TOO_LARGE),
        (b"GET /0123456789".to_vec(), Refusal::TARGET_TOO_LONG),
    ] {
        let mut reader = HeadReader::new();
        let almost = &start[..start.len() - 2];
        assert_eq!(reader.advance(almost, &Limits::default()), Ok(None));
        assert_eq!(reader.advance(&start, &low), Err(refusal));
    }
}

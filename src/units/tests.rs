//! Every quantity prints what it parses, and says what is wrong with what it refuses.

use proptest::prelude::{any, proptest};

use super::*;

proptest! {
    #[test]
    fn a_printed_duration_parses_to_itself(micros in any::<u64>()) {
        let duration = Duration(time::Duration::from_micros(micros));
        assert_eq!(duration.to_string().parse(), Ok(duration));
    }

    #[test]
    fn a_printed_size_parses_to_itself(bytes in any::<u64>(), shift in 0_u32..40) {
        let size = ByteSize(bytes >> shift << shift);
        assert_eq!(size.to_string().parse(), Ok(size));
    }

    #[test]
    fn a_printed_percentage_parses_to_itself(percent in 0_u8..=100) {
        let percent = Percent::new(percent);
        assert_eq!(percent.to_string().parse(), Ok(percent));
    }

    #[test]
    fn a_printed_rate_parses_to_itself(count in 1_u32.., per in 0_usize..3) {
        let per = [Period::Second, Period::Minute, Period::Hour][per];
        let rate = Rate { count: NonZeroU32::new(count).unwrap(), per };
        assert_eq!(rate.to_string().parse(), Ok(rate));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,12}") {
        let _ = text.parse::<Duration>();
        let _ = text.parse::<ByteSize>();
        let _ = text.parse::<Percent>();
        let _ = text.parse::<Rate>();
    }
}

#[test]
fn every_unit_has_its_size() {
    let cases = [
        ("0s", 0),
        ("7us", 7),
        ("250ms", 250_000),
        ("5s", 5_000_000),
        ("2m", 120_000_000),
        ("1h", 3_600_000_000),
        ("1d", 86_400_000_000),
    ];
    for (text, micros) in cases {
        let duration = Duration(time::Duration::from_micros(micros));
        assert_eq!(text.parse(), Ok(duration));
        assert_eq!(duration.to_string(), text);
    }
    assert_eq!("512B".parse(), Ok(ByteSize(512)));
    assert_eq!("64KiB".parse(), Ok(ByteSize::from_kib(64)));
    assert_eq!("1GiB".parse(), Ok(ByteSize::from_mib(1024)));
    assert_eq!("100/s".parse(), Ok(Rate::per_second(100)));
    assert_eq!("10/m".parse(), Ok(Rate::per_minute(10)));
    assert_eq!(ByteSize(0).to_string(), "0B");
}

#[test]
fn an_equal_value_prints_in_its_largest_unit() {
    assert_eq!(Duration::from_millis(1_500).to_string(), "1500ms");
    assert_eq!(Duration::from_secs(90).to_string(), "90s");
    assert_eq!(Duration::from_secs(3_600).to_string(), "1h");
    assert_eq!(ByteSize(65_536).to_string(), "64KiB");
}

#[test]
fn quantities_answer_in_base_units() {
    assert!(Duration::ZERO.is_zero());
    assert!((Percent::new(20).as_fraction() - 0.2).abs() < f64::EPSILON);
    assert!((Rate::per_minute(30).events_per_second() - 0.5).abs() < f64::EPSILON);
}

#[test]
fn a_wrong_duration_is_told_what_is_wrong() {
    let message = |text: &str| text.parse::<Duration>().unwrap_err().to_string();
    assert_eq!(message("5"), "`5` has no unit: write `5s` or `5ms`");
    assert_eq!(
        message("soon"),
        "`soon` is not a duration\nhelp: write a number and a unit, such as `250ms` or `5s`"
    );
    assert_eq!(
        message("1h30m"),
        "`1h30m` has an unknown unit `h30m`\nhelp: write one number and one of: us, ms, s, m, h, d"
    );
    assert_eq!(message("5S"), "`5S` has an unknown unit `S`\nhelp: write `5s`");
    assert_eq!(
        message("1.5s"),
        "`1.5s` is not a whole number\nhelp: use a smaller unit, or round it"
    );
    assert_eq!(
        message("99999999999999999d"),
        "`99999999999999999d` is out of range: at most about 500000 years"
    );
}

#[test]
fn a_decimal_size_is_answered_with_the_binary_one() {
    let message = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
    assert_eq!(message("64KB"), "`64KB` has an unknown unit `KB`\nhelp: write `64KiB`");
    assert_eq!(message("1m"), "`1m` has an unknown unit `m`\nhelp: write `1MiB`");
    assert_eq!(message("64"), "`64` has no unit: write `64KiB` or `64B`");
}

#[test]
fn a_percentage_and_a_rate_keep_their_bounds() {
    let percent = |text: &str| text.parse::<Percent>().unwrap_err().to_string();
    let rate = |text: &str| text.parse::<Rate>().unwrap_err().to_string();
    assert_eq!(percent("120%"), "`120%` is out of range: 0% to 100%");
    assert_eq!(percent("20"), "`20` has no unit: write `20%`");
    assert_eq!(rate("0/s"), "`0/s` is out of range: 1 to 4294967295 in each period");
    assert_eq!(rate("100"), "`100` has no unit: write `100/s` or `100/m`");
    assert_eq!(
        rate("100/day"),
        "`100/day` has an unknown unit `/day`\nhelp: write one number and one of: /s, /m, /h"
    );
}

//! The exact messages for files with wrong keys and values.

use super::*;

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    wrong(
        "\
upstreams:
  app:
    backends: [127.0.0.1:3031]
    helth_check: tcp
    colour: red
",
        "\
error: unknown key `helth_check` in `upstreams.app`
 --> crestline.yaml:4:5
  |
4 |     helth_check: tcp
  |     ^^^^^^^^^^^
  |
help: did you mean `health_check`? Known here: backends, balance, health_check, max_ejected, retries, timeout

error: unknown key `colour` in `upstreams.app`
 --> crestline.yaml:5:5
  |
5 |     colour: red
  |     ^^^^^^
  |
help: Known here: backends, balance, health_check, max_ejected, retries, timeout
",
    );
}

#[test]
fn a_quantity_needs_its_unit_and_a_number_its_range() {
    wrong(
        "\
upstreams:
  app:
    backends: []
    timeout: 5
    retries: 300
    max_ejected: 120%
threads: many
",
        "\
error: `5` has no unit: write `5s` or `5ms`
 --> crestline.yaml:4:14
  |
4 |     timeout: 5
  |              ^ in `upstreams.app.timeout`

error: `300` is out of range: 0 to 255
 --> crestline.yaml:5:14
  |
5 |     retries: 300
  |              ^^^ in `upstreams.app.retries`

error: `120%` is out of range: 0% to 100%
 --> crestline.yaml:6:18
  |
6 |     max_ejected: 120%
  |                  ^^^^ in `upstreams.app.max_ejected`

error: expected a whole number, found `many`
 --> crestline.yaml:7:10
  |
7 | threads: many
  |          ^^^^ in `threads`
",
    );
}

#[test]
fn an_unknown_variant_names_the_nearest() {
    wrong(
        "\
upstreams:
  app:
    backends: []
    balance: rond_robin
routes:
  - { upstream: app, policies: [deny, { rate_limt: 5/s }] }
",
        "\
error: unknown value `rond_robin`
 --> crestline.yaml:4:14
  |
4 |     balance: rond_robin
  |              ^^^^^^^^^^ in `upstreams.app.balance`
  |
help: did you mean `round_robin`? Known here: hash, least_requests, round_robin

error: unknown key `rate_limt`
 --> crestline.yaml:6:41
  |
6 |   - { upstream: app, policies: [deny, { rate_limt: 5/s }] }
  |                                         ^^^^^^^^^ in `routes[0].policies[1]`
  |
help: did you mean `rate_limit`? Known here: deny, rate_limit, request_headers
",
    );
}

#[test]
fn a_short_form_is_told_what_it_could_be() {
    wrong(
        "\
upstreams:
  app:
    backends: []
    health_check: tpc
",
        "\
error: unknown check `tpc`
 --> crestline.yaml:4:19
  |
4 |     health_check: tpc
  |                   ^^^ in `upstreams.app.health_check`
  |
help: write `tcp` or `off`
",
    );
}

#[test]
fn a_missing_key_is_shown_at_the_key_of_its_mapping() {
    wrong(
        "\
upstreams:
  app: { retries: 3 }
routes:
  - name: shop
",
        "\
error: missing key `backends` in `upstreams.app`
 --> crestline.yaml:2:3
  |
2 |   app: { retries: 3 }
  |   ^^^

error: missing key `upstream` in `routes[0]`
 --> crestline.yaml:4:5
  |
4 |   - name: shop
  |     ^^^^^^^^^^
",
    );
}

#[test]
fn a_missing_key_of_the_file_has_no_line() {
    wrong(
        "\
threads: 2
",
        "\
error: missing key `upstreams`
--> crestline.yaml
",
    );
}

#[test]
fn a_wrong_kind_of_value_is_said_in_words() {
    wrong(
        "\
upstreams: [a]
routes: { a: b }
error_pages: { abc: y, 70000: z }
threads: \"4\"
",
        "\
error: expected a mapping, found a list
 --> crestline.yaml:1:12
  |
1 | upstreams: [a]
  |            ^^^ in `upstreams`

error: expected a list, found a mapping
 --> crestline.yaml:2:9
  |
2 | routes: { a: b }
  |         ^^^^^^^^ in `routes`
  |
help: put a hyphen before each item: `- a: …`

error: expected a whole number as key, found `abc`
 --> crestline.yaml:3:16
  |
3 | error_pages: { abc: y, 70000: z }
  |                ^^^ in `error_pages`

error: `70000` is out of range: 0 to 65535
 --> crestline.yaml:3:24
  |
3 | error_pages: { abc: y, 70000: z }
  |                        ^^^^^ in `error_pages`

error: expected a whole number, found the text `\"4\"`
 --> crestline.yaml:4:10
  |
4 | threads: \"4\"
  |          ^^^ in `threads`
  |
help: take the quotes away
",
    );
}

#[test]
fn nothing_is_not_an_empty_mapping() {
    wrong(
        "\
upstreams:
",
        "\
error: expected a mapping, found nothing
 --> crestline.yaml:1:1
  |
1 | upstreams:
  | ^^^^^^^^^ in `upstreams`
  |
help: write its keys below it, indented further, or `{}` if it has none
",
    );
}

#[test]
fn a_choice_is_one_word_or_one_key() {
    wrong(
        "\
upstreams: {}
routes:
  - upstream: app
    policies:
      - request_headers:
        set: { a: b }
      - rate_limit
      - deny: now
      - { deny: , rate_limit: 5/s }
",
        "\
error: expected one key, found 2: `request_headers`, `set`
 --> crestline.yaml:5:9
  |
5 |       - request_headers:
  |         ^^^^^^^^^^^^^^^^ in `routes[0].policies[0]`
  |
help: indent the others further if they belong to `request_headers`

error: `rate_limit` needs a value
 --> crestline.yaml:7:9
  |
7 |       - rate_limit
  |         ^^^^^^^^^^ in `routes[0].policies[1]`
  |
help: write `rate_limit: …`

error: `deny` takes no value
 --> crestline.yaml:8:15
  |
8 |       - deny: now
  |               ^^^ in `routes[0].policies[2]`
  |
help: write the word alone: `deny`

error: expected one key, found 2: `deny`, `rate_limit`
 --> crestline.yaml:9:9
  |
9 |       - { deny: , rate_limit: 5/s }
  |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^ in `routes[0].policies[3]`
  |
help: Choose one: deny, rate_limit, request_headers
",
    );
}

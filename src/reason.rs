//! Why a request, or a connection, ended as it did: one word of a closed list.
//!
//! The same word stands in the access log, in the metrics, in `status`, in `explain`, and in
//! `docs/reasons.md`, which is made of this list.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    sync::LazyLock,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    counter::Counter,
    metrics::{Family, Page},
};

const ENDS: Family<1> = Family::counter(
    "crestline_request_ends_total",
    "Requests that have ended, by the reason of their end",
    ["reason"],
);

/// What a reason says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It went as it should.
    Good,
    /// It was refused by a rule.
    Refused,
    /// Somebody failed: the client, an origin, or the proxy.
    Failed,
}

macro_rules! reasons {
    ($($class:ident [$title:literal: $help:literal] {
        $($Name:ident = $word:literal: $cause:literal,)+
    })+) => {
        /// Why a request, or a connection, ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $cause] $Name,)+)+ }

        impl Reason {
            /// All there are, in the order of the manual.
            pub const ALL: &'static [Self] = &[$($(Self::$Name,)+)+];

            /// In one word.
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$Name => $word,)+)+ }
            }

            /// Whether it speaks of a failure.
            pub const fn class(self) -> Class {
                match self { $($(Self::$Name)|+ => Class::$class,)+ }
            }
        }

        /// Title, remedy, and reasons with their causes.
        const MANUAL: &[(&str, &str, &[(Reason, &str)])] =
            &[$(($title, $help, &[$((Reason::$Name, $cause),)+]),)+];
    };
}

reasons! {
    Good ["As it should be": "Nothing is to be done. Lines of these count as good where `access_log` shows a `sample`."] {
        Ok = "ok": "The origin's answer was passed on whole, whatever its status.",
        Redirected = "redirected": "A policy sent the client elsewhere.",
        AnsweredHere = "answered_here": "A `respond` or `files` policy answered.",
        SignIn = "sign_in": "An `oidc` policy sent the client to sign in, or took it back from there.",
        SignedOut = "signed_out": "An `oidc` policy let the client sign out.",
        AcmeChallenge = "acme_challenge": "A certificate authority was shown that the name is ours.",
        Preflight = "preflight": "A `cors` policy answered a browser's question.",
        Closed = "closed": "Both sides of a relayed connection closed it.",
    }
    Refused ["Routes and policies": "The route refuses the request as it is configured to; `crestline explain METHOD URL` shows which, and why."] {
        NoRoute = "no_route": "No route matches the request.",
        MethodNotAllowed = "method_not_allowed": "Routes match, but none for this method, or a `method` policy refused it.",
        Misdirected = "misdirected": "The certificate of the connection does not cover the host that was asked for (421).",
        IpDenied = "ip_denied": "An `ip` policy refused the client's address.",
        GeoDenied = "geo_denied": "A `geo` policy refused the client's country, continent or network.",
        CertificateDenied = "certificate_denied": "A `client_cert` policy refused the client's certificate, or there is none.",
        KeyDenied = "key_denied": "An `api_key` policy was shown no key that it knows (401).",
        PasswordDenied = "password_denied": "A `basic_auth` policy was shown no name and password that it knows (401).",
        TokenDenied = "token_denied": "A `jwt` policy was shown no token that does (401), or one that lacks a claim (403).",
        AuthDenied = "auth_denied": "The service of a `forward_auth` policy refused the request.",
        SignInNeeded = "sign_in_needed": "An `oidc` policy knows no session of a client that cannot be sent to sign in (401).",
        SignInDenied = "sign_in_denied": "A sign-in of an `oidc` policy failed, or the user lacks a claim (403).",
        AuthAway = "auth_away": "The service of a `forward_auth` policy, that of the keys of `jwt`, or the provider of `oidc` did not answer, so that nobody is let in (503).",
        AccessBusy = "access_busy": "Too many passwords wait to be verified (503).",
        NoFile = "no_file": "A `files` policy found no such file (404).",
        ContentTypeDenied = "content_type_denied": "A `content_type` policy refused the type of the body.",
        CrossSite = "cross_site": "A `csrf` policy refused a request from another site.",
        OverLimit = "over_limit": "The body is longer than `body_limit` allows.",
        RateLimited = "rate_limited": "A `rate_limit` policy refused the request: too many came in a time (429).",
        TooManyAtOnce = "too_many_at_once": "A `concurrency_limit` policy refused the request: too many are under way (429).",
        Fault = "fault": "A `fault` policy answered, on purpose.",
        Maintenance = "maintenance": "A `maintenance` policy answered.",
        BadRewrite = "bad_rewrite": "A `rewrite` made a target that is no URI of this request.",
        BadRedirect = "bad_redirect": "A redirect would have led to a target that is none.",
        Policy = "policy": "Another policy refused the request.",
    }
    Failed ["The client": "The client, or the network before it, ended the request. Many at once point at a client with a short timeout, or at slow answers."] {
        ClientAbort = "client_abort": "The client left before the answer was whole.",
        ClientReset = "client_reset": "The client reset a relayed connection.",
        ClientTimeout = "client_timeout": "The client stopped in the middle of its body: `timeouts.body` of the listener.",
        BodyTooSlow = "body_too_slow": "The body came more slowly than `limits.body_rate` of the listener asks.",
        WriteTimeout = "write_timeout": "The client took nothing of its answer for `timeouts.write` of the listener.",
        IdleTimeout = "idle_timeout": "Nothing passed on a relayed connection for `timeouts.tunnel`.",
        BadRequest = "bad_request": "What came after the head was no good HTTP.",
    }
    Failed ["Nobody to ask": "`crestline status` shows each backend with its health, ejection and load; add backends, raise their bounds, or see why they are out of service."] {
        NoBackend = "no_backend": "No backend of the upstream is fit for the request.",
        NoSource = "no_source": "This machine has no port left for a connection to the backend.",
        UpstreamFull = "upstream_full": "Every fit backend has as many requests, or connections, as it may have, and there is no `queue`.",
        QueueFull = "queue_full": "The same, and the queue is full as well.",
        QueueTimeout = "queue_timeout": "The request waited in the queue for as long as it may.",
        Overloaded = "overloaded": "The proxy itself has too much to do: `overload`.",
    }
    Failed ["Making the connection to a backend": "The last attempt failed so; `via` in the access log has all of them. See whether the backend runs, listens at this address, and is reached from here."] {
        ConnectRefused = "connect_refused": "The backend's machine refused the connection: nobody listens there.",
        ConnectTimeout = "connect_timeout": "The connection was not made within `timeouts.connect` of the upstream.",
        ConnectUnroutable = "connect_unroutable": "There is no way to the address.",
        ConnectError = "connect_error": "The connection failed in another way.",
        TlsBadCertificate = "tls_bad_certificate": "The backend's certificate is signed by nobody who is trusted: `tls.ca` of the upstream.",
        TlsExpired = "tls_expired": "The backend's certificate has expired.",
        TlsWrongName = "tls_wrong_name": "The backend's certificate is for other names: `tls.sni` of the upstream.",
        TlsRefused = "tls_refused": "The backend refused the handshake, or our certificate.",
        TlsNotSpoken = "tls_not_spoken": "The backend does not speak TLS there.",
        TlsTimeout = "tls_timeout": "The handshake took longer than `timeouts.handshake` of the upstream.",
        NoHttp2 = "no_http2": "The backend does not speak HTTP/2, which `http: 2` asks for.",
        TlsError = "tls_error": "The handshake failed in another way.",
    }
    Failed ["What the origin did": "The last attempt had a connection and no good answer; look into the origin's own log at that time."] {
        FirstByteTimeout = "first_byte_timeout": "No byte came in time: `timeouts.first_byte` and `retries.per_try_timeout` of the upstream.",
        OriginTimeout = "origin_timeout": "The answer had begun, and paused for longer than `timeouts.between_bytes`.",
        OriginReset = "origin_reset": "The connection broke before an answer.",
        OriginTruncated = "origin_truncated": "The connection broke in the midst of the answer.",
        OriginRefused = "origin_refused": "It refused the request by a code of HTTP/2.",
        OriginNonsense = "origin_nonsense": "What came was no good HTTP.",
        Deadline = "deadline": "The `timeout` of the route was over.",
    }
    Failed ["The proxy": "A fault of Crestline's own, with a line in the process log: please report it. `leaving` is none: it had to end, and clients had their time."] {
        Internal = "internal": "Something of our own failed.",
        Panic = "panic": "A mistake in Crestline's own code; the request had a 500, and all others went on.",
        Leaving = "leaving": "The process ended while a connection was relayed.",
    }
    Refused ["Heads that are no good HTTP": "Refused before any route is asked, since origins read such requests in different ways. The client, or a device before it, is to be mended; what many send at once is an attack."] {
        BareLineFeed = "bare_line_feed": "A line ends with LF alone.",
        BareCarriageReturn = "bare_carriage_return": "A CR that no LF follows.",
        NulByte = "nul_byte": "A NUL in a field.",
        ControlByte = "control_byte": "Another control byte in a field.",
        LeadingBlankLines = "leading_blank_lines": "More than one blank line before the request.",
        BadMethod = "bad_method": "The method is no token.",
        MethodTooLong = "method_too_long": "The method is longer than any that is known.",
        ConnectMethod = "connect_method": "`CONNECT`: this is no forward proxy.",
        TraceMethod = "trace_method": "`TRACE` would show fields that are added here.",
        BadRequestLine = "bad_request_line": "The request line is not three words with single spaces.",
        BadTarget = "bad_target": "A byte in the target that no URI has.",
        TargetBackslash = "target_backslash": "A backslash in the path.",
        TargetFragment = "target_fragment": "A `#` in the target.",
        TargetTooLong = "target_too_long": "The target is longer than `limits.target_size`.",
        BadTargetForm = "bad_target_form": "The target is neither a path, nor a URI, nor `*`.",
        UnsupportedScheme = "unsupported_scheme": "A URI that is neither `http` nor `https`.",
        AsteriskTarget = "asterisk_target": "`*` with another method than `OPTIONS`.",
        MissingVersion = "missing_version": "No version: HTTP/0.9.",
        BadVersion = "bad_version": "The version is misspelt.",
        UnsupportedVersion = "unsupported_version": "A version that is not spoken here.",
        Http10 = "http_1_0": "The client speaks HTTP/1.0, and the answer cannot be told in it.",
        PathNotRooted = "path_not_rooted": "The path does not begin with a slash.",
        PathAboveRoot = "path_above_root": "`..` leads out of the root.",
        PathBackslash = "path_backslash": "A backslash in the path, perhaps encoded.",
        PathNul = "path_nul": "`%00` in the path.",
        PathFragment = "path_fragment": "A `#` in the path.",
        PathBrokenEscape = "path_broken_escape": "A `%` without two hexadecimal digits.",
        PathIllegalByte = "path_illegal_byte": "A byte in the path that no URI has there.",
        HeadTooLarge = "head_too_large": "The head is longer than `limits.header_size`.",
        TooManyFields = "too_many_fields": "More fields than `limits.header_fields`.",
        ObsFold = "obs_fold": "A field line begins with white space.",
        SpaceBeforeColon = "space_before_colon": "White space in or after the name of a field.",
        MissingColon = "missing_colon": "A field without a colon.",
        EmptyFieldName = "empty_field_name": "A field without a name.",
        BadFieldName = "bad_field_name": "The name of a field is no token.",
        MissingHost = "missing_host": "HTTP/1.1 without `Host`.",
        DuplicateHost = "duplicate_host": "`Host` twice.",
        BadHost = "bad_host": "`Host` is no host.",
        HostMismatch = "host_mismatch": "`Host` is another than the host of the target.",
        BadContentLength = "bad_content_length": "`Content-Length` is no number.",
        DuplicateContentLength = "duplicate_content_length": "`Content-Length` twice.",
        LengthWithEncoding = "length_with_encoding": "`Content-Length` beside `Transfer-Encoding`.",
        DuplicateTransferEncoding = "duplicate_transfer_encoding": "`Transfer-Encoding` twice.",
        BadTransferEncoding = "bad_transfer_encoding": "`chunked` is not the last coding, or misspelt.",
        UnknownTransferCoding = "unknown_transfer_coding": "Another transfer coding than `chunked`.",
        TransferEncodingInHttp10 = "transfer_encoding_in_http_10": "`Transfer-Encoding` in HTTP/1.0.",
        DuplicateAuthorization = "duplicate_authorization": "`Authorization` twice.",
        BadChunkSize = "bad_chunk_size": "The size of a chunk is no number.",
        BadChunkExtension = "bad_chunk_extension": "A control byte beside the size of a chunk.",
        ChunkExtensionsTooLarge = "chunk_extensions_too_large": "Too much stands beside the sizes of chunks.",
        BadChunkEnd = "bad_chunk_end": "No line ends after the data of a chunk.",
        TrailersTooLarge = "trailers_too_large": "The trailers are too long.",
    }
    Refused ["Connections": "Refused or closed without an answer of an origin. Where they are not an attack, raise the bound that is named, or name the load balancer under `proxy_protocol.trusted`."] {
        Connections = "connections": "As many clients as there may be: `limits.connections`.",
        ConnectionsPerClient = "connections_per_client": "As many connections as one client may have: `limits.connections_per_client`.",
        AcceptsPerClient = "accepts_per_client": "One client connects too often: `limits.accepts_per_client`.",
        GaveWay = "gave_way": "An idle connection was closed so that another client gets in.",
        Silent = "silent": "Not one byte came in the time for the first head.",
        HeaderTimeout = "header_timeout": "A head was not whole within `timeouts.header`.",
        PlainHttpOnTls = "plain_http_on_tls": "HTTP without TLS where TLS is spoken.",
        ProxyProtocolUntrusted = "proxy_protocol_untrusted": "A stranger sent a header of the PROXY protocol.",
        ProxyProtocolMissing = "proxy_protocol_missing": "A load balancer sent none where it must.",
        ProxyProtocolMalformed = "proxy_protocol_malformed": "A load balancer sent one that is none.",
        ProxyProtocolTimeout = "proxy_protocol_timeout": "One was not whole within `timeouts.header`.",
        UnknownName = "unknown_name": "A handshake asked for a name that nothing is relayed for.",
        NoTls = "no_tls": "No TLS on a connection that is relayed by its name.",
        HelloTooLong = "hello_too_long": "The first message of a handshake is too long to be looked at.",
        HelloTimeout = "hello_timeout": "One was not whole within `timeouts.handshake`.",
        H2Resets = "h2_resets": "A client of HTTP/2 resets too many streams.",
        H2EmptyFrames = "h2_empty_frames": "A client of HTTP/2 sends too many frames with nothing in them.",
        H2IdleFrames = "h2_idle_frames": "A client of HTTP/2 sends too many frames that ask for nothing.",
    }
}

impl Reason {
    /// Whether somebody may ask why.
    pub fn is_failure(self) -> bool {
        self.class() != Class::Good
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().find(|reason| reason.as_str() == word);
        known.copied().ok_or_else(|| D::Error::custom(format!("no reason: {word:?}")))
    }
}

impl JsonSchema for Reason {
    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<_> = Self::ALL.iter().map(|reason| reason.as_str()).collect();
        json_schema!({ "description": "Why a request ended.", "type": "string", "enum": words })
    }
}

/// How often requests ended for each reason, in the order of [`Reason::ALL`].
static COUNTS: LazyLock<Vec<Counter>> =
    LazyLock::new(|| Reason::ALL.iter().map(|_| Counter::default()).collect());

/// Counts the end of a request.
pub fn count(reason: Reason) {
    COUNTS[reason as usize].increment();
}

/// How often requests ended for each reason that there was one for.
pub fn counts() -> impl Iterator<Item = (Reason, u64)> {
    let counts = Reason::ALL.iter().zip(&*COUNTS).map(|(reason, count)| (*reason, count.get()));
    counts.filter(|(_, count)| 0 < *count)
}

/// Writes how requests ended; what never happened is left out, but for `ok`.
pub fn collect(page: &mut Page) {
    let mut ends = page.family(&ENDS);
    for (reason, count) in Reason::ALL.iter().zip(&*COUNTS) {
        let count = count.get();
        if 0 < count || *reason == Reason::Ok {
            ends.add([reason.as_str()], count);
        }
    }
}

/// The manual of all reasons: what `docs/reasons.md` is.
pub fn manual() -> String {
    let mut text = String::from(
        "# Why requests end\n\n\
         Every request ends for one reason of this list: `reason` in the access log, \
         `crestline_request_ends_total` in the metrics; refused connections and malformed heads \
         also in `crestline_refused_total` and under `refused` in `crestline status`.\n\
         This page is made of the list in `src/reason.rs`.\n",
    );
    for (title, help, reasons) in MANUAL {
        // Writing to memory cannot fail.
        let _ = write!(text, "\n## {title}\n\n{help}\n\n| reason | cause |\n| --- | --- |\n");
        for (reason, cause) in *reasons {
            let _ = writeln!(text, "| `{reason}` | {cause} |");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_one_word_of_its_own() {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.as_str().bytes().all(plain), "{reason}");
            let others = Reason::ALL[..index].iter();
            assert!(others.into_iter().all(|other| other.as_str() != reason.as_str()), "{reason}");
        }
    }

    #[test]
    fn a_count_is_shown_under_its_word() {
        count(Reason::QueueTimeout);
        let mut page = Page::default();
        collect(&mut page);
        let text = page.finish();
        assert!(text.contains("crestline_request_ends_total{reason=\"queue_timeout\"}"), "{text}");
        assert!(!text.contains("reason=\"tls_expired\""), "it never happened here: {text}");
    }
}

//! Why a client's bytes are refused before Pingora sees them.
//!
//! The contract of the guards of this floor: each of them answers with one of the words below.
//! The words are the labels of a metric, so there are no others and they do not change.

/// Why a request is refused: the status that it gets, and one stable word for logs and metrics.
///
/// The connection closes after every one of them, because its framing can no longer be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: u16,
    /// The word, in `snake_case`.
    pub reason: &'static str,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $status:literal $reason:literal;)+) => {
        impl Refusal {
            $($(#[$doc])* pub const $name: Self = Self { status: $status, reason: $reason };)+

            /// Lists every refusal, so that a metric can prepare its labels.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
        }
    };
}

refusals! {
    /// A line ends with LF alone (RFC 9112 §2.2 allows it, and smuggling lives on it).
    BARE_LINE_FEED = 400 "bare_line_feed";
    /// A CR that no LF follows (RFC 9112 §2.2).
    BARE_CARRIAGE_RETURN = 400 "bare_carriage_return";
    /// A NUL in a field value.
    NUL_BYTE = 400 "nul_byte";
    /// Another control byte in a field value.
    CONTROL_BYTE = 400 "control_byte";
    /// More than one blank line before the request line.
    LEADING_BLANK_LINES = 400 "leading_blank_lines";

    /// The method is not a token.
    BAD_METHOD = 400 "bad_method";
    /// The method is longer than any that we know of.
    METHOD_TOO_LONG = 501 "method_too_long";
    /// `CONNECT`: this is no forward proxy.
    CONNECT_METHOD = 405 "connect_method";
    /// `TRACE` would show a client the fields that we add.
    TRACE_METHOD = 405 "trace_method";
    /// The parts of the request line are not separated by single spaces.
    BAD_REQUEST_LINE = 400 "bad_request_line";
    /// A byte that no URI holds, or one that Pingora would escape or drop.
    BAD_TARGET = 400 "bad_target";
    /// A backslash in the path, which some origins read as a slash.
    TARGET_BACKSLASH = 400 "target_backslash";
    /// A `#` in the target, which Pingora would cut off.
    TARGET_FRAGMENT = 400 "target_fragment";
    /// The target is over its limit.
    TARGET_TOO_LONG = 414 "target_too_long";
    /// The target is neither a path, nor a URI, nor `*`.
    BAD_TARGET_FORM = 400 "bad_target_form";
    /// A URI whose scheme is not `http` or `https`.
    UNSUPPORTED_SCHEME = 400 "unsupported_scheme";
    /// `*` with a method other than `OPTIONS`.
    ASTERISK_TARGET = 400 "asterisk_target";
    /// A request line without a version: HTTP/0.9.
    MISSING_VERSION = 400 "missing_version";
    /// The version is misspelt.
    BAD_VERSION = 400 "bad_version";
    /// A version that is not ours to speak here.
    UNSUPPORTED_VERSION = 505 "unsupported_version";

    /// The head is over its limit.
    HEAD_TOO_LARGE = 431 "head_too_large";
    /// The head has too many fields.
    TOO_MANY_FIELDS = 431 "too_many_fields";
    /// A field line that begins with white space (RFC 9112 §5.2).
    OBS_FOLD = 400 "obs_fold";
    /// White space in a field's name, or after it (RFC 9112 §5.1).
    SPACE_BEFORE_COLON = 400 "space_before_colon";
    /// A field line without a colon.
    MISSING_COLON = 400 "missing_colon";
    /// A field line that begins with its colon.
    EMPTY_FIELD_NAME = 400 "empty_field_name";
    /// A field's name is not a token.
    BAD_FIELD_NAME = 400 "bad_field_name";

    /// HTTP/1.1 without `Host`.
    MISSING_HOST = 400 "missing_host";
    /// `Host` twice, even if both agree.
    DUPLICATE_HOST = 400 "duplicate_host";
    /// `Host`, or the authority of the target, is no host with an optional port.
    BAD_HOST = 400 "bad_host";
    /// `Host` names another host than the target.
    HOST_MISMATCH = 400 "host_mismatch";
    /// `Content-Length` is not one decimal number below 2^64.
    BAD_CONTENT_LENGTH = 400 "bad_content_length";
    /// `Content-Length` twice, even if both agree.
    DUPLICATE_CONTENT_LENGTH = 400 "duplicate_content_length";
    /// `Content-Length` beside `Transfer-Encoding`.
    LENGTH_WITH_ENCODING = 400 "length_with_encoding";
    /// `Transfer-Encoding` twice.
    DUPLICATE_TRANSFER_ENCODING = 400 "duplicate_transfer_encoding";
    /// `Transfer-Encoding` is malformed, or `chunked` is not last in it.
    BAD_TRANSFER_ENCODING = 400 "bad_transfer_encoding";
    /// A transfer coding other than `chunked`.
    UNKNOWN_TRANSFER_CODING = 501 "unknown_transfer_coding";
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 §6.1).
    TRANSFER_ENCODING_IN_HTTP_10 = 400 "transfer_encoding_in_http_10";
    /// `Authorization` twice: origins differ in which they believe.
    DUPLICATE_AUTHORIZATION = 400 "duplicate_authorization";

    /// A chunk's size is not one to sixteen hexadecimal digits.
    BAD_CHUNK_SIZE = 400 "bad_chunk_size";
    /// A control byte in a chunk extension.
    BAD_CHUNK_EXTENSION = 400 "bad_chunk_extension";
    /// The extensions of all chunks together are over their limit.
    CHUNK_EXTENSIONS_TOO_LARGE = 400 "chunk_extensions_too_large";
    /// A chunk's data is not followed by CRLF.
    BAD_CHUNK_END = 400 "bad_chunk_end";
    /// The trailer section is over its limit.
    TRAILERS_TOO_LARGE = 431 "trailers_too_large";
}

impl Refusal {
    /// Refuses if the condition holds.
    pub(crate) fn when(self, condition: bool) -> Result<(), Self> {
        if condition { Err(self) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_snake_case_and_used_once() {
        for (i, refusal) in Refusal::ALL.iter().enumerate() {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(refusal.reason.bytes().all(plain), "{refusal:?}");
            assert!((400..600).contains(&refusal.status), "{refusal:?}");
            assert!(Refusal::ALL[..i].iter().all(|other| other.reason != refusal.reason));
        }
    }
}

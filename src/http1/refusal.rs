//! Why a client's bytes are refused before Pingora sees them.
//!
//! The contract of the guards of this floor: each of them answers with one of the refusals below.

use crate::reason::Reason;

/// Why a request is refused: the status that it gets, and the reason for logs and metrics.
///
/// The connection closes after every one of them, because its framing can no longer be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: u16,
    /// Why, in one word.
    pub reason: Reason,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $status:literal $Reason:ident;)+) => {
        impl Refusal {
            $($(#[$doc])* pub const $name: Self = Self { status: $status, reason: Reason::$Reason };)+

            /// Lists every refusal, so that a metric can prepare its labels.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
        }
    };
}

refusals! {
    /// A line ends with LF alone (RFC 9112 §2.2 allows it, and smuggling lives on it).
    BARE_LINE_FEED = 400 BareLineFeed;
    /// A CR that no LF follows (RFC 9112 §2.2).
    BARE_CARRIAGE_RETURN = 400 BareCarriageReturn;
    /// A NUL in a field value.
    NUL_BYTE = 400 NulByte;
    /// Another control byte in a field value.
    CONTROL_BYTE = 400 ControlByte;
    /// More than one blank line before the request line.
    LEADING_BLANK_LINES = 400 LeadingBlankLines;

    /// The method is not a token.
    BAD_METHOD = 400 BadMethod;
    /// The method is longer than any that we know of.
    METHOD_TOO_LONG = 501 MethodTooLong;
    /// `CONNECT`: this is no forward proxy.
    CONNECT_METHOD = 405 ConnectMethod;
    /// `TRACE` would show a client the fields that we add.
    TRACE_METHOD = 405 TraceMethod;
    /// The parts of the request line are not separated by single spaces.
    BAD_REQUEST_LINE = 400 BadRequestLine;
    /// A byte that no URI holds, or one that Pingora would escape or drop.
    BAD_TARGET = 400 BadTarget;
    /// A backslash in the path, which some origins read as a slash.
    TARGET_BACKSLASH = 400 TargetBackslash;
    /// A `#` in the target, which Pingora would cut off.
    TARGET_FRAGMENT = 400 TargetFragment;
    /// The target is over its limit.
    TARGET_TOO_LONG = 414 TargetTooLong;
    /// The target is neither a path, nor a URI, nor `*`.
    BAD_TARGET_FORM = 400 BadTargetForm;
    /// A URI whose scheme is not `http` or `https`.
    UNSUPPORTED_SCHEME = 400 UnsupportedScheme;
    /// `*` with a method other than `OPTIONS`.
    ASTERISK_TARGET = 400 AsteriskTarget;
    /// A request line without a version: HTTP/0.9.
    MISSING_VERSION = 400 MissingVersion;
    /// The version is misspelt.
    BAD_VERSION = 400 BadVersion;
    /// A version that is not ours to speak here.
    UNSUPPORTED_VERSION = 505 UnsupportedVersion;

    /// The head is over its limit.
    HEAD_TOO_LARGE = 431 HeadTooLarge;
    /// The head has too many fields.
    TOO_MANY_FIELDS = 431 TooManyFields;
    /// A field line that begins with white space (RFC 9112 §5.2).
    OBS_FOLD = 400 ObsFold;
    /// White space in a field's name, or after it (RFC 9112 §5.1).
    SPACE_BEFORE_COLON = 400 SpaceBeforeColon;
    /// A field line without a colon.
    MISSING_COLON = 400 MissingColon;
    /// A field line that begins with its colon.
    EMPTY_FIELD_NAME = 400 EmptyFieldName;
    /// A field's name is not a token.
    BAD_FIELD_NAME = 400 BadFieldName;

    /// HTTP/1.1 without `Host`.
    MISSING_HOST = 400 MissingHost;
    /// `Host` twice, even if both agree.
    DUPLICATE_HOST = 400 DuplicateHost;
    /// `Host`, or the authority of the target, is no host with an optional port.
    BAD_HOST = 400 BadHost;
    /// `Host` names another host than the target.
    HOST_MISMATCH = 400 HostMismatch;
    /// `Content-Length` is not one decimal number below 2^64.
    BAD_CONTENT_LENGTH = 400 BadContentLength;
    /// `Content-Length` twice, even if both agree.
    DUPLICATE_CONTENT_LENGTH = 400 DuplicateContentLength;
    /// `Content-Length` beside `Transfer-Encoding`.
    LENGTH_WITH_ENCODING = 400 LengthWithEncoding;
    /// `Transfer-Encoding` twice.
    DUPLICATE_TRANSFER_ENCODING = 400 DuplicateTransferEncoding;
    /// `Transfer-Encoding` is malformed, or `chunked` is not last in it.
    BAD_TRANSFER_ENCODING = 400 BadTransferEncoding;
    /// A transfer coding other than `chunked`.
    UNKNOWN_TRANSFER_CODING = 501 UnknownTransferCoding;
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 §6.1).
    TRANSFER_ENCODING_IN_HTTP_10 = 400 TransferEncodingInHttp10;
    /// `Authorization` twice: origins differ in which they believe.
    DUPLICATE_AUTHORIZATION = 400 DuplicateAuthorization;

    /// A chunk's size is not one to sixteen hexadecimal digits.
    BAD_CHUNK_SIZE = 400 BadChunkSize;
    /// A control byte in a chunk extension.
    BAD_CHUNK_EXTENSION = 400 BadChunkExtension;
    /// The extensions of all chunks together are over their limit.
    CHUNK_EXTENSIONS_TOO_LARGE = 400 ChunkExtensionsTooLarge;
    /// A chunk's data is not followed by CRLF.
    BAD_CHUNK_END = 400 BadChunkEnd;
    /// The trailer section is over its limit.
    TRAILERS_TOO_LARGE = 431 TrailersTooLarge;
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
    fn every_refusal_has_an_error_status_and_a_reason_of_its_own() {
        for (i, refusal) in Refusal::ALL.iter().enumerate() {
            assert!((400..600).contains(&refusal.status), "{refusal:?}");
            assert!(Refusal::ALL[..i].iter().all(|other| other.reason != refusal.reason));
        }
    }
}

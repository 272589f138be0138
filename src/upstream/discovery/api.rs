//! What the sources that ask an API have in common: the keys to reach it, and a bounded question.

use std::{path::Path, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    client::{
        answer::Answer,
        endpoint::{Endpoint, Files, NoEndpoint},
        roots::Roots,
    },
    diagnostic::{Problem, Problems},
    upstream::discovery::source::Failure,
    yaml::{self, Spanned},
};

/// How long a question may take that is answered at once, and how long the body of any answer.
pub const WITHIN: Duration = Duration::from_secs(10);
/// The largest answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// The largest answer that is an error, and so many letters of it are told.
const ERROR_BYTES_MAX: usize = 64 << 10;
const TOLD_MAX: usize = 200;

/// The URL of an API.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "ApiUrl", example = &"https://127.0.0.1:8501", example = &"unix:/run/docker.sock")]
#[schemars(extend("pattern" = r"^(https?://[^/?#@]+/?|unix:/.*)$"))]
pub struct Url(pub Endpoint);

impl FromStr for Url {
    type Err = NoEndpoint;

    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        text.parse().map(Self)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a URL such as `http://127.0.0.1:8500`")
    }
}

/// TLS toward an API at an `https://` URL. Its files are read again for each connection.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ApiTls")]
pub struct TlsConfig {
    /// A file of certificates in PEM: the API must be vouched for by one of them.
    /// Default: those that the system trusts.
    pub ca: Option<Spanned<String>>,
    /// A file with the certificate that the API is shown, in PEM. Default: none.
    pub cert: Option<Spanned<String>>,
    /// The file with its key. Default: none.
    pub key: Option<Spanned<String>>,
}

impl TlsConfig {
    /// Reads the files once, to tell what is wrong with them; `None` if something is.
    pub fn build(
        written: Option<&Spanned<Self>>,
        endpoints: &[Endpoint],
        folder: &Path,
        problems: &mut Problems,
    ) -> Option<Files> {
        let Some(Spanned { value: tls, span }) = written else { return Some(Files::default()) };
        if !endpoints.iter().any(Endpoint::is_tls) {
            let problem = Problem::error("`tls` does nothing without an `https://` URL").at(*span);
            problems.push(problem.help("write `https://` if the API speaks TLS, or remove `tls`"));
            return None;
        }
        if let Some(ca) = &tls.ca {
            let read = Roots::of_file(&folder.join(&ca.value), ca, "the API", ca.span);
            read.map_err(|problem| problems.push(problem)).ok()?;
        }
        let own = match (&tls.cert, &tls.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((folder.join(&cert.value), folder.join(&key.value))),
            (Some(half), None) | (None, Some(half)) => {
                let problem = Problem::error("`cert` and `key` need each other").at(half.span);
                problems.push(problem.help("name both files, or none"));
                return None;
            }
        };
        let files = Files { ca: tls.ca.as_ref().map(|ca| folder.join(&ca.value)), own };
        if let (Some(cert), Err(why)) = (&tls.cert, files.config()) {
            let problem = Problem::error(format!("`{cert}` cannot be shown: {why}")).at(cert.span);
            let help = "name a certificate and the key that belongs to it, in PEM";
            problems.push(problem.help(help));
            return None;
        }
        Some(files)
    }
}

/// An API and how it is reached.
pub struct Api {
    /// Where it is, at least one.
    endpoints: Vec<Endpoint>,
    files: Files,
    /// Which one is asked now.
    current: usize,
}

impl Api {
    /// An API at the first of these places that answers.
    pub fn new(endpoints: Vec<Endpoint>, files: Files) -> Self {
        Self { endpoints, files, current: 0 }
    }

    /// Where it is, as the operator wrote it.
    pub fn place(&self) -> &Endpoint {
        &self.endpoints[0]
    }

    /// Asks; the head of the answer must come in time.
    pub async fn ask(
        &self,
        question: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Answer, Failure> {
        let endpoint = &self.endpoints[self.current];
        let answer = endpoint.ask(question, &self.files, within).await;
        answer.map_err(|why| Failure(format!("{endpoint}: {why}")))
    }

    /// Says that the next place is to be asked, since this one failed.
    pub fn move_on(&mut self) {
        self.current = (self.current + 1) % self.endpoints.len();
    }
}

/// A question, with a body in JSON unless it is empty, and a field that no log may show.
pub fn question(
    method: Method,
    path: &str,
    secret: Option<(&'static str, String)>,
    body: impl Into<Bytes>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let wrong = || Failure(format!("a question for `{path}` cannot be asked"));
    let body = body.into();
    let json = HeaderValue::from_static("application/json");
    let has_body = !body.is_empty();
    let question = Request::builder().method(method).uri(path).body(Full::new(body));
    let mut question = question.map_err(|_| wrong())?;
    let fields = question.headers_mut();
    if has_body {
        fields.insert(header::CONTENT_TYPE, json.clone());
    }
    fields.insert(header::ACCEPT, json);
    if let Some((name, value)) = secret {
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        fields.insert(name, value);
    }
    Ok(question)
}

/// Reads an answer that must be good, as JSON.
pub async fn json<T: DeserializeOwned>(answer: Answer) -> Result<T, Failure> {
    if answer.status != StatusCode::OK {
        return Err(refused(answer).await);
    }
    let body = answer.whole(ANSWER_BYTES_MAX, WITHIN).await.map_err(Failure)?;
    serde_json::from_slice(&body)
        .map_err(|why| Failure(format!("an answer is not as expected: {why}")))
}

/// What an answer says that is an error.
pub async fn refused(answer: Answer) -> Failure {
    let status = answer.status;
    let body = answer.whole(ERROR_BYTES_MAX, WITHIN).await.unwrap_or_default();
    Failure(refusal(status, &body))
}

/// The status, and what is said beside it: the `message` of an answer in JSON, or its text.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let told: Option<Value> = serde_json::from_slice(body).ok();
    let message = told.as_ref().and_then(|told| Some(told.get("message")?.as_str()?.to_owned()));
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let text: String = text.trim().chars().filter(|it| !it.is_control()).take(TOLD_MAX).collect();
    let text = if text.is_empty() { text } else { format!(": {text}") };
    format!("the answer was {status}{text}")
}

/// Escapes a text for any part of a URL.
pub fn escaped(text: &str) -> String {
    // In a query `+` would do for a space, in a path it would not.
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_api_refuses_with_is_told_in_short_and_without_line_breaks() {
        let told = |body: &str| refusal(StatusCode::FORBIDDEN, body.as_bytes());
        let status = r#"{"kind":"Status","message":"endpointslices is forbidden","code":403}"#;
        assert_eq!(told(status), "the answer was 403 Forbidden: endpointslices is forbidden");
        assert_eq!(told("ACL not found\n"), "the answer was 403 Forbidden: ACL not found");
        assert_eq!(told("a\r\nb"), "the answer was 403 Forbidden: ab");
        assert_eq!(told(""), "the answer was 403 Forbidden");
        assert!(told(&"x".repeat(10_000)).len() < 300);
    }

    #[test]
    fn what_is_secret_in_a_question_is_shown_nowhere() {
        let secret = ("x-consul-token", "opensesame".to_owned());
        let question_of = |secret| question(Method::GET, "/v1/a%20b?c=d", Some(secret), "");
        let asked = question_of(secret).unwrap();
        assert_eq!(asked.headers()["x-consul-token"], "opensesame");
        assert!(!format!("{asked:?}").contains("opensesame"));
        let why = question_of(("x-consul-token", "open\nsesame".to_owned())).unwrap_err();
        assert_eq!(why.to_string(), "a question for `/v1/a%20b?c=d` cannot be asked");
    }

    #[test]
    fn a_text_is_escaped_for_paths_and_queries_alike() {
        assert_eq!(escaped("a b+c/d&e=ü"), "a%20b%2Bc%2Fd%26e%3D%C3%BC");
    }
}

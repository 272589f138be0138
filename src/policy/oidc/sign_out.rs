//! Signing out: the browser forgets its session, and is sent to the provider, if that can be told.

use form_urlencoded::Serializer;
use http::{
    HeaderName, HeaderValue,
    header::{LOCATION, ORIGIN, REFERER, SET_COOKIE},
};

use crate::{
    policy::{
        contract::{Facts, Flow, Request},
        oidc::{Policy, sign_in::never_kept},
    },
    reason::Reason,
    reply::Reply,
};

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets a browser forget its session, if a page of this site asks for that.
pub(super) fn answer(policy: &Policy, request: &mut Request<'_>) -> Flow {
    let facts = &request.facts;
    if !is_own(policy, facts) {
        request.notes.reason = Some(Reason::CrossSite);
        return Flow::Respond(never_kept(Reply::status(403)));
    }
    let after = policy.absolute(facts, &policy.after_sign_out);
    let known = policy.party.provider.last();
    let place = match known.as_ref().and_then(|known| known.end_session.as_deref()) {
        None => after,
        Some(place) => {
            let mut query = Serializer::new(String::new());
            query
                .append_pair("client_id", &policy.party.id)
                .append_pair("post_logout_redirect_uri", &after);
            let separator = if place.contains('?') { '&' } else { '?' };
            format!("{place}{separator}{}", query.finish())
        }
    };
    let mut reply = Reply::status(303);
    reply.fields.extend(HeaderValue::try_from(place).ok().map(|place| (LOCATION, place)));
    let forgotten = policy.cookies.forget(facts).into_iter();
    reply.fields.extend(forgotten.map(|field| (SET_COOKIE, field)));
    request.notes.reason = Some(Reason::SignedOut);
    Flow::Respond(never_kept(reply))
}

/// Whether a page of this site asks, or the reader alone: another could sign people out by showing
/// a picture.
fn is_own(policy: &Policy, facts: &Facts<'_>) -> bool {
    let headers = facts.headers();
    if let Some(site) = headers.get(&SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let told = headers.get(ORIGIN).or_else(|| headers.get(REFERER));
    let own = policy.absolute(facts, "");
    told.and_then(|told| told.to_str().ok()).is_some_and(|told| {
        let rest = told.get(..own.len()).filter(|start| start.eq_ignore_ascii_case(&own));
        rest.is_some() && matches!(told.as_bytes().get(own.len()), None | Some(b'/' | b'?'))
    })
}

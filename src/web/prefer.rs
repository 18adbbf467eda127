//! The header `Prefer: wait=S` (RFC 7240): a client that would rather wait than ask again.

use std::time::Duration;

use rocket::Request;
use rocket::response::{self, Responder};

/// What the description of the API says of the header.
pub(super) const WAIT: &str = "`wait=S`: hold the reply until the model has ended, or for S seconds, 60 at most.";
/// Longest wait, in seconds; who asks for more gets so much.
const LONGEST: u64 = 60;

/// What the client prefers. What it asks for and nobody understands is ignored, as the RFC says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefer {
    /// Seconds.
    wait: Option<u64>,
}

impl Prefer {
    /// How long the reply may be held back.
    pub(super) fn wait(self) -> Option<Duration> {
        self.wait.map(Duration::from_secs)
    }

    /// `reply`, which says what was preferred.
    pub(super) fn applied_to<R>(self, reply: R) -> Preferred<R> {
        Preferred { reply, applied: self }
    }

    /// What `request` says.
    pub(super) fn of(request: &Request<'_>) -> Self {
        Self::read(request.headers().get("Prefer"))
    }

    fn read<'a>(headers: impl Iterator<Item = &'a str>) -> Self {
        let preferences = headers.flat_map(|header| header.split(',')).filter_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            Some((name.trim(), value.trim().trim_matches('"')))
        });
        // Of a preference that is stated twice, only the first counts.
        let first = preferences.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("wait"));
        let seconds = first
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()));
        // What is too large for a number is longer than the longest.
        Self { wait: seconds.map(|seconds| seconds.parse().unwrap_or(LONGEST).min(LONGEST)) }
    }
}

/// A reply with `Preference-Applied`.
pub(super) struct Preferred<R> {
    reply: R,
    applied: Prefer,
}

impl<'r, 'o: 'r, R: Responder<'r, 'o>> Responder<'r, 'o> for Preferred<R> {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'o> {
        let mut response = self.reply.respond_to(request)?;
        if let Some(seconds) = self.applied.wait {
            response.set_raw_header("Preference-Applied", format!("wait={seconds}"));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_found_among_other_preferences_and_nonsense_is_ignored() {
        let cases: [(&[&str], Option<u64>); 14] = [
            (&[], None),
            (&["wait=10"], Some(10)),
            (&["WAIT = \"7\""], Some(7)),
            (&["respond-async, wait=5; foo=bar, wait=9"], Some(5)),
            (&["handling=lenient", "wait=3"], Some(3)),
            (&["wait=0"], Some(0)),
            (&["wait=61"], Some(60)),
            (&["wait=99999999999999999999999"], Some(60)),
            (&["wait"], None),
            (&["wait="], None),
            (&["wait=-1"], None),
            (&["wait=1.5"], None),
            (&["wait=soon, wait=5"], None),
            (&["waits=5"], None),
        ];
        for (headers, wait) in cases {
            assert_eq!(Prefer::read(headers.iter().copied()).wait, wait, "{headers:?}");
        }
    }
}

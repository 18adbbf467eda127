//! The error replies as the description of the API tells of them. Handlers name them beside their successes:
//! `responses((status = 200, ..), error::NotFound, error::Usual)`.

use std::collections::BTreeMap;

use rocket::http::Status;
use serde_json::json;
use utoipa::IntoResponses;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::Header;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Components, Object, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};

/// An error reply.
struct Described {
    status: Status,
    /// Its name among the components of the description.
    name: &'static str,
    meaning: &'static str,
    /// Its codes, each with a sentence that may come with it; none where it has no body.
    codes: &'static [(&'static str, &'static str)],
    /// A header that it carries, and what that says.
    header: Option<(&'static str, Type, &'static str)>,
}

const BAD_REQUEST: Described = Described {
    status: Status::BadRequest,
    name: "BadRequest",
    meaning: "The body is not what its content type says, or it broke off, or a header is malformed.",
    codes: &[("bad_request", "the body is not valid JSON: expected value at line 1 column 9")],
    header: None,
};
const UNAUTHORIZED: Described = Described {
    status: Status::Unauthorized,
    name: "Unauthorized",
    meaning: "API keys are in use, and the request carries none that is known.",
    codes: &[("unauthorized", "the API key is not known, or was revoked")],
    header: Some(("WWW-Authenticate", Type::String, "How to authenticate: `Bearer realm=\"ridgeline\"`.")),
};
const NOT_FOUND: Described = Described {
    status: Status::NotFound,
    name: "NotFound",
    meaning: "There is no such thing, or it belongs to another key.",
    codes: &[("not_found", "there is no model 17")],
    header: None,
};
const METHOD_NOT_ALLOWED: Described = Described {
    status: Status::MethodNotAllowed,
    name: "MethodNotAllowed",
    meaning: "The path has other methods: what a request with a method gets that is not described here.",
    codes: &[("method_not_allowed", "/train does not take GET")],
    header: Some(("Allow", Type::String, "The methods of the path, separated by commas.")),
};
const TIMEOUT: Described = Described {
    status: Status::RequestTimeout,
    name: "Timeout",
    meaning: "The body stalled or crawled. Nothing was stored; the connection is closed.",
    codes: &[("timeout", "the body stalled before its first bytes")],
    header: Some(("Connection", Type::String, "`close`")),
};
const NOT_TRAINED: Described = Described {
    status: Status::Conflict,
    name: "NotTrained",
    meaning: "The model has no coefficients, yet or for good.",
    codes: &[("not_trained", "model 17 is not trained: its status is queued")],
    header: None,
};
const HAS_ENDED: Described = Described {
    status: Status::Conflict,
    name: "HasEnded",
    meaning: "The model has ended, and cannot be cancelled any more.",
    codes: &[("has_ended", "model 17 cannot be cancelled: its status is trained")],
    header: None,
};
const NEEDED: Described = Described {
    status: Status::Conflict,
    name: "Needed",
    meaning: "A model that is queued or training needs the dataset.",
    codes: &[("needed", "dataset 3 cannot be deleted yet: model 17 is to be trained on it")],
    header: None,
};
const TOO_LARGE: Described = Described {
    status: Status::PayloadTooLarge,
    name: "TooLarge",
    meaning: "The body is larger than the limit, which the sentence names.",
    codes: &[("too_large", "the body is larger than the limit of 1GiB (1073741824 bytes)")],
    header: None,
};
const ADDRESS_TOO_LONG: Described = Described {
    status: Status::UriTooLong,
    name: "AddressTooLong",
    meaning: "The path with its query string is longer than 65,534 bytes: the HTTP library's own reply, without a body.",
    codes: &[],
    header: None,
};
const HEAD_TOO_LARGE: Described = Described {
    status: Status::RequestHeaderFieldsTooLarge,
    name: "HeadTooLarge",
    meaning: "The headers are more than a hundred, or too long: the HTTP library's own reply, without a body.",
    codes: &[],
    header: None,
};
const UNSUPPORTED_MEDIA_TYPE: Described = Described {
    status: Status::UnsupportedMediaType,
    name: "UnsupportedMediaType",
    meaning: "The call does not take a body of this type, character set or encoding.",
    codes: &[(
        "unsupported_media_type",
        "the body must be of Content-Type application/json or text/csv, in UTF-8, but the request names none",
    )],
    header: Some(("Accept-Encoding", Type::String, "The encodings that bodies may have besides none: `gzip`.")),
};
const INVALID: Described = Described {
    status: Status::UnprocessableEntity,
    name: "Invalid",
    meaning: "Understood but wrong: a field, a line and column of the CSV, a parameter. Nothing was stored.",
    codes: &[
        ("invalid", "data: line 3, column \"b\": the cell is empty"),
        ("key_reused", "Idempotency-Key: the key belongs to a request that asked for something else"),
    ],
    header: None,
};
const INTERNAL: Described = Described {
    status: Status::InternalServerError,
    name: "Internal",
    meaning: "A bug; the service's log has its cause under the reply's X-Request-Id.",
    codes: &[("internal", super::INTERNAL)],
    header: None,
};
const UNAVAILABLE: Described = Described {
    status: Status::ServiceUnavailable,
    name: "Unavailable",
    meaning: "It will pass: the database is away or overloaded, the queue is full, or large bodies take all the memory that \
              they may.",
    codes: &[
        ("unavailable", "the database is not available at the moment; try again soon"),
        ("queue_full", "the queue is full: 10000 trainings are waiting; try again later"),
        ("too_many_uploads", "large uploads take all of the 2GiB that they may at the moment; try again soon"),
    ],
    header: Some(("Retry-After", Type::Integer, "Seconds after which to try again.")),
};

impl Described {
    /// The reply as one of the components, for [`Self::reference`].
    fn response(&self) -> Response {
        let example = |&(code, sentence): &(&str, &str)| {
            let example = ExampleBuilder::new().value(Some(json!({"error": sentence, "code": code}))).build();
            (code.to_owned(), example)
        };
        let mut response = ResponseBuilder::new().description(self.meaning);
        if !self.codes.is_empty() {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("ErrorBody")))
                .examples_from_iter(self.codes.iter().map(example))
                .build();
            response = response.content("application/json", content);
        }
        if let Some((name, kind, meaning)) = &self.header {
            let mut header = Header::new(Object::with_type(kind.clone()));
            header.description = Some((*meaning).to_owned());
            response = response.header(*name, header);
        }
        response.build()
    }

    fn reference(&self) -> (String, RefOr<Response>) {
        (self.status.code.to_string(), Ref::from_response_name(self.name).into())
    }
}

/// Adds every error reply to the components of the description.
pub(in crate::web) fn describe(components: &mut Components) {
    let all = [
        BAD_REQUEST,
        UNAUTHORIZED,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        TIMEOUT,
        NOT_TRAINED,
        HAS_ENDED,
        NEEDED,
        TOO_LARGE,
        ADDRESS_TOO_LONG,
        HEAD_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        INVALID,
        INTERNAL,
        UNAVAILABLE,
    ];
    components.responses.extend(all.map(|described| (described.name.to_owned(), described.response().into())));
}

/// Types that stand for error replies in the annotations of handlers.
macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident: $($described:ident),+;)+) => {$(
        $(#[$doc])*
        pub(in crate::web) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                BTreeMap::from([$($described.reference()),+])
            }
        }
    )+};
}

replies! {
    /// What every call may be answered.
    Always: ADDRESS_TOO_LONG, HEAD_TOO_LARGE, INVALID, INTERNAL;
    /// What every call may be answered that asks the database.
    Usual: UNAUTHORIZED, ADDRESS_TOO_LONG, HEAD_TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE;
    /// What health calls may be answered: nobody needs a key for them.
    NotReady: ADDRESS_TOO_LONG, HEAD_TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE;
    /// What every call with a body may be answered.
    OfBody: BAD_REQUEST, TIMEOUT, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID;
    /// No such model, or dataset.
    NotFound: NOT_FOUND;
    /// A field or a parameter is wrong.
    Invalid: INVALID;
    /// The model has no coefficients.
    NotTrained: NOT_TRAINED;
    /// The model cannot be cancelled.
    HasEnded: HAS_ENDED;
    /// The dataset cannot be deleted.
    Needed: NEEDED;
}

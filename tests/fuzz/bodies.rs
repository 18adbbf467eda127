//! Any bytes as the body of a call, through the routes and a real database.

use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use diesel::pg::PgConnection;
use ridgeline::config::{Config, DatabaseUrl};
use ridgeline::db::{self, Pool};
use ridgeline::model_cache::ModelCache;
use ridgeline::postgres::{Keep, PrivatePostgres, Settings};
use ridgeline::queue::{self, Wanted};
use ridgeline::ridge::{Control, Threads};
use ridgeline::training::{self, StoredRows};
use ridgeline::watch::Watch;
use ridgeline::web;
use rocket::figment::Figment;
use rocket::http::{ContentType, Header, Method, Status};
use rocket::local::blocking::{Client, LocalResponse};
use serde_json::Value;

/// The calls, by the first byte of the input: `a`, `b` and so on. `?` stands for the rest as a query string.
const CALLS: [(&str, &str, &str); 12] = [
    ("/train", "application/json", ""),
    ("/train?target=a&n_folds=2", "text/csv", ""),
    ("/datasets", "application/json", ""),
    ("/datasets", "text/csv", ""),
    ("/datasets", "multipart/form-data; boundary=X", ""),
    ("/model/1/predict", "application/json", ""),
    ("/model/1/predict", "text/csv", ""),
    ("/v2/models/1/infer", "application/json", ""),
    ("/v2/models/1/infer", "application/octet-stream", "80"),
    ("/train", "application/json", "gzip"),
    ("/train?", "text/csv", ""),
    ("/models?", "", ""),
];

/// Sends the input, and looks whether the reply is what every reply has to be.
pub(crate) fn run(input: &[u8]) {
    let Some((&first, body)) = input.split_first() else { return };
    let Some((path, content_type, extra)) = CALLS.get(usize::from(first.wrapping_sub(b'a'))) else { return };
    let method = if content_type.is_empty() { Method::Get } else { Method::Post };
    let (uri, body) = match path.strip_suffix('?') {
        Some(_) => (format!("{path}{}", encoded(body)), &b"a,b\n1,2\n3,4\n5,6\n"[..]),
        None => ((*path).to_owned(), body),
    };
    let mut request = client().req(method, uri);
    if !content_type.is_empty() {
        request = request.header(Header::new("Content-Type", *content_type)).body(body);
    }
    request = match *extra {
        "" => request,
        "gzip" => request.header(Header::new("Content-Encoding", "gzip")),
        length => request.header(Header::new("Inference-Header-Content-Length", length)),
    };
    let made = check(request.dispatch());
    // What was made is deleted, so that a long run has room.
    for (field, noun) in [("model_id", "model"), ("dataset_id", "dataset")] {
        if let Some(id) = made[field].as_i64() {
            assert_eq!(client().delete(format!("/{noun}/{id}")).dispatch().status(), Status::NoContent);
        }
    }
}

/// The JSON of the reply, after a look at what holds of all of them.
fn check(response: LocalResponse<'_>) -> Value {
    let status = response.status().code;
    let body = response.into_bytes().unwrap();
    if status == 200 && body.first() != Some(&b'{') {
        panic!("no JSON: {body:?}");
    }
    // An inference may have bytes behind its JSON.
    let json: Value = serde_json::Deserializer::from_slice(&body).into_iter().next().unwrap().unwrap();
    if status >= 400 {
        let (error, code) = (json["error"].as_str().unwrap(), json["code"].as_str().unwrap());
        assert!((400..500).contains(&status), "{status}: {error}");
        assert!(!error.is_empty() && error.len() < 2_000 && !code.is_empty(), "{json}");
    }
    json
}

/// Every byte that is not plain as `%xx`.
fn encoded(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"=&-_.,+".contains(&byte);
    bytes.iter().map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

/// The service with one trained model, number 1 of the columns a, b and c, on a database that ends with this process.
fn client() -> &'static Client {
    thread_local! {
        static CLIENT: &'static Client = Box::leak(Box::new(start()));
    }
    CLIENT.with(|client| *client)
}

fn start() -> Client {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let data_dir = parent.join(format!("ridgeline-fuzz-{}", std::process::id()));
    let server = PrivatePostgres::start(&Settings { data_dir, keep: Keep::Throwaway }).unwrap();
    let url = DatabaseUrl::parse(server.url()).unwrap();
    // It ends with this process.
    std::mem::forget(server);
    let mut conn = db::connect_and_migrate(&url, Duration::ZERO, &AtomicBool::new(false)).unwrap();
    let config = Config::from_sources(Figment::new()).unwrap();
    let pool = Pool::new(&url, 2, Duration::from_secs(5));
    let cache = ModelCache::new(config.models_limit);
    let watch = Watch::start(url, cache.clone()).unwrap();
    let client = Client::untracked(web::rocket(config, pool, watch, cache).unwrap()).unwrap();
    let rows = "a,b,c\n1,0,2\n2.5,1,-1\n3,4,0.5\n0.5,-2,1.5\n";
    let request = client.post("/train?target=a&n_folds=2&seed=1").header(ContentType::CSV);
    assert_eq!(request.body(rows).dispatch().status(), Status::Accepted);
    train(&mut conn);
    client
}

/// Does the work of a worker.
fn train(conn: &mut PgConnection) {
    let wanted = Wanted { done: None, lease: Some(Duration::from_secs(60)), token: 1 };
    let claimed = queue::turn(conn, wanted).unwrap().next.unwrap();
    let (job, rows) = (claimed.job, claimed.rows.unwrap());
    assert_eq!(job.id, 1);
    let control = Control { threads: &Threads::new(1), stop: &AtomicBool::new(false), progress: &|_| {} };
    let trained = {
        let read = |_| Ok(Cow::Borrowed(&rows.cells));
        let stored = StoredRows::new(rows.columns.len(), &[rows.cells.n_cells()], read);
        training::fit(&job.params, &rows.columns, &stored, &control).unwrap()
    };
    let wanted = Wanted { done: Some((&job, &trained)), lease: None, token: 1 };
    assert!(queue::turn(conn, wanted).unwrap().kept);
}

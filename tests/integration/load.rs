//! Many clients at once.

use std::thread;

use serde_json::json;

use crate::support::{Database, Service, example};

#[test]
fn fifty_trainings_and_fifty_predictions_at_once_lose_nothing() {
    let database = Database::new();
    let service = Service::start(&database);
    let model = service.train(&example())["model_id"].clone();
    let expected = service.predict(&model, "b,c\n1,2\n3,4\n");

    let ids: Vec<i64> = thread::scope(|scope| {
        let trainings: Vec<_> = (0..50).map(|_| scope.spawn(|| service.submit(&example()))).collect();
        let predictions: Vec<_> = (0..50).map(|_| scope.spawn(|| service.predict(&model, "b,c\n1,2\n3,4\n"))).collect();
        for prediction in predictions {
            assert_eq!(prediction.join().unwrap(), expected);
        }
        trainings.into_iter().map(|training| training.join().unwrap()).collect()
    });

    for id in &ids {
        assert_eq!(service.ended(*id)["status"], "trained");
    }
    let count = database.value("SELECT count(*) FILTER (WHERE status = 'trained') || ' of ' || count(*) FROM models");
    assert_eq!(json!(count), json!("51 of 51"));
    let log = service.process.log();
    assert!(!log.contains(" ERROR ") && !log.contains(" WARN "), "{log}");
}

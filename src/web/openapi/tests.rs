use std::collections::BTreeSet;

use super::*;
use crate::web::tests::assembled;

/// The description, and every operation in it with its method and path.
fn described() -> (Value, Vec<(String, Value)>) {
    let document = document().unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation.clone()))
    });
    let operations = operations.collect();
    (document, operations)
}

#[test]
fn every_mounted_route_is_described_and_no_other() {
    let (_, operations) = described();
    let described: BTreeSet<String> = operations.into_iter().map(|(call, _)| call).collect();
    let rocket = assembled();
    let mounted = rocket.routes().map(|route| {
        let path = route.uri.path().replace('<', "{").replace('>', "}");
        format!("{} {path}", route.method)
    });
    assert_eq!(described, mounted.collect());
}

#[test]
fn every_call_has_a_name_a_summary_a_tag_a_success_and_examples_of_what_it_takes() {
    let (document, operations) = described();
    let tags: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut names = BTreeSet::new();
    for (call, operation) in &operations {
        assert!(names.insert(operation["operationId"].as_str().unwrap()), "{call}: its name is another's");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{call}: no summary");
        assert!(tags.contains(&&operation["tags"][0]), "{call}: {}", operation["tags"]);
        let replies = operation["responses"].as_object().unwrap();
        assert!(replies.keys().any(|status| status.starts_with('2')), "{call}: no success");
        assert!(replies.contains_key("500"), "{call}: no errors");
        for (status, reply) in replies {
            assert!(!reply["description"].as_str().unwrap_or("a component").is_empty(), "{call}: {status}");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{call}: {parameter}");
        }
        for (kind, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            let schema = &body["schema"];
            let is_shown = body["example"] != Value::Null || schema["$ref"].is_string();
            assert!(is_shown || kind == "application/octet-stream", "{call}: {kind} has no example");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(document: &Value, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if name == "$ref" {
                        let pointer = field.as_str().unwrap().strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
                    }
                    check(document, field);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| check(document, item)),
            _ => {}
        }
    }
    let (document, _) = described();
    check(&document, &document);
}

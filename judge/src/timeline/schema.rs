//! The JSON Schema of a timeline's lines.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::fact::data_schemas;
use super::{Footer, Header, SCHEMA_VERSION, Source};

/// Draft 07, for one line: header, observation or footer. Kinds and fields that are not in it may be there.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let header = generator.subschema_for::<Header>();
    let footer = generator.subschema_for::<Footer>();
    let source = generator.subschema_for::<Source>();
    let kinds: Vec<Value> = data_schemas(&mut generator)
        .into_iter()
        .map(|(kind, data)| {
            json!({
                "if": { "properties": { "kind": { "const": kind } } },
                "then": { "properties": { "data": data } },
            })
        })
        .collect();
    let one = |name: &str, of: Value| json!({ "type": "object", "required": [name], "properties": { name: of } });
    let count = json!({ "type": "integer", "minimum": 0 });
    let name = json!({ "type": ["string", "null"] });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Timeline line",
        "description": "One line of timeline.ndjson: the header first, observations, the footer last.",
        "oneOf": [
            one("header", json!(header)),
            one("footer", json!(footer)),
            {
                "type": "object",
                "required": ["seq", "mono_ns", "wall", "source", "kind", "data"],
                "properties": {
                    "schema_version": { "const": SCHEMA_VERSION },
                    "seq": count,
                    "mono_ns": count,
                    "wall": { "type": "string", "format": "date-time" },
                    "offset_s": { "type": "integer" },
                    "source": source,
                    "proxy": name,
                    "secret": name,
                    "kind": { "type": "string" },
                    "data": true,
                },
                "allOf": kinds,
            },
        ],
        "definitions": generator.take_definitions(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_schema_leads_somewhere() {
        fn references(value: &Value, all: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    all.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|v| references(v, all));
                }
                Value::Array(list) => list.iter().for_each(|v| references(v, all)),
                _ => {}
            }
        }
        let schema = schema();
        let mut all = Vec::new();
        references(&schema, &mut all);
        assert!(all.len() > 30);
        for reference in all {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(schema.pointer(pointer).is_some(), "{reference}");
        }
    }
}

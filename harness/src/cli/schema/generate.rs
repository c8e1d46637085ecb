//! The schemas, from the types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use super::Of;
use crate::plan::{CellReport, Matrix};
use crate::report::json;
use crate::scenario::Scenario;
use crate::verdict::MODES;

pub(in crate::cli) fn text(of: Of) -> String {
    let schema = match of {
        Of::Scenario => scenario().to_value(),
        Of::Matrix => draft07::<Matrix>().to_value(),
        Of::Report => json::schema(),
        Of::Cell => draft07::<CellReport>().to_value(),
        Of::Timeline => crate::timeline::schema(),
    };
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    format!("{text}\n")
}

/// Draft 07 is what editors understand.
fn draft07<T: JsonSchema>() -> Schema {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<T>()
}

/// Editors complete the diagnosis too: it must be one of the modes.
fn scenario() -> Schema {
    let mut schema = draft07::<Scenario>();
    if let Some(diagnosis) = schema.pointer_mut("/definitions/ExpectSpec/properties/diagnosis")
        && let Some(diagnosis) = diagnosis.as_object_mut()
    {
        let names = MODES.iter().filter(|mode| mode.layer.is_some()).map(|mode| serde_json::Value::from(mode.name));
        diagnosis.insert("enum".to_owned(), names.chain([serde_json::Value::Null]).collect());
    }
    if let Some(noted) = schema.pointer_mut("/definitions/ExpectSpec/properties/noted/items")
        && let Some(noted) = noted.as_object_mut()
    {
        let names = MODES.iter().filter(|mode| mode.layer.is_none()).map(|mode| serde_json::Value::from(mode.name));
        noted.insert("enum".to_owned(), names.collect());
    }
    schema
}

#[test]
fn a_schema_refuses_unknown_keys_and_offers_every_mode() {
    let schema = scenario();
    let objects = schema.pointer("/definitions").and_then(|all| all.as_object()).unwrap().values();
    for object in objects.chain([schema.as_value()]).filter(|object| object["type"] == "object") {
        assert_eq!(object["additionalProperties"], false, "{object:#}");
    }
    let modes = schema.pointer("/definitions/ExpectSpec/properties/diagnosis/enum").unwrap();
    assert!(modes.as_array().unwrap().contains(&"resend-cached".into()));
}

use serde_json::Value;

use super::*;
use crate::archive::sample;

#[test]
fn a_report_is_what_its_schema_says() {
    let text = render(&sample::record(), &sample::every_outcome()).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    let schema = schema();
    assert_eq!(mismatch(&schema, &schema, &report, "$"), None);
    // The check itself can fail.
    let mut wrong = report.clone();
    wrong["cells"][2]["verdict"] = "passed".into();
    assert!(mismatch(&schema, &schema, &wrong, "$").is_some());
    let mut wrong = report;
    wrong["cells"][2].as_object_mut().unwrap().remove("layer");
    assert!(mismatch(&schema, &schema, &wrong, "$").is_some());
}

#[test]
fn a_report_can_be_read_back() {
    let text = render(&sample::record(), &sample::every_outcome()).unwrap();
    let report: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(report, Report::new(&sample::record(), &sample::every_outcome()));
}

#[test]
fn a_failed_cell_has_the_documented_shape() {
    let cells = [sample::cell("incident", "1.38.3", Role::Control, Outcome::Fail, true)];
    insta::assert_snapshot!(render(&sample::record(), &cells).unwrap());
}

/// The first place at which a value is not what the schema says. Covers the keywords that `schemars` writes for these
/// types; another one fails, so that nothing goes unchecked.
fn mismatch(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    const ANNOTATIONS: &[&str] =
        &["$schema", "title", "description", "definitions", "format", "default", "minimum", "maximum"];
    let Some(object) = schema.as_object() else {
        return (schema != &Value::Bool(true)).then(|| format!("{at}: the schema {schema} allows nothing"));
    };
    let matches = |s: &Value| mismatch(root, s, value, at);
    object.iter().find_map(|(keyword, rule)| match keyword.as_str() {
        k if ANNOTATIONS.contains(&k) => None,
        "$ref" => {
            let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
            mismatch(root, root.pointer(pointer).expect("the reference leads somewhere"), value, at)
        }
        "allOf" => rule.as_array().unwrap().iter().find_map(matches),
        "anyOf" | "oneOf" => {
            let any = rule.as_array().unwrap().iter().any(|s| matches(s).is_none());
            (!any).then(|| format!("{at}: {value} is none of {rule}"))
        }
        "enum" => (!rule.as_array().unwrap().contains(value)).then(|| format!("{at}: {value} is not in {rule}")),
        "const" => (rule != value).then(|| format!("{at}: {value} is not {rule}")),
        "type" => {
            let names: Vec<&str> = rule
                .as_array()
                .map_or_else(|| vec![rule.as_str().unwrap()], |l| l.iter().map(|t| t.as_str().unwrap()).collect());
            let is = |name: &&str| match *name {
                "null" => value.is_null(),
                "boolean" => value.is_boolean(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("unknown type {other}"),
            };
            (!names.iter().any(is)).then(|| format!("{at}: {value} is no {rule}"))
        }
        "required" => rule
            .as_array()
            .unwrap()
            .iter()
            .find(|name| value.get(name.as_str().unwrap()).is_none())
            .map(|name| format!("{at}: {name} is missing")),
        "items" if rule.is_array() => {
            value.as_array()?.iter().zip(rule.as_array().unwrap()).find_map(|(v, rule)| mismatch(root, rule, v, at))
        }
        "items" => {
            value.as_array()?.iter().enumerate().find_map(|(i, v)| mismatch(root, rule, v, &format!("{at}[{i}]")))
        }
        "minItems" | "maxItems" => None,
        "properties" => value.as_object()?.iter().find_map(|(name, v)| {
            let rule = rule.get(name).or(object.get("additionalProperties"));
            // The types of a report have no fields that the schema does not name.
            match rule {
                Some(rule) => mismatch(root, rule, v, &format!("{at}.{name}")),
                None => Some(format!("{at}.{name} is not in the schema")),
            }
        }),
        "additionalProperties" if object.contains_key("properties") => None,
        "additionalProperties" => {
            value.as_object()?.iter().find_map(|(name, v)| mismatch(root, rule, v, &format!("{at}.{name}")))
        }
        "propertyNames" => None,
        other => Some(format!("{at}: the test does not know the keyword {other}")),
    })
}

//! Tables for people, JSON and templates for programs.
//!
//! A list is a sequence of [`Row`]s: values under Docker's field names, in the order of the table's columns.

use std::io::Write;

use serde_json::{Map, Value};

use crate::failure::{Failure, Result};

/// How a list is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    /// Docker's Go templates, the part that people use: `{{.Name}}`, `{{json .}}`, `\t`; a leading `table ` adds headers.
    Template {
        pieces: Vec<Piece>,
        headers: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Field(String),
    Json(Option<String>),
}

/// One line of a list.
#[derive(Debug, Default)]
pub struct Row(Vec<(String, Option<&'static str>, Value)>);

impl Row {
    /// A column of the table: its header, and the field's name in JSON and templates.
    pub fn column(mut self, header: &'static str, field: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((field.to_owned(), Some(header), value.into()));
        self
    }

    /// A field that the table does not show.
    pub fn field(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((field.to_owned(), None, value.into()));
        self
    }

    pub fn text(&self, field: &str) -> Option<String> {
        self.get(field).map(text)
    }

    /// The fields of an object, as inspect commands print it.
    pub fn from_object(object: Value) -> Self {
        match object {
            Value::Object(fields) => {
                Self(fields.into_iter().map(|(field, value)| (field, None, value)).collect())
            }
            other => Self(vec![("Value".to_owned(), None, other)]),
        }
    }

    /// The value at a path such as `Spec.Name`.
    fn get(&self, path: &str) -> Option<&Value> {
        let (field, rest) = path.split_once('.').map_or((path, None), |(field, rest)| (field, Some(rest)));
        let value =
            self.0.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(field)).map(|(_, _, value)| value)?;
        rest.map_or(Some(value), |rest| rest.split('.').try_fold(value, |value, key| value.get(key)))
    }

    fn json(&self) -> Value {
        Value::Object(
            self.0.iter().map(|(field, _, value)| (field.clone(), value.clone())).collect::<Map<_, _>>(),
        )
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => {
                let (headers, body) = text.strip_prefix("table ").map_or((false, text), |body| (true, body));
                pieces(body).map(|pieces| Self::Template { pieces, headers })
            }
        }
    }
}

fn pieces(text: &str) -> std::result::Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, tail) =
            after.split_once("}}").ok_or_else(|| format!("template {text:?}: '{{{{' without '}}}}'"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(unescape(before)));
        }
        pieces.push(piece(inside.trim()).ok_or_else(|| {
            format!("template {text:?}: {inside:?} is not understood; use {{{{.Field}}}} or {{{{json .}}}}")
        })?);
        rest = tail;
    }
    if pieces.is_empty() {
        return Err(format!(
            "{text:?} is not a format: use table, json, or a template such as '{{{{.ID}}}} {{{{.Name}}}}'"
        ));
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(unescape(rest)));
    }
    Ok(pieces)
}

fn piece(inside: &str) -> Option<Piece> {
    let field = |name: &str| {
        name.strip_prefix('.')
            .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'))
            .map(str::to_owned)
    };
    match inside.strip_prefix("json ") {
        Some(argument) => {
            field(argument.trim()).map(|name| Piece::Json(Some(name).filter(|name| !name.is_empty())))
        }
        None => field(inside).filter(|name| !name.is_empty()).map(Piece::Field),
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Prints the rows; `empty` are the headers of a table without rows.
///
/// # Errors
/// A template that names an unknown field; stdout that cannot be written.
pub fn print(rows: &[Row], format: &Format, empty: &[&str]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Table => {
            let headers: Vec<&str> = match rows.first() {
                Some(row) => row.0.iter().filter_map(|(_, header, _)| *header).collect(),
                None => empty.to_vec(),
            };
            let cells = |row: &Row| {
                row.0.iter().filter(|column| column.1.is_some()).map(|column| text(&column.2)).collect()
            };
            write!(out, "{}", aligned(&headers, &rows.iter().map(cells).collect::<Vec<_>>()))?;
        }
        Format::Json => {
            for row in rows {
                writeln!(out, "{}", row.json())?;
            }
        }
        Format::Template { pieces, headers } => {
            if *headers {
                let names = pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Field(name) => name.to_uppercase(),
                    Piece::Json(_) => "JSON".to_owned(),
                });
                writeln!(out, "{}", names.collect::<String>())?;
            }
            for row in rows {
                writeln!(out, "{}", fill(row, pieces)?)?;
            }
        }
    }
    Ok(())
}

fn fill(row: &Row, pieces: &[Piece]) -> Result<String> {
    let find = |name: &str| {
        row.get(name).ok_or_else(|| {
            let known: Vec<&str> = row.0.iter().map(|(field, _, _)| field.as_str()).collect();
            Failure::usage(format!("there is no field .{name}"))
                .why(format!("known fields: {}", known.join(", ")))
        })
    };
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Field(name) => find(name).map(text),
            Piece::Json(None) => Ok(row.json().to_string()),
            Piece::Json(Some(name)) => find(name).map(Value::to_string),
        })
        .collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Left-aligned columns, three spaces apart, as Docker's.
fn aligned(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headers.iter().map(|header| header.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("   ").trim_end())
    };
    let head = line(&mut headers.iter().copied());
    rows.iter().fold(head, |table, row| table + &line(&mut row.iter().map(String::as_str)))
}

/// Keeps the rows that every `KEY=VALUE` filter accepts; of several values for one key any may match.
///
/// # Errors
/// A filter whose key this list does not have.
pub fn filter(rows: Vec<Row>, filters: &[(String, String)], keys: &[(&str, &str)]) -> Result<Vec<Row>> {
    for (key, _) in filters {
        if !keys.iter().any(|(known, _)| known == key) {
            let known: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
            return Err(Failure::usage(format!("there is no filter {key:?} here"))
                .why(format!("known filters: {}", known.join(", "))));
        }
    }
    let accepts = |row: &Row, key: &str, field: &str| {
        let mut values =
            filters.iter().filter(|(wanted, _)| wanted == key).map(|(_, value)| value).peekable();
        let actual = row.text(field).unwrap_or_default().to_lowercase();
        values.peek().is_none()
            || values.any(|value| match key {
                "id" | "name" | "node" => actual.starts_with(&value.to_lowercase()),
                "label" => actual.split(',').any(|label| {
                    label == value.to_lowercase() || label.split('=').next() == Some(&value.to_lowercase())
                }),
                _ => {
                    actual == value.to_lowercase() || actual.split(' ').next() == Some(&value.to_lowercase())
                }
            })
    };
    Ok(rows.into_iter().filter(|row| keys.iter().all(|(key, field)| accepts(row, key, field))).collect())
}

/// `key=value` pairs joined by commas, for tables and label filters.
pub fn joined(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// First characters of an id, as tables show it.
pub fn short(id: &str, full: bool) -> String {
    if full { id.to_owned() } else { id.chars().take(12).collect() }
}

/// `1.5 GB`, as Docker shows sizes.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 || value >= 100.0 => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{}", units[unit])
}

/// `1.5`: CPUs for people.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn cpu(nanos: u64) -> String {
    format!("{}", (nanos as f64 / 1e7).round() / 100.0)
}

/// `512MiB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn memory(bytes: u64) -> String {
    let (unit, size) = if bytes >= 1 << 30 { ("GiB", 1u64 << 30) } else { ("MiB", 1 << 20) };
    format!("{}{unit}", (bytes as f64 / size as f64 * 100.0).round() / 100.0)
}

/// Microseconds since the epoch as RFC 3339, UTC; empty for 0.
pub fn rfc3339(micros: u64) -> String {
    timestamp(micros).map(|time| time.to_string()).unwrap_or_default()
}

/// `2 minutes ago`; empty for 0.
pub fn ago(micros: u64) -> String {
    let Some(time) = timestamp(micros) else { return String::new() };
    let seconds = jiff::Timestamp::now().duration_since(time).as_secs().max(0);
    let (count, unit) = match seconds {
        0 => return "less than a second ago".to_owned(),
        1..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

fn timestamp(micros: u64) -> Option<jiff::Timestamp> {
    i64::try_from(micros)
        .ok()
        .filter(|micros| *micros > 0)
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_fill_fields_and_refuse_what_they_do_not_know() {
        let row = Row::default().column("NAME", "Name", "web").field("Replicas", 3);
        let filled = |text: &str| match text.parse() {
            Ok(Format::Template { pieces, .. }) => {
                fill(&row, &pieces).unwrap_or_else(|failure| failure.to_string())
            }
            other => format!("{other:?}"),
        };
        assert_eq!(filled("{{.Name}}\\t{{ .Replicas }}"), "web\t3");
        assert_eq!(filled("{{json .}}"), r#"{"Name":"web","Replicas":3}"#);
        assert!(filled("{{.Nope}}").contains("there is no field .Nope"));
        assert!(filled("{{if .X}}").contains("not understood"));
        assert!(filled("plain").contains("is not a format"));
    }

    #[test]
    fn tables_align_and_sizes_read_like_dockers() {
        assert_eq!(aligned(&["ID", "NAME"], &[vec!["abc".into(), "w".into()]]), "ID    NAME\nabc   w\n");
        assert_eq!(
            (size(999), size(1_500_000), size(140_000_000)),
            ("999B".into(), "1.50MB".into(), "140MB".into())
        );
        assert_eq!((memory(64 << 20), cpu(1_500_000_000)), ("64MiB".to_owned(), "1.5".to_owned()));
    }
}

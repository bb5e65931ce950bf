//! Values as Python's `repr` writes them.

use std::fmt::Write as _;

use serde_json::Value;
use unicode_general_category::{GeneralCategory, get_general_category};

use super::younger::YOUNGER;

/// A character that Python prints or escapes as its version has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsure(pub(super) char);

/// A value; objects in the order of their keys.
pub(super) fn value(value: &Value, out: &mut String) -> Result<(), Unsure> {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) if number.is_f64() => {
            out.push_str(&float(&number.to_string()));
        }
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) => string(text, out)?,
        Value::Array(values) => {
            out.push('[');
            for (at, item) in values.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                self::value(item, out)?;
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (at, (name, item)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                string(name, out)?;
                out.push_str(": ");
                self::value(item, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// A text: in double quotes where it has single ones and no double ones.
pub(super) fn string(text: &str, out: &mut String) -> Result<(), Unsure> {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote || c == '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if is_printable(c)? => out.push(c),
            c => {
                let number = u32::from(c);
                let _ = match number {
                    0..=0xff => write!(out, "\\x{number:02x}"),
                    0x100..=0xffff => write!(out, "\\u{number:04x}"),
                    _ => write!(out, "\\U{number:08x}"),
                };
            }
        }
    }
    out.push(quote);
    Ok(())
}

fn is_printable(c: char) -> Result<bool, Unsure> {
    let number = u32::from(c);
    let after = YOUNGER.partition_point(|(first, _)| *first <= number);
    let is_younger = after
        .checked_sub(1)
        .is_some_and(|at| number <= YOUNGER[at].1);
    // Unicode promises never to give these a meaning.
    let is_nothing = number & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&number);
    match get_general_category(c) {
        _ if is_younger => Err(Unsure(c)),
        GeneralCategory::Unassigned if !is_nothing => Err(Unsure(c)),
        GeneralCategory::Control
        | GeneralCategory::Format
        | GeneralCategory::Surrogate
        | GeneralCategory::PrivateUse
        | GeneralCategory::Unassigned
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator
        | GeneralCategory::SpaceSeparator => Ok(false),
        _ => Ok(true),
    }
}

/// A float, from its text in JSON: the same digits, with an exponent below 1e-4 and from 1e16 on. Of two texts that are
/// equally short and equally near both JSON's writer and Python take the even one, which Rust's own does not.
fn float(text: &str) -> String {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{part}");
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return format!("{sign}0.0");
    }
    let exponent: i64 = exponent.parse().unwrap_or_default();
    // Digits before the point, where there are as many.
    let point =
        exponent + i64::try_from(whole.len()).unwrap_or(0) - i64::try_from(zeros).unwrap_or(0);
    if !(-3..17).contains(&point) {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let of = if point < 1 { '-' } else { '+' };
        return format!(
            "{sign}{first}{dot}{rest}e{of}{:02}",
            (point - 1).unsigned_abs()
        );
    }
    let Some(before) = usize::try_from(point).ok().filter(|before| *before > 0) else {
        let zeros = usize::try_from(-point).unwrap_or(0);
        return format!("{sign}0.{:0<zeros$}{digits}", "");
    };
    match digits.split_at_checked(before) {
        Some((whole, part)) if !part.is_empty() => format!("{sign}{whole}.{part}"),
        _ => format!("{sign}{digits:0<before$}.0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repr(json: &Value) -> String {
        let mut out = String::new();
        value(json, &mut out).expect("every Python agrees");
        out
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        for (value, expected) in [
            (serde_json::json!("it's"), r#""it's""#),
            (serde_json::json!("it's \"so\""), r#"'it\'s "so"'"#),
            (
                serde_json::json!("a\\\n\r\t\0\u{7f}\u{a0}\u{ad}"),
                r"'a\\\n\r\t\x00\x7f\xa0\xad'",
            ),
            (
                serde_json::json!("é☃\u{200b}\u{2028}😀\u{e000}\u{f0000}"),
                r"'é☃\u200b\u2028😀\ue000\U000f0000'",
            ),
            (
                serde_json::json!([1, -2, true, null, {"a": []}]),
                "[1, -2, True, None, {'a': []}]",
            ),
            (
                serde_json::json!([1.0, 1.5, 1e15, 1e16, 1e-4, 1e-5, -0.0]),
                "[1.0, 1.5, 1000000000000000.0, 1e+16, 0.0001, 1e-05, -0.0]",
            ),
            (
                serde_json::json!([
                    1.234_567_890_123_456_8e17,
                    5e-324,
                    0.1,
                    1_196_418_093_992_577.2,
                    1.2e-4,
                    1.5e-7,
                    120.0
                ]),
                "[1.2345678901234568e+17, 5e-324, 0.1, 1196418093992577.2, 0.00012, 1.5e-07, 120.0]",
            ),
        ] {
            assert_eq!(repr(&value), expected);
        }
    }

    #[test]
    fn what_pythons_do_not_agree_on_is_not_guessed() {
        // Of Unicode 15, and of none so far.
        for c in ['\u{1fae8}', '\u{378}'] {
            let mut out = String::new();
            assert_eq!(string(&c.to_string(), &mut out), Err(Unsure(c)));
        }
        assert_eq!(repr(&serde_json::json!("\u{ffff}")), r"'\uffff'");
    }
}

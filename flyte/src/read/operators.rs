//! Operators and comparisons.

use ruff_python_ast::{CmpOp, ExprCompare, Operator};
use ruff_text_size::Ranged;

use super::expressions::{LARGE, insert};
use super::library;
use super::value::Value;
use super::{Frame, Reader};

impl Reader<'_> {
    pub(super) fn binary(
        left: &Value,
        operator: Operator,
        right: &Value,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Value {
        if let Some(why) = left.unknown().or_else(|| right.unknown()) {
            return Value::Unknown(why);
        }
        let lost = || frame.lost(at, "what this operator makes");
        let number = |number: Option<i64>| number.map_or_else(lost, Value::Int);
        match (left, operator, right) {
            (Value::Str(a), Operator::Add, Value::Str(b)) if a.len() + b.len() < LARGE => {
                Value::text(format!("{a}{b}"))
            }
            (Value::Str(text), Operator::Mult, Value::Int(times))
            | (Value::Int(times), Operator::Mult, Value::Str(text)) => {
                let times = usize::try_from(*times).unwrap_or(0);
                if text.len().saturating_mul(times) < LARGE {
                    Value::text(text.repeat(times))
                } else {
                    lost()
                }
            }
            (Value::List(_), Operator::Add, Value::List(_)) => {
                let items = [left, right].into_iter().filter_map(Value::items).flatten();
                let items: Vec<_> = items.collect();
                if items.len() > LARGE {
                    lost()
                } else {
                    Value::list(items)
                }
            }
            (Value::Tuple(a), Operator::Add, Value::Tuple(b)) => {
                Value::Tuple(a.iter().chain(b.iter()).cloned().collect())
            }
            (Value::List(_), Operator::Mult, Value::Int(times)) => {
                let items = left.items().unwrap_or_default();
                let times = usize::try_from(*times).unwrap_or(0);
                if items.len().saturating_mul(times) > LARGE {
                    return lost();
                }
                Value::list(
                    items
                        .iter()
                        .cycle()
                        .take(items.len() * times)
                        .cloned()
                        .collect(),
                )
            }
            (Value::Dict(a), Operator::BitOr, Value::Dict(b)) => {
                let mut pairs = a.held.borrow().clone();
                for (key, value) in b.held.borrow().iter() {
                    insert(&mut pairs, key.clone(), value.clone());
                }
                Value::dict(pairs)
            }
            (Value::Path(path), Operator::Div, Value::Str(more) | Value::Path(more))
            | (Value::Str(path), Operator::Div, Value::Path(more)) => {
                Value::Path(library::join(path, more).into())
            }
            (Value::Int(a), Operator::Add, Value::Int(b)) => number(a.checked_add(*b)),
            (Value::Int(a), Operator::Sub, Value::Int(b)) => number(a.checked_sub(*b)),
            (Value::Int(a), Operator::Mult, Value::Int(b)) => number(a.checked_mul(*b)),
            (Value::Int(a), Operator::FloorDiv, Value::Int(b)) if *b > 0 => {
                number(Some(a.div_euclid(*b)))
            }
            (Value::Int(a), Operator::Mod, Value::Int(b)) if *b > 0 => {
                number(Some(a.rem_euclid(*b)))
            }
            (Value::Str(format), Operator::Mod, _) => {
                library::percent(format, right).map_or_else(lost, Value::text)
            }
            _ => lost(),
        }
    }

    pub(super) fn compare(&mut self, compare: &ExprCompare, frame: &Frame) -> Value {
        let mut left = self.eval(&compare.left, frame);
        for (operator, right) in compare.ops.iter().zip(&compare.comparators) {
            let right_value = self.eval(right, frame);
            let known = match operator {
                CmpOp::Eq => left.equals(&right_value),
                CmpOp::NotEq => left.equals(&right_value).map(|equal| !equal),
                CmpOp::Is | CmpOp::IsNot => match (&left, &right_value) {
                    (Value::None, Value::None) => Some(true),
                    (Value::Bool(a), Value::Bool(b)) => Some(a == b),
                    (value, Value::None) | (Value::None, value)
                        if value.unknown().is_none() && !matches!(value, Value::Library(_)) =>
                    {
                        Some(false)
                    }
                    _ => None,
                }
                .map(|same| same == (*operator == CmpOp::Is)),
                CmpOp::In | CmpOp::NotIn => self
                    .within(&left, &right_value)
                    .map(|is| is == (*operator == CmpOp::In)),
                CmpOp::Lt | CmpOp::LtE | CmpOp::Gt | CmpOp::GtE => {
                    order(&left, &right_value, self.around).map(|order| match operator {
                        CmpOp::Lt => order.is_lt(),
                        CmpOp::LtE => order.is_le(),
                        CmpOp::Gt => order.is_gt(),
                        _ => order.is_ge(),
                    })
                }
            };
            match known {
                Some(true) => left = right_value,
                Some(false) => return Value::Bool(false),
                None => {
                    let why = left.unknown().or_else(|| right_value.unknown());
                    return why
                        .map_or_else(|| frame.lost(compare, "how this compares"), Value::Unknown);
                }
            }
        }
        Value::Bool(true)
    }

    /// `item in whole`.
    pub(super) fn within(&self, item: &Value, whole: &Value) -> Option<bool> {
        match (item, whole) {
            (Value::Str(part), Value::Str(text)) => return Some(text.contains(&**part)),
            (Value::Str(name), Value::Library(library)) if &**library == "os.environ" => {
                return Some(self.variable(name).is_some());
            }
            _ => {}
        }
        let mut found = Some(false);
        for known in whole.items()? {
            match known.equals(item) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => found = None,
            }
        }
        found
    }
}

/// How two values are ordered.
fn order(a: &Value, b: &Value, around: super::Around<'_>) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        (Value::Library(name), Value::Tuple(_)) if &**name == "sys.version_info" => {
            // Only where the interpreter is known without being asked.
            let version = around.interpreter?.version()?;
            let asked = b.items()?;
            let numbers = asked.iter().map(|item| {
                if let Value::Int(number) = item {
                    Some(*number)
                } else {
                    None
                }
            });
            let numbers = numbers.collect::<Option<Vec<_>>>()?;
            let mine = [i64::from(version.0), i64::from(version.1)];
            // Of a longer one, the third number would count.
            (numbers.len() <= 2).then(|| {
                let order = mine[..numbers.len()].cmp(&numbers[..]);
                if order.is_eq() {
                    std::cmp::Ordering::Greater
                } else {
                    order
                }
            })
        }
        _ => None,
    }
}

/// The place of an item, counted from the end where it is negative.
pub(super) fn index(length: usize, at: i64) -> Option<usize> {
    let at = if at < 0 {
        at + i64::try_from(length).ok()?
    } else {
        at
    };
    usize::try_from(at).ok().filter(|at| *at < length)
}

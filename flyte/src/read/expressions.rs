//! Expressions: what they are worth.

use std::rc::Rc;

use ruff_python_ast::{
    BoolOp, Comprehension, ConversionFlag, Expr, ExprBoolOp, ExprCall, ExprDict, ExprDictComp,
    ExprFString, ExprIf, ExprUnaryOp, FStringPart, InterpolatedStringElement, Number, UnaryOp,
};

use super::library;
use super::operators::index;
use super::value::{Arguments, Body, Names, Pairs, Value};
use super::{DEPTH, Frame, Reader, STEPS};

/// Why nobody knows what a loop over something does that it changes.
pub(super) const CHANGING: &str = "what a loop does that changes what it goes through";
/// The longest text or list that is made of others.
pub(super) const LARGE: usize = 1 << 16;

impl Reader<'_> {
    pub(super) fn eval(&mut self, expression: &Expr, frame: &Frame) -> Value {
        self.steps += 1;
        if self.depth >= DEPTH || self.steps > STEPS {
            return frame.lost(expression, "there is too much to do before this");
        }
        self.depth += 1;
        let value = self.eval_inner(expression, frame);
        self.depth -= 1;
        self.steps = self.steps.saturating_add(value.weight());
        if let Value::Unknown(why) = &value {
            self.unknowns.set(self.unknowns.get() + 1);
            // It may be anything that the expression can reach.
            why.may_be(Self::named_in(expression, frame));
        }
        value
    }

    fn eval_inner(&mut self, expression: &Expr, frame: &Frame) -> Value {
        match expression {
            Expr::NoneLiteral(_) => Value::None,
            Expr::BooleanLiteral(literal) => Value::Bool(literal.value),
            Expr::NumberLiteral(literal) => match &literal.value {
                Number::Int(number) => match number.as_i64() {
                    Some(number) => Value::Int(number),
                    None => frame.lost(expression, "a number of this size"),
                },
                Number::Float(number) => Value::Float(*number),
                Number::Complex { .. } => frame.lost(expression, "a complex number"),
            },
            Expr::StringLiteral(literal) => Value::text(literal.value.to_str()),
            Expr::FString(text) => self.interpolated(text, frame),
            Expr::List(list) => self.sequence(&list.elts, expression, frame, Value::list),
            Expr::Tuple(tuple) => self.sequence(&tuple.elts, expression, frame, |items| {
                Value::Tuple(items.into())
            }),
            Expr::Dict(dict) => self.dictionary(dict, frame),
            Expr::Name(name) => match frame.lookup(&name.id) {
                Some(value) => value,
                None => frame.lost(
                    expression,
                    format!("`{}` is bound nowhere that is known", name.id),
                ),
            },
            Expr::Attribute(attribute) => {
                let owner = self.eval(&attribute.value, frame);
                self.attribute(&owner, &attribute.attr, expression, frame)
            }
            Expr::Subscript(subscript) => {
                let owner = self.eval(&subscript.value, frame);
                if let Expr::Slice(slice) = &*subscript.slice {
                    return self.slice(&owner, slice, expression, frame);
                }
                let key = self.eval(&subscript.slice, frame);
                self.item(&owner, &key, expression, frame)
            }
            Expr::Call(call) => self.call_expression(call, frame),
            Expr::BinOp(binary) => {
                let left = self.eval(&binary.left, frame);
                let right = self.eval(&binary.right, frame);
                Self::binary(&left, binary.op, &right, expression, frame)
            }
            Expr::UnaryOp(unary) => self.unary(unary, frame),
            Expr::BoolOp(operation) => self.either(operation, frame),
            Expr::Compare(compare) => self.compare(compare, frame),
            Expr::If(choice) => self.choice(choice, frame),
            Expr::Named(named) => {
                let value = self.eval(&named.value, frame);
                self.assign(&named.target, value.clone(), frame);
                value
            }
            Expr::Lambda(lambda) => {
                let parameters = lambda.parameters.as_deref().cloned().unwrap_or_default();
                let body = Body::Expression((*lambda.body).clone());
                Value::Function(self.closure("<lambda>", &parameters, body, frame))
            }
            Expr::ListComp(made) => {
                self.comprehension(&made.generators, expression, frame, |reader, frame| {
                    reader.eval(&made.elt, frame)
                })
            }
            Expr::DictComp(made) => self.dict_comprehension(made, expression, frame),
            Expr::Generator(_) => frame.lost(expression, "what a generator makes later"),
            Expr::Starred(starred) => self.eval(&starred.value, frame),
            Expr::EllipsisLiteral(_) => Value::library("builtins.Ellipsis"),
            Expr::Set(_) | Expr::SetComp(_) => frame.lost(expression, "the order of a set"),
            Expr::BytesLiteral(_) => frame.lost(expression, "bytes"),
            Expr::Await(_)
            | Expr::Yield(_)
            | Expr::YieldFrom(_)
            | Expr::TString(_)
            | Expr::Slice(_)
            | Expr::IpyEscapeCommand(_) => frame.lost(expression, "what this expression makes"),
        }
    }

    fn dictionary(&mut self, dict: &ExprDict, frame: &Frame) -> Value {
        let mut pairs = Pairs::new();
        for item in &dict.items {
            let value = self.eval(&item.value, frame);
            let value = Self::certain(value, &item.value, frame);
            match (&item.key, &value) {
                (Some(key), _) => {
                    let key = self.eval(key, frame);
                    if let Some(why) = key.unknown() {
                        return Value::Unknown(why);
                    }
                    insert(&mut pairs, key, value);
                }
                (None, Value::Dict(other)) if value.unknown().is_none() => {
                    for (key, value) in other.held.borrow().iter() {
                        insert(&mut pairs, key.clone(), value.clone());
                    }
                }
                (None, _) => return frame.doubt(&value, &item.value, "what is unpacked here"),
            }
        }
        Value::dict(pairs)
    }

    fn dict_comprehension(&mut self, made: &ExprDictComp, at: &Expr, frame: &Frame) -> Value {
        let pairs = self.comprehension(&made.generators, at, frame, |reader, frame| {
            let key = made.key.as_ref();
            let key = key.map_or(Value::None, |key| reader.eval(key, frame));
            let value = reader.eval(&made.value, frame);
            Value::Tuple([key, value].into())
        });
        let Some(items) = pairs.items() else {
            return pairs;
        };
        let mut all = Pairs::new();
        for pair in items {
            if let Value::Tuple(pair) = pair {
                if let Some(why) = pair[0].unknown() {
                    return Value::Unknown(why);
                }
                insert(&mut all, pair[0].clone(), pair[1].clone());
            }
        }
        Value::dict(all)
    }

    fn unary(&mut self, unary: &ExprUnaryOp, frame: &Frame) -> Value {
        let value = self.eval(&unary.operand, frame);
        match (unary.op, &value) {
            (UnaryOp::Not, _) => match value.truth() {
                Some(truth) => Value::Bool(!truth),
                None => frame.doubt(&value, unary, "whether this is true"),
            },
            (UnaryOp::USub, Value::Int(number)) if *number != i64::MIN => Value::Int(-number),
            (UnaryOp::USub, Value::Float(number)) => Value::Float(-number),
            (UnaryOp::UAdd, Value::Int(_) | Value::Float(_)) | (_, Value::Unknown(_)) => value,
            _ => frame.lost(unary, "what this operator makes"),
        }
    }

    /// `and` and `or`.
    fn either(&mut self, operation: &ExprBoolOp, frame: &Frame) -> Value {
        let mut last = Value::None;
        for (at, operand) in operation.values.iter().enumerate() {
            last = self.eval(operand, frame);
            let Some(truth) = last.truth() else {
                let doubt = frame.doubt(&last, operand, "whether this is true");
                for other in &operation.values[at + 1..] {
                    self.forget_expression(other, frame, &doubt);
                }
                return doubt;
            };
            if truth == (operation.op == BoolOp::Or) {
                return last;
            }
        }
        last
    }

    fn choice(&mut self, choice: &ExprIf, frame: &Frame) -> Value {
        let test = self.eval(&choice.test, frame);
        match test.truth() {
            Some(true) => self.eval(&choice.body, frame),
            Some(false) => self.eval(&choice.orelse, frame),
            None => {
                let doubt = frame.doubt(&test, &*choice.test, "whether this is true");
                self.forget_expression(&choice.body, frame, &doubt);
                self.forget_expression(&choice.orelse, frame, &doubt);
                doubt
            }
        }
    }

    /// A value that is to be part of an image: of things of libraries nobody knows what they are.
    fn certain(value: Value, at: &Expr, frame: &Frame) -> Value {
        match &value {
            Value::Library(name) if !library::is_flyte(name) => {
                frame.lost(at, format!("what `{name}` is"))
            }
            _ => value,
        }
    }

    fn sequence(
        &mut self,
        elements: &[Expr],
        at: &Expr,
        frame: &Frame,
        make: impl Fn(Vec<Value>) -> Value,
    ) -> Value {
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            let value = self.eval(element, frame);
            if !element.is_starred_expr() {
                items.push(Self::certain(value, element, frame));
                continue;
            }
            match value.items() {
                Some(more) => items.extend(more),
                None => {
                    return frame.doubt(&value, at, "what is unpacked here");
                }
            }
        }
        make(items)
    }

    fn interpolated(&mut self, text: &ExprFString, frame: &Frame) -> Value {
        let mut made = String::new();
        for part in text.value.as_slice() {
            let elements = match part {
                FStringPart::Literal(literal) => {
                    made.push_str(&literal.value);
                    continue;
                }
                FStringPart::FString(text) => &text.elements,
            };
            for element in elements {
                let element = match element {
                    InterpolatedStringElement::Literal(literal) => {
                        made.push_str(&literal.value);
                        continue;
                    }
                    InterpolatedStringElement::Interpolation(element) => element,
                };
                let value = self.eval(&element.expression, frame);
                if let Some(why) = value.unknown() {
                    return Value::Unknown(why);
                }
                let plain = element.debug_text.is_none()
                    && element.format_spec.is_none()
                    && matches!(
                        element.conversion,
                        ConversionFlag::None | ConversionFlag::Str
                    );
                match value.to_text().filter(|_| plain) {
                    Some(text) => made.push_str(&text),
                    None => return frame.lost(&*element.expression, "how this is printed"),
                }
            }
        }
        Value::text(made)
    }

    fn attribute(&mut self, owner: &Value, name: &str, at: &Expr, frame: &Frame) -> Value {
        match owner {
            Value::Unknown(_) => owner.clone(),
            Value::Module(module) => {
                let known = module.names.borrow().get(name).cloned();
                known.unwrap_or_else(|| {
                    frame.lost(
                        at,
                        format!("`{}` has no `{name}` that is known here", module.name),
                    )
                })
            }
            Value::Class(names) => {
                let known = names.borrow().get(name).cloned();
                known.unwrap_or_else(|| {
                    frame.lost(at, format!("this class has no `{name}` that is known here"))
                })
            }
            Value::Library(library) => library::constant(library, name, self.around)
                .unwrap_or_else(|| Value::library(format!("{library}.{name}"))),
            Value::Image(image) => {
                if library::FIELDS.contains(&name) {
                    if let Some(why) = owner.unknown() {
                        return Value::Unknown(why);
                    }
                    let known = image.fields.held.borrow().get(name).cloned();
                    return known.unwrap_or_else(|| library::default_of(name, at, frame));
                }
                Value::Method(Rc::new((owner.clone(), name.to_owned())))
            }
            Value::Path(path) => library::path_attribute(path, name)
                .unwrap_or_else(|| Value::Method(Rc::new((owner.clone(), name.to_owned())))),
            Value::Str(_) | Value::List(_) | Value::Dict(_) | Value::Tuple(_) => {
                Value::Method(Rc::new((owner.clone(), name.to_owned())))
            }
            Value::Holder(_) if name == "task" => owner.clone(),
            Value::Function(function) if name == "__name__" => Value::text(&function.name),
            Value::Function(_) => frame.lost(at, "an attribute of a function"),
            _ => frame.lost(at, format!("the attribute `{name}`")),
        }
    }

    fn item(&mut self, owner: &Value, key: &Value, at: &Expr, frame: &Frame) -> Value {
        if let Some(why) = owner.unknown().or_else(|| key.unknown()) {
            return Value::Unknown(why);
        }
        let missing = |what: &str| frame.lost(at, what.to_owned());
        match (owner, key) {
            (Value::List(_) | Value::Tuple(_) | Value::Str(_), Value::Int(at)) => {
                let items = owner.items().unwrap_or_default();
                index(items.len(), *at)
                    .map_or_else(|| missing("there is no such item"), |at| items[at].clone())
            }
            (Value::Dict(dict), _) => {
                let pairs = dict.held.borrow();
                let mut doubtful = false;
                for (known, value) in pairs.iter() {
                    match known.equals(key) {
                        Some(true) => return value.clone(),
                        Some(false) => {}
                        None => doubtful = true,
                    }
                }
                missing(if doubtful {
                    "which item this is"
                } else {
                    "there is no such key"
                })
            }
            (Value::Library(name), _) if &**name == "os.environ" => match key.to_text() {
                Some(key) => self
                    .variable(&key)
                    .unwrap_or_else(|| missing("the variable is not set")),
                None => missing("which variable this is"),
            },
            (Value::Library(name), _) => Value::library(format!("{name}[]")),
            _ => missing("what this item is"),
        }
    }

    fn slice(
        &mut self,
        owner: &Value,
        slice: &ruff_python_ast::ExprSlice,
        at: &Expr,
        frame: &Frame,
    ) -> Value {
        let mut bound = |bound: &Option<Box<Expr>>| match bound {
            None => Some(None),
            Some(bound) => match self.eval(bound, frame) {
                Value::Int(at) => Some(Some(at)),
                _ => None,
            },
        };
        let (Some(lower), Some(upper), Some(None)) =
            (bound(&slice.lower), bound(&slice.upper), bound(&slice.step))
        else {
            return frame.lost(at, "which part this is");
        };
        let Some(items) = owner.items() else {
            return frame.doubt(owner, at, "which part this is");
        };
        let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let clamp = |at: i64| {
            usize::try_from(if at < 0 {
                at.saturating_add(length).max(0)
            } else {
                at.min(length)
            })
            .unwrap_or(0)
        };
        let (lower, upper) = (clamp(lower.unwrap_or(0)), clamp(upper.unwrap_or(length)));
        let part = items
            .get(lower..upper.max(lower))
            .unwrap_or_default()
            .to_vec();
        match owner {
            Value::Tuple(_) => Value::Tuple(part.into()),
            Value::Str(_) => Value::text(
                part.iter()
                    .filter_map(Value::to_text)
                    .collect::<Vec<_>>()
                    .concat(),
            ),
            _ => Value::list(part),
        }
    }

    fn comprehension(
        &mut self,
        generators: &[Comprehension],
        at: &Expr,
        frame: &Frame,
        mut element: impl FnMut(&mut Self, &Frame) -> Value,
    ) -> Value {
        let names: Names = Rc::default();
        let mut inside = frame.clone();
        inside.locals.push(names);
        let mut items = Vec::new();
        match self.generate(generators, at, &inside, &mut items, &mut element) {
            Ok(()) => Value::list(items),
            Err(value) => value,
        }
    }

    fn generate(
        &mut self,
        generators: &[Comprehension],
        at: &Expr,
        frame: &Frame,
        items: &mut Vec<Value>,
        element: &mut impl FnMut(&mut Self, &Frame) -> Value,
    ) -> Result<(), Value> {
        let Some((first, rest)) = generators.split_first() else {
            if items.len() >= LARGE {
                return Err(frame.lost(at, "there is too much in this"));
            }
            items.push(element(self, frame));
            return Ok(());
        };
        let value = self.eval(&first.iter, frame);
        let Some(all) = value.items().filter(|_| !first.is_async) else {
            return Err(frame.doubt(&value, &first.iter, "what this goes through"));
        };
        let length = value.length();
        for item in all {
            self.assign(&first.target, item, frame);
            let mut wanted = true;
            for test in &first.ifs {
                let value = self.eval(test, frame);
                match value.truth() {
                    Some(truth) => wanted &= truth,
                    None => {
                        return Err(frame.doubt(&value, test, "whether this is true"));
                    }
                }
                if !wanted {
                    break;
                }
            }
            if wanted {
                self.generate(rest, at, frame, items, element)?;
            }
            if value.length() != length {
                return Err(frame.lost(&first.iter, CHANGING));
            }
        }
        Ok(())
    }

    fn call_expression(&mut self, call: &ExprCall, frame: &Frame) -> Value {
        if let Expr::Attribute(attribute) = &*call.func {
            let owner = self.eval(&attribute.value, frame);
            if let Value::Unknown(_) = owner {
                let arguments = self.arguments(call, frame);
                return self.method(&owner, &attribute.attr, &arguments, call, frame);
            }
            let called = self.attribute(&owner, &attribute.attr, &call.func, frame);
            return self.call_with(&called, call, frame);
        }
        let called = self.eval(&call.func, frame);
        self.call_with(&called, call, frame)
    }

    fn call_with(&mut self, called: &Value, call: &ExprCall, frame: &Frame) -> Value {
        let mut arguments = self.arguments(call, frame);
        if matches!(called, Value::Library(name) if library::flyte_name(name) == Some("ImageSpec"))
        {
            for keyword in &call.arguments.keywords {
                let name = keyword.arg.as_ref().map_or("", |name| name.as_str());
                if let Some(value) = arguments.named.get_mut(name) {
                    *value = Self::certain(value.clone(), &keyword.value, frame);
                }
            }
        }
        self.call(called, arguments, call, frame)
    }

    fn arguments(&mut self, call: &ExprCall, frame: &Frame) -> Arguments {
        let mut arguments = Arguments::default();
        for argument in &call.arguments.args {
            let value = match argument {
                // It is gone through by what is called, if that is known.
                Expr::Generator(made) => {
                    self.comprehension(&made.generators, argument, frame, |reader, frame| {
                        reader.eval(&made.elt, frame)
                    })
                }
                _ => self.eval(argument, frame),
            };
            if !argument.is_starred_expr() {
                arguments.positional.push(value);
                continue;
            }
            match value.items() {
                Some(items) => arguments.positional.extend(items),
                None => {
                    arguments.open = Some(
                        value
                            .unknown()
                            .unwrap_or_else(|| frame.unknown(argument, "what is unpacked here")),
                    );
                }
            }
        }
        for keyword in &call.arguments.keywords {
            let value = self.eval(&keyword.value, frame);
            if let Some(name) = &keyword.arg {
                arguments.named.insert(name.as_str().to_owned(), value);
                continue;
            }
            let known = match &value {
                Value::Dict(dict) if value.unknown().is_none() => {
                    let pairs = dict.held.borrow();
                    let named = pairs
                        .iter()
                        .map(|(key, value)| Some((key.to_text()?, value.clone())));
                    named.collect::<Option<Vec<_>>>()
                }
                _ => None,
            };
            match known {
                Some(named) => arguments.named.extend(
                    named
                        .into_iter()
                        .map(|(key, value)| (key.to_string(), value)),
                ),
                None => {
                    arguments.open =
                        Some(value.unknown().unwrap_or_else(|| {
                            frame.unknown(&keyword.value, "what is unpacked here")
                        }));
                }
            }
        }
        arguments
    }
}

/// Puts a value into a dictionary.
pub(super) fn insert(pairs: &mut Pairs, key: Value, value: Value) {
    match pairs
        .iter()
        .position(|(known, _)| known.equals(&key) == Some(true))
    {
        Some(at) => pairs[at].1 = value,
        None => pairs.push((key, value)),
    }
}

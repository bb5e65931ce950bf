//! Statements: what they bind, and where they go.

use std::rc::Rc;

use indexmap::IndexMap;
use ruff_python_ast::visitor::{self};
use ruff_python_ast::{
    ElifElseClause, Expr, Operator, Stmt, StmtAugAssign, StmtClassDef, StmtFor, StmtFunctionDef,
    StmtIf, StmtWhile,
};

use super::expressions::CHANGING;
use super::syntax::{Yields, leaves, returns};
use super::value::{Arguments, Body, Function, Module, Names, Spot, Unknown, Value};
use super::{Frame, Reader, STEPS};

/// The longest loop that is gone through.
const ROUNDS: usize = 10_000;

/// Where a statement goes.
#[derive(Debug)]
pub(super) enum Flow {
    Next,
    Return(Value),
    Break,
    Continue,
    /// An exception, and where it is raised.
    Raise(Spot),
    /// Nobody knows.
    Lost(Rc<Unknown>),
}

impl Reader<'_> {
    pub(super) fn run(&mut self, statements: &[Stmt], frame: &Frame) -> Flow {
        for statement in statements {
            self.steps += 1;
            if self.steps > STEPS {
                return Flow::Lost(frame.unknown(statement, "there is too much to do before this"));
            }
            match self.statement(statement, frame) {
                Flow::Next => {}
                other => return other,
            }
        }
        Flow::Next
    }

    fn statement(&mut self, statement: &Stmt, frame: &Frame) -> Flow {
        match statement {
            Stmt::Assign(assign) => {
                let value = self.kept(&assign.value, frame);
                for target in &assign.targets {
                    self.assign(target, value.clone(), frame);
                }
            }
            Stmt::AnnAssign(assign) => {
                if let Some(value) = &assign.value {
                    let value = self.kept(value, frame);
                    self.assign(&assign.target, value, frame);
                }
            }
            Stmt::AugAssign(assign) => self.aug_assign(assign, frame),
            Stmt::Expr(expression) => drop(self.eval(&expression.value, frame)),
            Stmt::Import(import) => self.import_names(import, frame),
            Stmt::ImportFrom(import) => self.import_from(import, frame),
            Stmt::FunctionDef(function) => self.function(function, frame),
            Stmt::ClassDef(class) => return self.class(class, frame),
            Stmt::Return(returned) => {
                let value = returned
                    .value
                    .as_ref()
                    .map_or(Value::None, |value| self.kept(value, frame));
                return Flow::Return(value);
            }
            Stmt::If(branch) => return self.branch(branch, frame),
            Stmt::For(each) => return self.each(each, frame),
            Stmt::While(during) => return self.during(during, frame),
            Stmt::Try(attempt) => return self.attempt(attempt, frame),
            Stmt::With(with) => return self.with(with, frame),
            Stmt::Match(matched) => {
                let why = frame.unknown(
                    &*matched.subject,
                    "which case of a `match` statement applies",
                );
                self.eval(&matched.subject, frame);
                self.forget(std::slice::from_ref(statement), frame, &why);
                let bodies = matched.cases.iter().flat_map(|case| &*case.body);
                if leaves(bodies) {
                    return Flow::Lost(why);
                }
            }
            Stmt::Delete(delete) => {
                for target in &delete.targets {
                    match target {
                        Expr::Name(name) => {
                            if frame
                                .names()
                                .borrow_mut()
                                .shift_remove(name.id.as_str())
                                .is_none()
                            {
                                frame.unknown(name, "there is nothing to remove");
                            }
                        }
                        other => {
                            let why = frame.unknown(other, "what is left after `del`");
                            self.lose_owner(other, frame, &why);
                        }
                    }
                }
            }
            Stmt::Raise(raise) => return Flow::Raise(frame.spot(raise)),
            Stmt::Assert(assert) => {
                if self.eval(&assert.test, frame).truth() == Some(false) {
                    return Flow::Raise(frame.spot(assert));
                }
            }
            Stmt::Global(global) => {
                let names = global.names.iter().map(|name| name.as_str().to_owned());
                frame.globals.borrow_mut().extend(names);
            }
            Stmt::Nonlocal(outer) => {
                return Flow::Lost(frame.unknown(outer, "names of a function around this one"));
            }
            Stmt::Break(_) => return Flow::Break,
            Stmt::Continue(_) => return Flow::Continue,
            Stmt::TypeAlias(alias) => {
                let lost = frame.lost(alias, "a type");
                self.assign(&alias.name, lost, frame);
            }
            Stmt::Pass(_) | Stmt::IpyEscapeCommand(_) => {}
        }
        Flow::Next
    }

    /// What is kept for later: iterators and views then show what has become of what they go through.
    fn kept(&mut self, expression: &Expr, frame: &Frame) -> Value {
        let value = self.eval(expression, frame);
        let Expr::Call(call) = expression else {
            return value;
        };
        let lazy = match &*call.func {
            Expr::Name(name) => {
                ["map", "filter", "zip", "enumerate", "reversed"].contains(&name.id.as_str())
            }
            Expr::Attribute(attribute) => {
                ["keys", "values", "items"].contains(&attribute.attr.as_str())
            }
            _ => false,
        };
        match value {
            Value::List(_) if lazy => {
                frame.lost(expression, "what this is when it is gone through")
            }
            value => value,
        }
    }

    pub(super) fn assign(&mut self, target: &Expr, value: Value, frame: &Frame) {
        match target {
            Expr::Name(name) => frame.bind(&name.id, value),
            Expr::Tuple(tuple) => self.unpack(&tuple.elts, &value, target, frame),
            Expr::List(list) => self.unpack(&list.elts, &value, target, frame),
            Expr::Starred(starred) => self.assign(&starred.value, value, frame),
            Expr::Attribute(attribute) => {
                let owner = self.eval(&attribute.value, frame);
                match owner {
                    Value::Image(image) => {
                        if value.reaches(&Value::Image(Rc::clone(&image))) {
                            image
                                .fields
                                .lose(&frame.unknown(target, "an image in itself"));
                            return;
                        }
                        // Others are kept by Python and are in no image.
                        if super::library::FIELDS.contains(&attribute.attr.as_str()) {
                            let mut fields = image.fields.held.borrow_mut();
                            fields.insert(attribute.attr.as_str().to_owned(), value);
                        }
                    }
                    Value::Class(names) => {
                        names
                            .borrow_mut()
                            .insert(attribute.attr.as_str().to_owned(), value);
                    }
                    Value::Module(module) => {
                        module
                            .names
                            .borrow_mut()
                            .insert(attribute.attr.as_str().to_owned(), value);
                    }
                    other => {
                        if let Some(why) = other.unknown() {
                            other.lose(&why);
                        }
                    }
                }
            }
            Expr::Subscript(subscript) => {
                let owner = self.eval(&subscript.value, frame);
                let key = self.eval(&subscript.slice, frame);
                self.put(&owner, &key, value, target, frame);
            }
            _ => {}
        }
    }

    fn unpack(&mut self, targets: &[Expr], value: &Value, at: &Expr, frame: &Frame) {
        let items = value.items().filter(|items| {
            items.len() == targets.len() && !targets.iter().any(Expr::is_starred_expr)
        });
        for (index, target) in targets.iter().enumerate() {
            let item = match (&items, value.unknown()) {
                (Some(items), _) => items[index].clone(),
                (None, Some(why)) => Value::Unknown(why),
                (None, None) => frame.lost(at, "how this is unpacked"),
            };
            self.assign(target, item, frame);
        }
    }

    /// `owner[key] = value`.
    fn put(&mut self, owner: &Value, key: &Value, value: Value, at: &Expr, frame: &Frame) {
        let why = || frame.unknown(at, "what is changed here");
        if value.reaches(owner) {
            return owner.lose(&why());
        }
        match (owner, key) {
            (Value::Dict(dict), key) if key.unknown().is_none() => {
                let mut pairs = dict.held.borrow_mut();
                let known = pairs
                    .iter()
                    .position(|(known, _)| known.equals(key) == Some(true));
                match known {
                    Some(index) => pairs[index].1 = value,
                    None => pairs.push((key.clone(), value)),
                }
            }
            (Value::List(list), Value::Int(index)) => {
                let mut items = list.held.borrow_mut();
                match super::operators::index(items.len(), *index) {
                    Some(index) => items[index] = value,
                    None => list.lose(&why()),
                }
            }
            (Value::Library(name), _) if &**name == "os.environ" => {
                let lost = Value::Unknown(why());
                // What is read of it later is no longer what it was.
                self.set_variable(key, value.to_text(), &lost);
            }
            (owner, _) => owner.lose(&why()),
        }
    }

    fn aug_assign(&mut self, assign: &StmtAugAssign, frame: &Frame) {
        let current = self.eval(&assign.target, frame);
        let value = self.eval(&assign.value, frame);
        // In place: other names of a list or a dictionary see it.
        let method = match (&current, assign.op) {
            (Value::List(_), Operator::Add) => Some("extend"),
            (Value::Dict(_), Operator::BitOr) => Some("update"),
            _ => None,
        };
        if let Some(method) = method {
            let arguments = Arguments {
                positional: vec![value],
                ..Arguments::default()
            };
            self.method(&current, method, &arguments, assign, frame);
            return;
        }
        if let Value::Unknown(why) = &current {
            current.lose(why);
        }
        let value = Self::binary(&current, assign.op, &value, assign, frame);
        self.assign(&assign.target, value, frame);
    }

    fn branch(&mut self, branch: &StmtIf, frame: &Frame) -> Flow {
        let tested = [(Some(&*branch.test), &branch.body)];
        let further = branch.elif_else_clauses.iter();
        let clauses = tested
            .into_iter()
            .chain(further.map(|ElifElseClause { test, body, .. }| (test.as_ref(), body)));
        let clauses: Vec<_> = clauses.collect();
        for (index, (test, body)) in clauses.iter().enumerate() {
            let Some(test) = test else {
                return self.run(body, frame);
            };
            let value = self.eval(test, frame);
            match value.truth() {
                Some(true) => return self.run(body, frame),
                Some(false) => {}
                None => {
                    let why = value
                        .unknown()
                        .unwrap_or_else(|| frame.unknown(*test, "whether this is true"));
                    let rest = &clauses[index..];
                    for (_, body) in rest {
                        self.forget(body, frame, &why);
                    }
                    let statements = rest.iter().flat_map(|(_, body)| body.iter());
                    return if leaves(statements) {
                        Flow::Lost(why)
                    } else {
                        Flow::Next
                    };
                }
            }
        }
        Flow::Next
    }

    fn each(&mut self, each: &StmtFor, frame: &Frame) -> Flow {
        let value = self.eval(&each.iter, frame);
        let items = value
            .items()
            .filter(|items| items.len() <= ROUNDS && !each.is_async);
        let Some(items) = items else {
            let why = value
                .unknown()
                .unwrap_or_else(|| frame.unknown(&*each.iter, "what this loop goes through"));
            self.assign(&each.target, Value::Unknown(Rc::clone(&why)), frame);
            self.forget(&each.body, frame, &why);
            self.forget(&each.orelse, frame, &why);
            let returns = returns(each.body.iter().chain(&*each.orelse));
            return if returns { Flow::Lost(why) } else { Flow::Next };
        };
        let length = value.length();
        for item in items {
            self.assign(&each.target, item, frame);
            let flow = match self.run(&each.body, frame) {
                Flow::Next | Flow::Continue if value.length() != length => {
                    Flow::Lost(frame.unknown(&*each.iter, CHANGING))
                }
                flow => flow,
            };
            match flow {
                Flow::Next | Flow::Continue => {}
                Flow::Break => return Flow::Next,
                Flow::Lost(why) => {
                    self.forget(&each.body, frame, &why);
                    self.forget(&each.orelse, frame, &why);
                    let returns = returns(each.body.iter().chain(&*each.orelse));
                    return if returns { Flow::Lost(why) } else { Flow::Next };
                }
                other => return other,
            }
        }
        self.run(&each.orelse, frame)
    }

    fn during(&mut self, during: &StmtWhile, frame: &Frame) -> Flow {
        let value = self.eval(&during.test, frame);
        if value.truth() == Some(false) {
            return self.run(&during.orelse, frame);
        }
        let why = value
            .unknown()
            .unwrap_or_else(|| frame.unknown(&*during.test, "how often this loop goes round"));
        self.forget(&during.body, frame, &why);
        self.forget(&during.orelse, frame, &why);
        if returns(during.body.iter().chain(&*during.orelse)) {
            return Flow::Lost(why);
        }
        Flow::Next
    }

    fn function(&mut self, function: &StmtFunctionDef, frame: &Frame) {
        let decorators: Vec<_> = function
            .decorator_list
            .iter()
            .map(|decorator| {
                (
                    self.eval(&decorator.expression, frame),
                    &decorator.expression,
                )
            })
            .collect();
        let mut later = Yields::default();
        visitor::walk_body(&mut later, &function.body);
        let body = if function.is_async || later.0 {
            Body::Later(function.body.to_vec())
        } else {
            Body::Statements(function.body.to_vec())
        };
        let made = self.closure(&function.name, &function.parameters, body, frame);
        let mut value = Value::Function(made);
        for (decorator, at) in decorators.into_iter().rev() {
            let arguments = Arguments {
                positional: vec![value],
                ..Arguments::default()
            };
            value = self.decorate(&decorator, arguments, &function.name, at, frame);
        }
        frame.bind(&function.name, value);
    }

    pub(super) fn closure(
        &mut self,
        name: &str,
        parameters: &ruff_python_ast::Parameters,
        body: Body,
        frame: &Frame,
    ) -> Rc<Function> {
        let mut defaults = IndexMap::new();
        for parameter in parameters.iter_non_variadic_params() {
            if let Some(default) = &parameter.default {
                let value = self.eval(default, frame);
                defaults.insert(parameter.parameter.name.as_str().to_owned(), value);
            }
        }
        Rc::new(Function {
            name: name.to_owned(),
            source: Rc::clone(&frame.source),
            module: Rc::clone(&frame.module),
            around: frame.locals[..frame.locals.len() - usize::from(frame.in_class)].to_vec(),
            parameters: parameters.clone(),
            defaults,
            body,
        })
    }

    /// A class: of one without bases and decorators, the attributes are known.
    fn class(&mut self, class: &StmtClassDef, frame: &Frame) -> Flow {
        let names: Names = Rc::default();
        let mut inside = frame.clone();
        inside.locals.push(Rc::clone(&names));
        inside.globals = Rc::default();
        inside.in_class = true;
        let flow = self.run(&class.body, &inside);
        let plain = class.decorator_list.is_empty()
            && class
                .arguments
                .as_ref()
                .is_none_or(|arguments| arguments.args.is_empty() && arguments.keywords.is_empty());
        let value = if plain {
            Value::Class(names)
        } else {
            frame.lost(&class.name, "a class of which not everything is known")
        };
        frame.bind(&class.name, value);
        flow
    }

    pub(super) fn frame_of(&self, function: &Function, locals: Names) -> Frame {
        let mut around = function.around.clone();
        around.push(locals);
        Frame {
            source: Rc::clone(&function.source),
            module: Rc::clone(&function.module) as Rc<Module>,
            locals: around,
            globals: Rc::default(),
            in_class: false,
            unknowns: Rc::clone(&self.unknowns),
        }
    }
}

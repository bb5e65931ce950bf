//! Statements: what they bind, and where they go.

use std::rc::Rc;

use indexmap::IndexMap;
use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{
    ElifElseClause, ExceptHandler, Expr, Operator, Pattern, Stmt, StmtAugAssign, StmtClassDef,
    StmtFor, StmtFunctionDef, StmtIf, StmtTry, StmtWhile, StmtWith,
};
use ruff_text_size::Ranged;

use super::expressions::CHANGING;
use super::value::{Arguments, Body, Function, Module, Names, Spot, Unknown, Value};
use super::{Frame, Reader, STEPS};

/// How far functions that call each other are looked into for tasks.
const CALLS: u32 = 8;
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
                        if value_reaches(&value, &Value::Image(Rc::clone(&image))) {
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
        if value_reaches(&value, owner) {
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
                match super::expressions::index(items.len(), *index) {
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

    /// `with`: its context may end the body where an exception is raised.
    fn with(&mut self, with: &StmtWith, frame: &Frame) -> Flow {
        let mut swallows = false;
        for item in &with.items {
            self.eval(&item.context_expr, frame);
            swallows |= !matches!(&item.context_expr, Expr::Call(call) if matches!(&*call.func, Expr::Name(name) if name.id.as_str() == "open"));
            if let Some(target) = &item.optional_vars {
                let lost = frame.lost(item, "what a `with` statement binds");
                self.assign(target, lost, frame);
            }
        }
        if !swallows {
            return self.run(&with.body, frame);
        }
        let trial = self.begin(&with.body, frame);
        let flow = self.run(&with.body, frame);
        if !self.has_doubts(&trial, &flow) {
            return flow;
        }
        self.end(&trial, &[], frame);
        if matches!(flow, Flow::Next) && !leaves(with.body.iter()) {
            Flow::Next
        } else {
            Flow::Lost(trial.why)
        }
    }

    /// `try`: where something in its body is not known, nobody knows where the body ends. Names that only the body binds
    /// are what it makes of them, since without it they would not be there; others are not known.
    fn attempt(&mut self, attempt: &StmtTry, frame: &Frame) -> Flow {
        let handlers = || {
            attempt
                .handlers
                .iter()
                .map(|ExceptHandler::ExceptHandler(handler)| handler)
        };
        let raises = |handler: &ruff_python_ast::ExceptHandlerExceptHandler| {
            matches!(handler.body.last(), Some(Stmt::Raise(_)))
        };
        let trial = self.begin(&attempt.body, frame);
        let flow = self.run(&attempt.body, frame);
        // Handlers that all raise say that there is nothing to go on with: the body is gone through to its end, or
        // nothing is.
        let certain = handlers().all(raises) && !matches!(flow, Flow::Raise(_));
        if certain || !self.has_doubts(&trial, &flow) {
            let flow = match flow {
                Flow::Next => self.run(&attempt.orelse, frame),
                other => other,
            };
            return match self.run(&attempt.finalbody, frame) {
                Flow::Next => flow,
                other => other,
            };
        }
        let why = Rc::clone(&trial.why);
        let handled: Vec<_> = handlers()
            .flat_map(|handler| Self::bound_by(&handler.body).names)
            .collect();
        self.end(&trial, &handled, frame);
        for handler in handlers() {
            self.forget(&handler.body, frame, &why);
        }
        self.forget(&attempt.orelse, frame, &why);
        if let flow @ (Flow::Raise(_) | Flow::Lost(_) | Flow::Return(_)) =
            self.run(&attempt.finalbody, frame)
        {
            return flow;
        }
        let all = attempt
            .body
            .iter()
            .chain(&*attempt.orelse)
            .chain(handlers().flat_map(|handler| &*handler.body));
        // What is raised is either caught, or ends the module.
        if !matches!(flow, Flow::Lost(_)) && !jumps(all) {
            Flow::Next
        } else {
            Flow::Lost(why)
        }
    }

    /// Remembers what there was before statements that an exception may end.
    fn begin<'s>(&mut self, body: &'s [Stmt], frame: &Frame) -> Trial<'s> {
        let range = body.first().map_or_else(Default::default, Ranged::range);
        let unknowns = self.unknowns.get();
        let why = frame.unknown(&super::At(range), "whether this raises an exception");
        self.unknowns.set(unknowns);
        let bound = Self::bound_by(body).names.into_iter();
        Trial {
            body,
            before: bound
                .filter_map(|name| Some((name.clone(), frame.lookup(&name)?)))
                .collect(),
            reached: self.reached(body, frame),
            declared: self.declared.len(),
            unknowns,
            why,
        }
    }

    fn has_doubts(&self, trial: &Trial<'_>, flow: &Flow) -> bool {
        self.unknowns.get() != trial.unknowns || matches!(flow, Flow::Raise(_) | Flow::Lost(_))
    }

    /// Forgets what statements may have done that were ended somewhere.
    fn end(&mut self, trial: &Trial<'_>, handled: &[String], frame: &Frame) {
        if self.declared.len() > trial.declared {
            self.doubts.push(Rc::clone(&trial.why));
        }
        let after = self.reached(trial.body, frame);
        let doubt = trial.why.about([trial.reached.clone(), after].concat());
        doubt.may_be(trial.before.values().cloned().collect());
        for name in Self::bound_by(trial.body).names {
            if trial.before.contains_key(&name) || handled.contains(&name) {
                frame.bind(&name, Value::Unknown(Rc::clone(&doubt)));
            }
        }
        let mut changed = Changed::default();
        visitor::walk_body(&mut changed, trial.body);
        if !changed.expressions.is_empty() || !changed.called.is_empty() {
            let doubted = Value::Unknown(doubt);
            self.forget_called(&doubted, &trial.why);
            doubted.lose(&trial.why);
        }
    }

    fn bound_by(statements: &[Stmt]) -> Bound {
        let mut bound = Bound::default();
        visitor::walk_body(&mut bound, statements);
        bound
    }

    /// Statements that may or may not run: what they bind and change is not known, and neither is what they declare.
    pub(super) fn forget(&mut self, statements: &[Stmt], frame: &Frame, why: &Rc<Unknown>) {
        self.forget_changes(statements, frame, why);
        let doubt = why.about(self.reached(statements, frame));
        doubt.may_be(Self::named_by(statements, frame));
        let bound = Self::bound_by(statements).names;
        let before = bound.iter().filter_map(|name| frame.lookup(name));
        doubt.may_be(before.collect());
        for name in bound {
            frame.bind(&name, Value::Unknown(Rc::clone(&doubt)));
        }
        if self.may_declare(statements, frame) {
            self.doubts.push(Rc::clone(why));
        }
    }

    /// An expression that may or may not be evaluated.
    pub(super) fn forget_expression(&mut self, expression: &Expr, frame: &Frame, doubt: &Value) {
        let Value::Unknown(why) = doubt else {
            return;
        };
        let mut changed = Changed::default();
        changed.visit_expr(expression);
        if changed.expressions.is_empty() && changed.called.is_empty() {
            return;
        }
        let reached = Self::named_in(expression, frame);
        for value in &reached {
            self.forget_called(value, why);
            value.lose(why);
        }
        let mut bound = Bound::default();
        bound.visit_expr(expression);
        for name in bound.names {
            frame.bind(&name, Value::Unknown(why.about(reached.clone())));
        }
        let mut declarations = Declarations::default();
        declarations.visit_expr(expression);
        let mut called = declarations.0.into_iter();
        if called.any(|called| self.value_declares(&glance(called, frame), CALLS)) {
            self.doubts.push(Rc::clone(why));
        }
    }

    /// What statements may change beside the names they bind.
    fn forget_changes(&mut self, statements: &[Stmt], frame: &Frame, why: &Rc<Unknown>) {
        let mut changed = Changed::default();
        visitor::walk_body(&mut changed, statements);
        let bound = Self::bound_by(statements).names;
        let mut all = false;
        for expression in changed.expressions {
            match expression {
                // A name that these statements bind may be anything they can reach.
                Expr::Name(name) if !bound.contains(name.id.as_str()) => {
                    glance(expression, frame).lose(why);
                }
                _ if expression.is_literal_expr() => {}
                _ => all = true,
            }
        }
        for called in changed.called {
            let value = glance(called, frame);
            self.forget_called(&value, why);
        }
        if all {
            self.reached(statements, frame)
                .iter()
                .for_each(|value| value.lose(why));
        }
    }

    fn lose_owner(&mut self, target: &Expr, frame: &Frame, why: &Rc<Unknown>) {
        let owner = match target {
            Expr::Attribute(attribute) => &attribute.value,
            Expr::Subscript(subscript) => &subscript.value,
            _ => return,
        };
        self.eval(owner, frame).lose(why);
    }

    /// Whether statements, if they run, declare tasks.
    pub(super) fn may_declare(&self, statements: &[Stmt], frame: &Frame) -> bool {
        self.declares_within(statements, frame, CALLS)
    }

    fn declares_within(&self, statements: &[Stmt], frame: &Frame, left: u32) -> bool {
        let mut called = Declarations::default();
        visitor::walk_body(&mut called, statements);
        called
            .0
            .into_iter()
            .any(|called| self.value_declares(&glance(called, frame), left))
    }

    fn value_declares(&self, value: &Value, left: u32) -> bool {
        match value {
            Value::Library(name) => super::library::declares(name),
            Value::Decorator(_) | Value::Holder(_) => true,
            Value::Partial(partial) => {
                let given = partial.1.values();
                std::iter::once(&partial.0)
                    .chain(given)
                    .any(|value| self.value_declares(value, left))
            }
            Value::Function(function) if left > 0 => match &function.body {
                Body::Statements(body) | Body::Later(body) => {
                    self.declares_within(body, &self.frame_of(function, Rc::default()), left - 1)
                }
                Body::Expression(body) => {
                    let mut called = Declarations::default();
                    called.visit_expr(body);
                    let frame = self.frame_of(function, Rc::default());
                    called
                        .0
                        .into_iter()
                        .any(|called| self.value_declares(&glance(called, &frame), left - 1))
                }
            },
            _ => false,
        }
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

/// What a name, or an attribute of one, stands for, without doing anything.
fn glance(expression: &Expr, frame: &Frame) -> Value {
    match expression {
        Expr::Name(name) => frame.lookup(&name.id).unwrap_or(Value::None),
        Expr::Attribute(attribute) => match glance(&attribute.value, frame) {
            Value::Module(module) => module
                .names
                .borrow()
                .get(attribute.attr.as_str())
                .cloned()
                .unwrap_or(Value::None),
            Value::Class(names) => names
                .borrow()
                .get(attribute.attr.as_str())
                .cloned()
                .unwrap_or(Value::None),
            Value::Image(image) => {
                let fields = image.fields.held.borrow();
                fields
                    .get(attribute.attr.as_str())
                    .cloned()
                    .unwrap_or(Value::None)
            }
            Value::Library(library) => Value::library(format!("{library}.{}", attribute.attr)),
            _ => Value::None,
        },
        _ => Value::None,
    }
}

/// Statements that an exception may end, and what there was before them.
struct Trial<'a> {
    body: &'a [Stmt],
    before: IndexMap<String, Value>,
    reached: Vec<Value>,
    declared: usize,
    unknowns: u64,
    why: Rc<Unknown>,
}

/// Whether a value is, or holds, another one that can change.
pub(super) fn value_reaches(value: &Value, target: &Value) -> bool {
    let within = |items: &[Value]| items.iter().any(|item| value_reaches(item, target));
    match (value, target) {
        (Value::List(a), Value::List(b)) if Rc::ptr_eq(a, b) => true,
        (Value::Dict(a), Value::Dict(b)) if Rc::ptr_eq(a, b) => true,
        (Value::Image(a), Value::Image(b)) if Rc::ptr_eq(a, b) => true,
        (Value::List(list), _) => within(&list.held.borrow()),
        (Value::Dict(dict), _) => dict
            .held
            .borrow()
            .iter()
            .any(|(_, value)| value_reaches(value, target)),
        (Value::Tuple(items), _) => within(items),
        (Value::Holder(items), _) => within(items),
        (Value::Image(image), _) => image
            .fields
            .held
            .borrow()
            .values()
            .any(|value| value_reaches(value, target)),
        _ => false,
    }
}

/// Whether statements may go elsewhere than to what follows.
fn leaves<'a>(statements: impl Iterator<Item = &'a Stmt>) -> bool {
    let mut out = WaysOut {
        loops: true,
        raises: true,
        found: false,
    };
    statements.for_each(|statement| out.visit_stmt(statement));
    out.found
}

/// Whether statements may end the function around them.
fn returns<'a>(statements: impl Iterator<Item = &'a Stmt>) -> bool {
    let mut out = WaysOut {
        loops: false,
        raises: true,
        found: false,
    };
    statements.for_each(|statement| out.visit_stmt(statement));
    out.found
}

/// Whether statements may go elsewhere by themselves, exceptions apart.
fn jumps<'a>(statements: impl Iterator<Item = &'a Stmt>) -> bool {
    let mut out = WaysOut {
        loops: true,
        raises: false,
        found: false,
    };
    statements.for_each(|statement| out.visit_stmt(statement));
    out.found
}

struct WaysOut {
    /// Those that only loops have.
    loops: bool,
    raises: bool,
    found: bool,
}

impl<'a> Visitor<'a> for WaysOut {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => {}
            Stmt::Return(_) => self.found = true,
            Stmt::Raise(_) => self.found |= self.raises,
            Stmt::Break(_) | Stmt::Continue(_) => self.found |= self.loops,
            other => visitor::walk_stmt(self, other),
        }
    }

    fn visit_expr(&mut self, _: &'a Expr) {}
}

/// The names that statements bind.
#[derive(Default)]
struct Bound {
    names: indexmap::IndexSet<String>,
}

impl Bound {
    fn target(&mut self, target: &Expr) {
        match target {
            Expr::Name(name) => drop(self.names.insert(name.id.as_str().to_owned())),
            Expr::Tuple(tuple) => tuple.elts.iter().for_each(|target| self.target(target)),
            Expr::List(list) => list.elts.iter().for_each(|target| self.target(target)),
            Expr::Starred(starred) => self.target(&starred.value),
            _ => {}
        }
    }
}

impl<'a> Visitor<'a> for Bound {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        let mut add = |name: &str| {
            self.names.insert(name.to_owned());
        };
        match statement {
            Stmt::FunctionDef(function) => return add(&function.name),
            Stmt::ClassDef(class) => return add(&class.name),
            Stmt::Import(import) => {
                for alias in &import.names {
                    let name = alias.asname.as_ref().unwrap_or(&alias.name);
                    add(name.split('.').next().unwrap_or(name));
                }
            }
            Stmt::ImportFrom(import) => {
                import
                    .names
                    .iter()
                    .for_each(|alias| add(alias.asname.as_ref().unwrap_or(&alias.name)));
            }
            Stmt::Try(attempt) => {
                for ExceptHandler::ExceptHandler(handler) in &attempt.handlers {
                    handler.name.iter().for_each(|name| add(name));
                }
            }
            _ => {}
        }
        visitor::walk_stmt(self, statement);
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        let name = match pattern {
            Pattern::MatchAs(pattern) => pattern.name.as_ref(),
            Pattern::MatchStar(pattern) => pattern.name.as_ref(),
            Pattern::MatchMapping(pattern) => pattern.rest.as_ref(),
            _ => None,
        };
        self.names.extend(name.map(|name| name.as_str().to_owned()));
        visitor::walk_pattern(self, pattern);
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Name(name) if name.ctx.is_store() || name.ctx.is_del() => {
                self.names.insert(name.id.as_str().to_owned());
            }
            Expr::Lambda(_)
            | Expr::ListComp(_)
            | Expr::SetComp(_)
            | Expr::DictComp(_)
            | Expr::Generator(_) => {}
            Expr::Named(named) => {
                self.target(&named.target);
                visitor::walk_expr(self, expression);
            }
            _ => visitor::walk_expr(self, expression),
        }
    }
}

/// What statements may change beside the names they bind: owners of attributes and items, receivers and arguments of
/// calls.
#[derive(Default)]
struct Changed<'a> {
    expressions: Vec<&'a Expr>,
    called: Vec<&'a Expr>,
}

impl<'a> Visitor<'a> for Changed<'a> {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::FunctionDef(_) => {}
            Stmt::AugAssign(assign) => {
                self.expressions.push(&assign.target);
                visitor::walk_stmt(self, statement);
            }
            _ => visitor::walk_stmt(self, statement),
        }
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Attribute(attribute) if attribute.ctx.is_store() || attribute.ctx.is_del() => {
                self.expressions.push(&attribute.value);
            }
            Expr::Subscript(subscript) if subscript.ctx.is_store() || subscript.ctx.is_del() => {
                self.expressions.push(&subscript.value);
            }
            Expr::Call(call) => {
                self.called.push(&call.func);
                if let Expr::Attribute(attribute) = &*call.func {
                    self.expressions.push(&attribute.value);
                }
                self.expressions.extend(&call.arguments.args);
                self.expressions
                    .extend(call.arguments.keywords.iter().map(|keyword| &keyword.value));
            }
            _ => {}
        }
        visitor::walk_expr(self, expression);
    }
}

/// What is called, is given to what is called, or decorates, in statements and in functions in them.
#[derive(Default)]
struct Declarations<'a>(Vec<&'a Expr>);

impl<'a> Visitor<'a> for Declarations<'a> {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        if let Stmt::FunctionDef(function) = statement {
            self.0.extend(
                function
                    .decorator_list
                    .iter()
                    .map(|decorator| &decorator.expression),
            );
        }
        visitor::walk_stmt(self, statement);
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        if let Expr::Call(call) = expression {
            self.0.push(&call.func);
            self.0.extend(&call.arguments.args);
            self.0
                .extend(call.arguments.keywords.iter().map(|keyword| &keyword.value));
        }
        visitor::walk_expr(self, expression);
    }
}

/// Whether a function yields.
#[derive(Default)]
struct Yields(bool);

impl<'a> Visitor<'a> for Yields {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        if !matches!(statement, Stmt::FunctionDef(_) | Stmt::ClassDef(_)) {
            visitor::walk_stmt(self, statement);
        }
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Yield(_) | Expr::YieldFrom(_) => self.0 = true,
            Expr::Lambda(_) => {}
            _ => visitor::walk_expr(self, expression),
        }
    }
}

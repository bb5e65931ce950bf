//! Statements of which nobody knows whether, or how far, they run: what they may have done is forgotten.

use std::rc::Rc;

use indexmap::IndexMap;
use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{ExceptHandler, Expr, Stmt, StmtTry, StmtWith};
use ruff_text_size::Ranged;

use super::statements::Flow;
use super::syntax::{Bound, Changed, Declarations, jumps, leaves};
use super::value::{Body, Unknown, Value};
use super::{Frame, Reader};

/// How far functions that call each other are looked into for tasks.
const CALLS: u32 = 8;

impl Reader<'_> {
    /// `with`: its context may end the body where an exception is raised.
    pub(super) fn with(&mut self, with: &StmtWith, frame: &Frame) -> Flow {
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
    pub(super) fn attempt(&mut self, attempt: &StmtTry, frame: &Frame) -> Flow {
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
    pub(super) fn begin<'s>(&mut self, body: &'s [Stmt], frame: &Frame) -> Trial<'s> {
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

    pub(super) fn has_doubts(&self, trial: &Trial<'_>, flow: &Flow) -> bool {
        self.unknowns.get() != trial.unknowns || matches!(flow, Flow::Raise(_) | Flow::Lost(_))
    }

    /// Forgets what statements may have done that were ended somewhere.
    pub(super) fn end(&mut self, trial: &Trial<'_>, handled: &[String], frame: &Frame) {
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

    pub(super) fn bound_by(statements: &[Stmt]) -> Bound {
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
    pub(super) fn forget_changes(&mut self, statements: &[Stmt], frame: &Frame, why: &Rc<Unknown>) {
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

    pub(super) fn lose_owner(&mut self, target: &Expr, frame: &Frame, why: &Rc<Unknown>) {
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

    pub(super) fn declares_within(&self, statements: &[Stmt], frame: &Frame, left: u32) -> bool {
        let mut called = Declarations::default();
        visitor::walk_body(&mut called, statements);
        called
            .0
            .into_iter()
            .any(|called| self.value_declares(&glance(called, frame), left))
    }

    pub(super) fn value_declares(&self, value: &Value, left: u32) -> bool {
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
}

/// What a name, or an attribute of one, stands for, without doing anything.
pub(super) fn glance(expression: &Expr, frame: &Frame) -> Value {
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
pub(super) struct Trial<'a> {
    body: &'a [Stmt],
    before: IndexMap<String, Value>,
    reached: Vec<Value>,
    declared: usize,
    unknowns: u64,
    why: Rc<Unknown>,
}

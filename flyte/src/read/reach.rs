//! What code can reach: whatever is not known may be one of these values, and may have changed any of them.

use std::rc::Rc;

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{Expr, Stmt};

use super::value::{Aliases, Body, Function, Unknown, Value};
use super::{Frame, Reader};

/// Names that code reads, or says are its module's.
#[derive(Default)]
struct Read(Vec<String>);

impl<'a> Visitor<'a> for Read {
    fn visit_expr(&mut self, expression: &'a Expr) {
        if let Expr::Name(name) = expression {
            self.0.push(name.id.as_str().to_owned());
        }
        visitor::walk_expr(self, expression);
    }
}

/// Names that a function says are its module's.
#[derive(Default)]
struct Globals(Vec<String>);

impl<'a> Visitor<'a> for Globals {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        if let Stmt::Global(global) = statement {
            self.0
                .extend(global.names.iter().map(|name| name.as_str().to_owned()));
        }
        visitor::walk_stmt(self, statement);
    }

    fn visit_expr(&mut self, _: &'a Expr) {}
}

fn read_by(statements: &[Stmt]) -> Vec<String> {
    let mut names = Read::default();
    visitor::walk_body(&mut names, statements);
    names.0
}

fn read_in(expression: &Expr) -> Vec<String> {
    let mut names = Read::default();
    names.visit_expr(expression);
    names.0
}

impl Reader<'_> {
    /// What statements can reach by the names in them, and by the functions these name.
    pub(super) fn reached(&self, statements: &[Stmt], frame: &Frame) -> Vec<Value> {
        self.reached_from(Self::named(&read_by(statements), frame))
    }

    pub(super) fn named_by(statements: &[Stmt], frame: &Frame) -> Vec<Value> {
        Self::named(&read_by(statements), frame)
    }

    pub(super) fn named_in(expression: &Expr, frame: &Frame) -> Vec<Value> {
        Self::named(&read_in(expression), frame)
    }

    fn named(names: &[String], frame: &Frame) -> Vec<Value> {
        names.iter().filter_map(|name| frame.lookup(name)).collect()
    }

    /// What values give access to, themselves included.
    pub(super) fn reached_from(&self, mut open: Vec<Value>) -> Vec<Value> {
        let mut reached = Aliases::new();
        while let Some(value) = open.pop() {
            let Some(object) = value.object() else {
                continue;
            };
            if reached.insert(object, value.clone()).is_some() {
                continue;
            }
            match &value {
                Value::Function(function) => {
                    let frame = self.frame_of(function, Rc::default());
                    let inner = match &function.body {
                        Body::Statements(body) | Body::Later(body) => read_by(body),
                        Body::Expression(body) => read_in(body),
                    };
                    open.extend(Self::named(&inner, &frame));
                    open.extend(function.defaults.values().cloned());
                }
                Value::Class(names) => open.extend(names.borrow().values().cloned()),
                Value::Module(module) => open.extend(module.names.borrow().values().cloned()),
                Value::Partial(partial) => {
                    open.push(partial.0.clone());
                    open.extend(partial.1.values().cloned());
                }
                Value::Method(method) => open.push(method.0.clone()),
                Value::List(list) => open.extend(list.held.borrow().iter().cloned()),
                Value::Tuple(items) => open.extend(items.iter().cloned()),
                Value::Holder(items) => open.extend(items.iter().cloned()),
                Value::Dict(dict) => {
                    let pairs = dict.held.borrow();
                    open.extend(pairs.iter().map(|(_, value)| value.clone()));
                }
                Value::Unknown(unknown) => open.extend(unknown.aliases.borrow().values().cloned()),
                _ => {}
            }
        }
        reached.into_values().collect()
    }

    /// What a call may change that is not followed: everything it can reach, and the names of modules that functions
    /// say they bind.
    pub(super) fn forget_called(&mut self, called: &Value, why: &Rc<Unknown>) {
        if !matches!(
            called,
            Value::Function(_) | Value::Partial(_) | Value::Unknown(_) | Value::Method(_)
        ) {
            return;
        }
        let reached = self.reached_from(vec![called.clone()]);
        let functions: Vec<_> = reached
            .iter()
            .filter_map(|value| match value {
                Value::Function(function) => Some(Rc::clone(function)),
                _ => None,
            })
            .collect();
        if functions.is_empty() && !matches!(called, Value::Partial(_) | Value::Method(_)) {
            // Nothing of ours runs.
            return;
        }
        for function in &functions {
            Self::forget_globals(function, why, &reached);
        }
        for value in &reached {
            value.lose(why);
        }
    }

    fn forget_globals(function: &Function, why: &Rc<Unknown>, reached: &[Value]) {
        let (Body::Statements(body) | Body::Later(body)) = &function.body else {
            return;
        };
        let mut names = Globals::default();
        visitor::walk_body(&mut names, body);
        for name in names.0 {
            let mut known = function.module.names.borrow_mut();
            let doubt = why.about(reached.to_vec());
            doubt.may_be(known.get(&name).cloned().into_iter().collect());
            known.insert(name, Value::Unknown(doubt));
        }
    }
}

//! What statements do by the look of them: names they bind, things they change, ways they leave.

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{ExceptHandler, Expr, Pattern, Stmt};

/// Whether statements may go elsewhere than to what follows.
pub(super) fn leaves<'a>(statements: impl Iterator<Item = &'a Stmt>) -> bool {
    let mut out = WaysOut {
        loops: true,
        raises: true,
        found: false,
    };
    statements.for_each(|statement| out.visit_stmt(statement));
    out.found
}

/// Whether statements may end the function around them.
pub(super) fn returns<'a>(statements: impl Iterator<Item = &'a Stmt>) -> bool {
    let mut out = WaysOut {
        loops: false,
        raises: true,
        found: false,
    };
    statements.for_each(|statement| out.visit_stmt(statement));
    out.found
}

/// Whether statements may go elsewhere by themselves, exceptions apart.
pub(super) fn jumps<'a>(statements: impl Iterator<Item = &'a Stmt>) -> bool {
    let mut out = WaysOut {
        loops: true,
        raises: false,
        found: false,
    };
    statements.for_each(|statement| out.visit_stmt(statement));
    out.found
}

pub(super) struct WaysOut {
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
pub(super) struct Bound {
    pub(super) names: indexmap::IndexSet<String>,
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
pub(super) struct Changed<'a> {
    pub(super) expressions: Vec<&'a Expr>,
    pub(super) called: Vec<&'a Expr>,
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
pub(super) struct Declarations<'a>(pub(super) Vec<&'a Expr>);

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
pub(super) struct Yields(pub(super) bool);

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

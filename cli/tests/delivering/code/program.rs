//! Programs that chance makes: they change lists, dictionaries and images in every way that people do, and in some that
//! nobody can follow without running them.

use std::fmt::Write as _;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

const TEXTS: [&str; 6] = ["a", "b", "it's", "x-y", "", "B"];
const HEAD: &str = r#"import bisect
import operator
import os
from functools import partial

from flytekit import ImageSpec, task

s0, s1, s2 = "a", "b", os.environ.get("CORPUS_NAME", "c")
l0, l1, l2 = ["a", "b"], [], ["x", "y", "z"]
d0, d1 = {"a": "1"}, {}
n0, n1 = 1, 3
v0 = d0.values()
i0 = ImageSpec(name="zero", packages=l0)
i1 = ImageSpec(name="one", env=d0, apt_packages=l1)


def change(items, more="more"):
    items.append(more)
    return len(items)


def set_globals(value):
    global s0, l1
    s0 = value
    l1 = l1 + [value]


def decide(text, items):
    for item in items:
        if item == text:
            return item + "!"
    return "none"


"#;

struct Program<'a> {
    random: &'a mut StdRng,
    text: String,
    loops: u32,
    tasks: u32,
}

/// The text of a program.
pub(crate) fn program(random: &mut StdRng) -> String {
    let mut program = Program {
        random,
        text: HEAD.to_owned(),
        loops: 0,
        tasks: 0,
    };
    let statements = program.random.random_range(3..14);
    for _ in 0..statements {
        program.statement(0, 2);
    }
    program.task(0);
    program.text
}

impl Program<'_> {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(self.random).expect("some")
    }

    fn line(&mut self, depth: usize, line: &str) {
        let _ = writeln!(self.text, "{}{line}", "    ".repeat(depth));
    }

    fn string(&mut self, depth: u32) -> String {
        let literal = |text: &str| format!("{text:?}");
        match self.random.random_range(0..if depth == 0 { 5 } else { 14 }) {
            0 | 1 => literal(self.pick(&TEXTS)),
            2..=4 => self.pick(&["s0", "s1", "s2"]).to_owned(),
            5 => format!("{} + {}", self.string(0), self.string(0)),
            6 => format!(
                "f\"{{{}}}-{{n0}}\"",
                self.pick(&["s0", "s1", "s2", "l0[0]"])
            ),
            7 => format!(
                "({} if {} else {})",
                self.string(0),
                self.condition(0),
                self.string(0)
            ),
            8 => format!(
                "{}.get({}, {})",
                self.pick(&["d0", "d1"]),
                self.string(0),
                self.string(0)
            ),
            9 => format!("\",\".join({})", self.list(0)),
            10 => format!("decide({}, {})", self.string(0), self.list(0)),
            11 => format!(
                "os.environ.get({:?}, {})",
                self.pick(&["CORPUS_NAME", "CORPUS_NO"]),
                self.string(0)
            ),
            12 => format!(
                "{}[{}]",
                self.pick(&["l0", "l1", "l2"]),
                self.random.random_range(-2..2)
            ),
            _ => format!("{}.upper()", self.string(0)),
        }
    }

    fn list(&mut self, depth: u32) -> String {
        match self.random.random_range(0..if depth == 0 { 4 } else { 9 }) {
            0..=2 => self.pick(&["l0", "l1", "l2"]).to_owned(),
            3 => format!("[{}, {}]", self.string(0), self.string(0)),
            4 => format!("{} + {}", self.list(0), self.list(0)),
            5 => format!(
                "[x + {} for x in {} if x != {}]",
                self.string(0),
                self.list(0),
                self.string(0)
            ),
            6 => format!("list({})", self.pick(&["l0", "l1", "l2", "v0"])),
            7 => format!("[*{}, {}]", self.list(0), self.string(0)),
            _ => format!("{}[{}:]", self.list(0), self.random.random_range(-1..2)),
        }
    }

    fn dict(&mut self) -> String {
        match self.random.random_range(0..5) {
            0 | 1 => self.pick(&["d0", "d1"]).to_owned(),
            2 => format!(
                "{{**{}, {}: {}}}",
                self.pick(&["d0", "d1"]),
                self.string(0),
                self.string(0)
            ),
            3 => format!("{{k: k for k in {}}}", self.list(0)),
            _ => format!("dict({}, z={})", self.pick(&["d0", "d1"]), self.string(0)),
        }
    }

    fn image(&mut self) -> String {
        match self.random.random_range(0..6) {
            0 => self.pick(&["i0", "i1"]).to_owned(),
            1 => format!(
                "ImageSpec(name={:?}, packages={})",
                self.pick(&["p", "Q"]),
                self.list(1)
            ),
            2 => format!(
                "ImageSpec(env={}, base_image={})",
                self.dict(),
                self.pick(&["i0", "i1"])
            ),
            3 => format!(
                "{}.with_packages({})",
                self.pick(&["i0", "i1"]),
                self.list(1)
            ),
            4 => format!(
                "{}.with_apt_packages({})",
                self.pick(&["i0", "i1"]),
                self.string(1)
            ),
            _ => format!(
                "ImageSpec(name=\"r\", packages={}, env={})",
                self.list(0),
                self.dict()
            ),
        }
    }

    fn condition(&mut self, depth: u32) -> String {
        match self.random.random_range(0..if depth == 0 { 6 } else { 8 }) {
            0 => format!("{} == {}", self.string(0), self.string(0)),
            1 => format!("len({}) > {}", self.list(0), self.random.random_range(0..4)),
            2 => format!("{} in {}", self.string(0), self.list(0)),
            3 => self.pick(&["s0", "l1", "d1", "n0"]).to_owned(),
            4 => "\"CORPUS_NAME\" in os.environ".to_owned(),
            5 => "n0 < n1".to_owned(),
            6 => format!("not {} and {}", self.condition(0), self.condition(0)),
            // Known to nobody who does not run it.
            _ => self
                .pick(&["os.getpid() > 0", "os.getpid() < 0"])
                .to_owned(),
        }
    }

    fn block(&mut self, depth: usize, left: u32) {
        for _ in 0..self.random.random_range(1..3) {
            self.statement(depth, left - 1);
        }
    }

    fn task(&mut self, depth: usize) {
        self.tasks += 1;
        let image = self.pick(&["i0", "i1"]).to_owned();
        let name = format!("t{}", self.tasks);
        match self.random.random_range(0..3) {
            0 => self.line(depth, &format!("@partial(task, container_image={image})")),
            _ => self.line(depth, &format!("@task(container_image={image})")),
        }
        self.line(depth, &format!("def {name}() -> int:"));
        self.line(depth + 1, "return 1");
    }

    fn statement(&mut self, depth: usize, left: u32) {
        let text = match self.random.random_range(0..if left == 0 { 25 } else { 35 }) {
            0 | 1 => format!("{} = {}", self.pick(&["s0", "s1", "s2"]), self.string(1)),
            2 | 3 => format!("{} = {}", self.pick(&["l0", "l1", "l2"]), self.list(1)),
            4 | 5 => format!(
                "{}.append({})",
                self.pick(&["l0", "l1", "l2", "i0.packages"]),
                self.string(1)
            ),
            6 => format!("{} += {}", self.pick(&["l0", "l1", "l2"]), self.list(0)),
            7 => format!("{}.extend({})", self.pick(&["l0", "l1"]), self.list(1)),
            8 => format!(
                "{}[{}] = {}",
                self.pick(&["d0", "d1"]),
                self.string(0),
                self.string(1)
            ),
            9 => format!("{}.update({})", self.pick(&["d0", "d1"]), self.dict()),
            10 => format!("{} = {}", self.pick(&["d0", "d1"]), self.dict()),
            11 | 12 => format!("{} = {}", self.pick(&["i0", "i1"]), self.image()),
            13 => format!("{}.env = {}", self.pick(&["i0", "i1"]), self.dict()),
            14 => format!("n0 = change({}, more={})", self.list(0), self.string(0)),
            15 => format!("set_globals({})", self.string(1)),
            16 => format!(
                "{}.insert({}, {})",
                self.pick(&["l0", "l1"]),
                self.random.random_range(-2..3),
                self.string(0)
            ),
            // What nobody here knows, and what changes.
            17 => format!(
                "list.append({}, {})",
                self.pick(&["l0", "l1", "l2"]),
                self.string(0)
            ),
            18 => format!(
                "bisect.insort({}, {})",
                self.pick(&["l0", "l1", "l2"]),
                self.string(0)
            ),
            19 => format!(
                "operator.setitem({}, {}, {})",
                self.pick(&["d0", "d1"]),
                self.string(0),
                self.string(0)
            ),
            20 => format!("s1, l2 = {}, {}", self.string(0), self.list(0)),
            21 => format!(
                "del {}[{}:]",
                self.pick(&["l0", "l2"]),
                self.random.random_range(0..3)
            ),
            _ => return self.compound(depth, left),
        };
        self.line(depth, &text);
    }

    /// Statements of several lines; those without others in them are 22 to 24.
    fn compound(&mut self, depth: usize, left: u32) {
        match self
            .random
            .random_range(22..if left == 0 { 25 } else { 35 })
        {
            22 => {
                let (condition, list, text) = (self.condition(1), self.list(0), self.string(0));
                self.line(depth, &format!("{condition} and {list}.append({text})"));
            }
            23 => {
                let list = self.pick(&["l0", "l1", "l2"]).to_owned();
                self.line(depth, &format!("for x in {list}:"));
                self.line(depth + 1, &format!("{list}.remove(x)"));
            }
            24 => {
                let made = self
                    .pick(&[
                        "d0.values()",
                        "d1.keys()",
                        "map(str, l0)",
                        "(x for x in l1)",
                    ])
                    .to_owned();
                self.line(depth, &format!("v0 = {made}"));
            }
            25..=27 => {
                let condition = self.condition(1);
                self.line(depth, &format!("if {condition}:"));
                self.block(depth + 1, left);
                if self.random.random_bool(0.5) {
                    self.line(depth, "else:");
                    self.block(depth + 1, left);
                }
            }
            28 | 29 => {
                self.loops += 1;
                let (name, over) = (format!("x{}", self.loops), self.list(0));
                // A list that grows in a loop over itself does not end.
                self.line(depth, &format!("for {name} in list({over}):"));
                if self.random.random_bool(0.4) {
                    let condition = self.condition(1);
                    let way = self.pick(&["break", "continue"]).to_owned();
                    self.line(depth + 1, &format!("if {condition}:"));
                    self.line(depth + 2, &way);
                }
                self.line(depth + 1, &format!("s2 = s2 + {name}"));
                self.block(depth + 1, left);
            }
            30 | 31 => {
                self.line(depth, "try:");
                if self.random.random_bool(0.5) {
                    self.block(depth + 1, left);
                }
                let raising = self
                    .pick(&[
                        "d0[\"no\"]",
                        "n1 = int(s0)",
                        "l1[7]",
                        "raise ValueError",
                        "s1 = d0[\"a\"]",
                        "pass",
                    ])
                    .to_owned();
                self.line(depth + 1, &raising);
                self.block(depth + 1, left);
                self.line(depth, "except Exception:");
                self.block(depth + 1, left);
            }
            32 => {
                self.loops += 1;
                let list = self.pick(&["l0", "l2"]).to_owned();
                self.line(depth, &format!("while len({list}) > 2:"));
                self.line(depth + 1, &format!("{list}.pop()"));
            }
            33 => {
                self.line(depth, "with open(os.devnull) as f:");
                self.block(depth + 1, left);
            }
            _ => self.task(depth),
        }
    }
}

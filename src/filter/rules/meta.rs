//! `meta` rules: expressions over the hits of other rules.

/// A compiled expression: numbers go on a stack, operators take from it.
#[derive(Clone, PartialEq, Debug)]
pub struct Expression {
    steps: Vec<Step>,
    /// Names in the order of their first use; [`Step::Name`] counts in it.
    names: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    Number(f64),
    Name(usize),
    Not,
    Negate,
    Binary(Operator),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operator {
    Or,
    And,
    BitOr,
    BitXor,
    BitAnd,
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

/// Longest expression; SpamAssassin's own have a few hundred names.
const STEPS_MAX: usize = 10_000;
const NESTING_MAX: u32 = 100;

impl Expression {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser =
            Parser { rest: text.trim_start(), out: Self { steps: Vec::new(), names: Vec::new() }, depth: 0 };
        parser.binary(0)?;
        if !parser.rest.is_empty() {
            return Err(format!("unexpected `{}`", parser.rest.chars().take(20).collect::<String>()));
        }
        Ok(parser.out)
    }

    /// The rules that it asks for, each once.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Positions in [`Self::names`] of rules that must all have hit for the value to be anything but 0. Hits are never
    /// below 0.
    pub fn required(&self) -> Vec<usize> {
        let mut stack: Vec<Required> = Vec::new();
        for step in &self.steps {
            let required = match *step {
                Step::Number(number) => Required { number: Some(number), all: Vec::new() },
                Step::Name(at) => Required { number: None, all: vec![at] },
                Step::Not => {
                    stack.pop();
                    Required::default()
                }
                Step::Negate => Required { number: None, all: stack.pop().unwrap_or_default().all },
                Step::Binary(operator) => {
                    let (right, left) = (stack.pop().unwrap_or_default(), stack.pop().unwrap_or_default());
                    left.with(operator, right)
                }
            };
            stack.push(required);
        }
        stack.pop().unwrap_or_default().all
    }

    /// What the value can be where `hits(i)` says what the hits of the rule `names()[i]` can be.
    pub fn range(&self, mut hits: impl FnMut(usize) -> Range) -> Range {
        let mut stack: Vec<Range> = Vec::new();
        for step in &self.steps {
            let mut pop = || stack.pop().unwrap_or(Range::of(0.0));
            let range = match *step {
                Step::Number(number) => Range::of(number),
                Step::Name(at) => hits(at),
                Step::Not => {
                    let range = pop();
                    Range::truth(range.is_zero(), range.is_never_zero())
                }
                Step::Negate => {
                    let range = pop();
                    Range::new(-range.high, -range.low)
                }
                Step::Binary(operator) => {
                    let (right, left) = (pop(), pop());
                    left.combined(operator, right)
                }
            };
            stack.push(range);
        }
        stack.pop().unwrap_or(Range::of(0.0))
    }

    /// The value where `hits(i)` says how often the rule `names()[i]` hit.
    pub fn value(&self, hits: impl Fn(usize) -> f64, stack: &mut Vec<f64>) -> f64 {
        stack.clear();
        for step in &self.steps {
            match *step {
                Step::Number(number) => stack.push(number),
                Step::Name(at) => stack.push(hits(at)),
                Step::Not => {
                    let value = stack.pop().unwrap_or(0.0);
                    stack.push(truth(value == 0.0));
                }
                Step::Negate => {
                    let value = stack.pop().unwrap_or(0.0);
                    stack.push(-value);
                }
                Step::Binary(operator) => {
                    let right = stack.pop().unwrap_or(0.0);
                    let left = stack.pop().unwrap_or(0.0);
                    stack.push(operator.apply(left, right));
                }
            }
        }
        stack.pop().unwrap_or(0.0)
    }
}

/// What a value can be: from the first to the second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Range {
    low: f64,
    high: f64,
}

impl Range {
    pub const ANY: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };
    const EITHER: Self = Self { low: 0.0, high: 1.0 };

    pub const fn new(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    /// Just this value.
    pub const fn of(value: f64) -> Self {
        Self { low: value, high: value }
    }

    pub fn is_zero(self) -> bool {
        self == Self::of(0.0)
    }

    fn is_never_zero(self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    fn with(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// Hits of a rule whose value this is: what is below 0 counts as one.
    pub fn as_hits(self) -> Self {
        if self.low >= 0.0 { self } else { Self { low: 0.0, high: self.high.max(1.0) } }
    }

    /// 1 if it holds of all values, 0 if of none.
    fn truth(always: bool, never: bool) -> Self {
        match (always, never) {
            (true, _) => Self::of(1.0),
            (false, true) => Self::of(0.0),
            (false, false) => Self::EITHER,
        }
    }

    fn combined(self, operator: Operator, other: Self) -> Self {
        let (a, b) = (self, other);
        if a.low == a.high && b.low == b.high {
            return Self::of(operator.apply(a.low, b.low));
        }
        match operator {
            Operator::Or if a.is_zero() => b,
            Operator::Or if a.is_never_zero() => a,
            Operator::Or => a.with(b),
            Operator::And if a.is_zero() || b.is_zero() => Self::of(0.0),
            Operator::And if a.is_never_zero() => b,
            Operator::And => b.with(Self::of(0.0)),
            Operator::Add => Self::new(a.low + b.low, a.high + b.high),
            Operator::Subtract => Self::new(a.low - b.high, a.high - b.low),
            Operator::Multiply if a.is_zero() || b.is_zero() => Self::of(0.0),
            Operator::Less => Self::truth(a.high < b.low, a.low >= b.high),
            Operator::LessEqual => Self::truth(a.high <= b.low, a.low > b.high),
            Operator::Greater => Self::truth(a.low > b.high, a.high <= b.low),
            Operator::GreaterEqual => Self::truth(a.low >= b.high, a.high < b.low),
            Operator::Equal => Self::truth(false, a.high < b.low || b.high < a.low),
            Operator::Unequal => Self::truth(a.high < b.low || b.high < a.low, false),
            Operator::Multiply
            | Operator::BitOr
            | Operator::BitXor
            | Operator::BitAnd
            | Operator::Divide
            | Operator::Remainder
            | Operator::Power => Self::ANY,
        }
    }
}

/// What a part of an expression needs to be anything but 0.
#[derive(Default)]
struct Required {
    /// What it is, where it is a number.
    number: Option<f64>,
    /// Names, rising.
    all: Vec<usize>,
}

impl Required {
    fn with(self, operator: Operator, other: Self) -> Self {
        let (mut left, right) = (self.all, other.all);
        let all = match operator {
            Operator::And | Operator::BitAnd | Operator::Multiply | Operator::Divide | Operator::Remainder => {
                left.extend(right);
                left.sort_unstable();
                left.dedup();
                left
            }
            Operator::Or | Operator::BitOr | Operator::BitXor | Operator::Add | Operator::Subtract => {
                left.retain(|name| right.contains(name));
                left
            }
            // What is 0 is not above 0.
            Operator::Greater if other.number.is_some_and(|number| number >= 0.0) => left,
            Operator::GreaterEqual if other.number.is_some_and(|number| number > 0.0) => left,
            Operator::Equal if other.number.is_some_and(|number| number != 0.0) => left,
            Operator::Equal
            | Operator::Unequal
            | Operator::Less
            | Operator::LessEqual
            | Operator::Greater
            | Operator::GreaterEqual
            | Operator::Power => Vec::new(),
        };
        Self { number: None, all }
    }
}

impl Operator {
    /// Loosest first, as in Perl.
    const LEVELS: [&'static [(&'static str, Self)]; 9] = [
        &[("||", Self::Or), ("or ", Self::Or)],
        &[("&&", Self::And), ("and ", Self::And)],
        &[("|", Self::BitOr), ("^", Self::BitXor)],
        &[("&", Self::BitAnd)],
        &[("==", Self::Equal), ("!=", Self::Unequal)],
        &[("<=", Self::LessEqual), (">=", Self::GreaterEqual), ("<", Self::Less), (">", Self::Greater)],
        &[("+", Self::Add), ("-", Self::Subtract)],
        &[("*", Self::Multiply), ("/", Self::Divide), ("%", Self::Remainder)],
        &[("**", Self::Power)],
    ];

    fn apply(self, left: f64, right: f64) -> f64 {
        let bits = |value: f64| if value.is_finite() { value as i64 } else { 0 };
        #[expect(clippy::cast_precision_loss, reason = "rule hits are small numbers")]
        let number = |value: i64| value as f64;
        match self {
            // As in Perl, these give one of their operands.
            Self::Or => {
                if left == 0.0 {
                    right
                } else {
                    left
                }
            }
            Self::And => {
                if left == 0.0 {
                    left
                } else {
                    right
                }
            }
            Self::BitOr => number(bits(left) | bits(right)),
            Self::BitXor => number(bits(left) ^ bits(right)),
            Self::BitAnd => number(bits(left) & bits(right)),
            Self::Equal => truth(left == right),
            Self::Unequal => truth(left != right),
            Self::Less => truth(left < right),
            Self::LessEqual => truth(left <= right),
            Self::Greater => truth(left > right),
            Self::GreaterEqual => truth(left >= right),
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => {
                if right == 0.0 {
                    0.0
                } else {
                    left / right
                }
            }
            Self::Remainder => {
                if right == 0.0 {
                    0.0
                } else {
                    left % right
                }
            }
            Self::Power => left.powf(right),
        }
    }
}

const fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

struct Parser<'a> {
    rest: &'a str,
    out: Expression,
    depth: u32,
}

impl Parser<'_> {
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest[bytes..].trim_start();
    }

    fn push(&mut self, step: Step) -> Result<(), String> {
        if self.out.steps.len() >= STEPS_MAX {
            return Err(format!("the expression has more than {STEPS_MAX} parts"));
        }
        self.out.steps.push(step);
        Ok(())
    }

    fn binary(&mut self, level: usize) -> Result<(), String> {
        let Some(operators) = Operator::LEVELS.get(level) else { return self.unary() };
        self.binary(level + 1)?;
        while let Some((token, operator)) = operators.iter().find(|(token, _)| self.at(token)) {
            self.skip(token.len());
            self.binary(level + 1)?;
            self.push(Step::Binary(*operator))?;
        }
        Ok(())
    }

    /// True if `token` comes next and is not the start of a longer one.
    fn at(&self, token: &str) -> bool {
        let longer = match token {
            "|" => "||",
            "&" => "&&",
            "*" => "**",
            _ => "\0",
        };
        self.rest.starts_with(token) && !self.rest.starts_with(longer)
    }

    fn unary(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err("the expression is nested too deeply".to_owned());
        }
        let outcome = self.operand();
        self.depth -= 1;
        outcome
    }

    fn operand(&mut self) -> Result<(), String> {
        let Some(first) = self.rest.chars().next() else { return Err("the expression ends too early".to_owned()) };
        match first {
            '!' => {
                self.skip(1);
                self.unary()?;
                self.push(Step::Not)
            }
            '-' => {
                self.skip(1);
                self.unary()?;
                self.push(Step::Negate)
            }
            '+' => {
                self.skip(1);
                self.unary()
            }
            '(' => {
                self.skip(1);
                self.binary(0)?;
                if !self.rest.starts_with(')') {
                    return Err("a bracket is not closed".to_owned());
                }
                self.skip(1);
                Ok(())
            }
            '0'..='9' | '.' => {
                let length = self.rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(self.rest.len());
                let number =
                    self.rest[..length].parse().map_err(|_| format!("`{}` is no number", &self.rest[..length]))?;
                self.skip(length);
                self.push(Step::Number(number))
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
                let length = self.rest.find(end).unwrap_or(self.rest.len());
                let name = self.rest[..length].to_owned();
                self.skip(length);
                if self.rest.starts_with('(') {
                    return Err(format!("the function `{name}` is not supported"));
                }
                let known = self.out.names.iter().position(|known| *known == name);
                let at = known.unwrap_or_else(|| {
                    self.out.names.push(name);
                    self.out.names.len() - 1
                });
                self.push(Step::Name(at))
            }
            other => Err(format!("unexpected `{other}`")),
        }
    }
}

/// An order in which every expression comes after those it needs. `needs(i)` are positions below `count`.
/// The second list holds one chain for each cycle, and whatever needs a cycle is left out of the first.
pub fn order(count: usize, needs: impl Fn(usize) -> Vec<usize>) -> (Vec<usize>, Vec<Vec<usize>>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
        Broken,
    }
    let mut marks = vec![Mark::New; count];
    let (mut order, mut cycles) = (Vec::with_capacity(count), Vec::new());
    for root in 0..count {
        if marks[root] != Mark::New {
            continue;
        }
        // An explicit stack: rule files may hold chains longer than a thread's stack.
        marks[root] = Mark::Open;
        let mut stack = vec![(root, needs(root), 0_usize, false)];
        while let Some((node, below, next, broken)) = stack.last_mut() {
            if let Some(child) = below.get(*next).copied() {
                *next += 1;
                match marks[child] {
                    Mark::New => {
                        marks[child] = Mark::Open;
                        stack.push((child, needs(child), 0, false));
                    }
                    Mark::Open => {
                        *broken = true;
                        let start = stack.iter().position(|(node, ..)| *node == child).unwrap_or(0);
                        cycles.push(stack[start..].iter().map(|(node, ..)| *node).collect());
                    }
                    Mark::Broken => *broken = true,
                    Mark::Done => {}
                }
            } else {
                let (node, broken) = (*node, *broken);
                stack.pop();
                marks[node] = if broken { Mark::Broken } else { Mark::Done };
                if !broken {
                    order.push(node);
                } else if let Some((_, _, _, parent)) = stack.last_mut() {
                    *parent = true;
                }
            }
        }
    }
    (order, cycles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> f64 {
        // Each name stands for the number of its letters.
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        expression.value(|at| expression.names()[at].trim_matches('_').len() as f64, &mut Vec::new())
    }

    #[test]
    fn expressions_have_perls_values() {
        for (text, expected) in [
            ("A && B", 1.0),
            ("A && !B", 0.0),
            ("__ || BB", 2.0),
            ("(A + BB + CCC) >= 6", 1.0),
            ("A + BB * CCC", 7.0),
            ("(A + BB) * CCC > 8", 1.0),
            ("A - 1 == 0", 1.0),
            ("!(A || B) && C", 0.0),
            ("10 / 4", 2.5),
            ("7 % 4", 3.0),
            ("1 / 0", 0.0),
            ("2 ** 3", 8.0),
            ("A != 1 || CCC < 3", 0.0),
            ("A & 3 | 4", 5.0),
            ("1 ^ 1", 0.0),
            ("!!A", 1.0),
            ("-A + 2", 1.0),
            ("A and BB or C", 2.0),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn what_expressions_cannot_do_without() {
        for (text, expected) in [
            ("A && (B || C) && !D", "A"),
            ("A && B || A && C", "A"),
            ("(A && B) > 0", "A B"),
            ("(A + B) >= 1", ""),
            ("A * B - A", "A"),
            ("!(A && B)", ""),
            ("A < 1", ""),
            ("1", ""),
            ("-A / (B || B)", "A B"),
        ] {
            let expression = Expression::parse(text).unwrap();
            let names: Vec<&str> = expression.required().iter().map(|at| expression.names()[*at].as_str()).collect();
            assert_eq!(names.join(" "), expected, "{text}");
            for without in expression.required() {
                assert_eq!(expression.value(|at| f64::from(u8::from(at != without)), &mut Vec::new()), 0.0, "{text}");
            }
        }
    }

    #[test]
    fn broken_expressions_say_why() {
        for text in ["", "A &&", "(A", "A B", "A)", "1.2.3", "f(A)", "A $ B", "\u{e4}", &"(".repeat(10_000)] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
        assert!(Expression::parse(&["A"; 20_000].join("+")).is_err());
    }

    #[test]
    fn order_follows_needs_and_finds_cycles() {
        let needs: &[&[usize]] = &[&[1, 2], &[2], &[], &[4], &[5], &[3], &[3], &[7]];
        let (order, cycles) = order(needs.len(), |at| needs[at].to_vec());
        assert_eq!(order, [2, 1, 0]);
        assert_eq!(cycles, [vec![3, 4, 5], vec![7]]);
    }
}

//! Whether it still matters if a rule hits: most rules only feed others, and what costs much is not looked for where no rule
//! that scores can come of it.

use super::meta::{Expression, Range};
use super::set::{Meta, Operand, RuleSet};

/// What is known of one message's rules while some are put off.
#[derive(Debug)]
pub struct Prospect<'r> {
    rules: &'r RuleSet,
    /// Rules that are put off.
    open: Vec<bool>,
    /// For each meta: what its value can be, as far as it was asked for.
    ranges: Vec<Option<Range>>,
    /// Rules of which nothing comes, found while one was asked for.
    nowhere: Vec<usize>,
}

/// Metas on metas on metas are taken to matter from here on.
const DEPTH_MAX: u32 = 20;

impl<'r> Prospect<'r> {
    pub fn of(rules: &'r RuleSet) -> Self {
        Self { rules, open: vec![false; rules.len()], ranges: vec![None; rules.metas.len()], nowhere: Vec::new() }
    }

    pub fn put_off(&mut self, rule: usize) {
        self.open[rule] = true;
    }

    /// The rule's hits are known now, or do not matter: none then.
    pub fn settle(&mut self, rule: usize) {
        self.open[rule] = false;
        self.forget(rule);
    }

    /// What was found out with the rule's hits is found out anew. What nothing is known of, nothing was made of.
    fn forget(&mut self, rule: usize) {
        let rules = self.rules;
        for at in &rules.users[rule] {
            if self.ranges[*at].take().is_some() {
                self.forget(rules.metas[*at].rule);
            }
        }
    }

    /// True if what the message scores, or what is told of it, may depend on the rule's hits. `findings`: names that metas
    /// may ask for.
    pub fn matters(&mut self, rule: usize, hits: &[f64], findings: &[&str]) -> bool {
        self.nowhere.clear();
        self.leads_on(rule, &Known { hits, findings }, 0)
    }

    fn leads_on(&mut self, rule: usize, known: &Known<'_>, depth: u32) -> bool {
        if depth > DEPTH_MAX {
            return true;
        }
        if self.nowhere.contains(&rule) {
            return false;
        }
        let rules = self.rules;
        let leads_on = rules.users[rule].iter().any(|at| {
            let Meta { rule, .. } = &rules.metas[*at];
            let tells = !rules.rules[*rule].name.starts_with("__");
            !self.range(*at, known, depth).is_zero() && (tells || self.leads_on(*rule, known, depth + 1))
        });
        if !leads_on {
            self.nowhere.push(rule);
        }
        leads_on
    }

    /// What a meta's hits can be.
    fn range(&mut self, at: usize, known: &Known<'_>, depth: u32) -> Range {
        if let Some(range) = self.ranges[at] {
            return range;
        }
        let Meta { expression, operands, needs, .. } = &self.rules.metas[at];
        let cannot = needs
            .iter()
            .any(|rule| self.rules.meta_of[*rule].is_none() && !self.open[*rule] && known.hits[*rule] == 0.0);
        let range = if cannot {
            Range::of(0.0)
        } else if depth > DEPTH_MAX {
            Range::ANY
        } else {
            self.counted(expression, operands, known, depth)
        };
        self.ranges[at] = Some(range);
        range
    }

    fn counted(&mut self, expression: &Expression, operands: &[Operand], known: &Known<'_>, depth: u32) -> Range {
        let value = expression.range(|at| match operands.get(at) {
            Some(Operand::Rule(rule)) => match self.rules.meta_of[*rule] {
                Some(meta) => self.range(meta, known, depth + 1),
                None if self.open[*rule] => Range::new(0.0, f64::from(self.rules.rules[*rule].hits_max)),
                None => Range::of(known.hits[*rule]),
            },
            Some(Operand::Finding(name)) => Range::of(f64::from(u8::from(known.findings.contains(&name.as_str())))),
            None => Range::of(0.0),
        });
        value.as_hits()
    }
}

struct Known<'k> {
    hits: &'k [f64],
    findings: &'k [&'k str],
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of `A`, `B` and `C` matters where the rules in `hits` have hit and the others of these three are open.
    fn open(text: &str, hits: &[&str]) -> String {
        let (rules, problems) = RuleSet::parse(
            "x",
            &format!("body __A /aaaa/\nbody __B /bbbb/\nbody __C /cccc/\nheader __H Subject =~ /hhhh/\n{text}"),
        );
        assert!(problems.is_empty(), "{problems:?}");
        let place = |name: &str| rules.names().position(|(known, _)| known == name);
        let mut known = vec![0.0; rules.len()];
        let mut prospect = Prospect::of(&rules);
        for name in ["__A", "__B", "__C", "__H"] {
            let Some(place) = place(name) else { continue };
            if hits.contains(&name) {
                known[place] = 1.0;
            } else if name != "__H" {
                prospect.put_off(place);
            }
        }
        let matters = ["__A", "__B", "__C"].into_iter().filter(|name| {
            !hits.contains(name) && place(name).is_some_and(|place| prospect.matters(place, &known, &[]))
        });
        matters.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_can_still_matter() {
        for (text, hits, expected) in [
            ("meta M __A && __H", &[][..], ""),
            ("meta M __A && __H", &["__H"], "__A"),
            ("meta M __A && !__H", &["__H"], ""),
            ("meta M __A || __H", &["__H"], "__A"),
            ("meta M __A + __B + __H > 2", &[], ""),
            ("meta M __A + __B + __H > 2", &["__H"], "__A __B"),
            ("meta M __A + __B + __C > 1", &["__A"], "__B __C"),
            ("meta __N __A && __H\nmeta M !__N && __B", &[], "__B"),
            ("meta __N __A && __H\nmeta M !__N && __B", &["__H"], "__A __B"),
            ("meta __N __A && __B\nmeta M __N && __H", &[], ""),
            ("meta __N !__A\nmeta M __N", &[], "__A"),
            ("meta M __A < 1 && __H", &["__H"], "__A"),
            ("meta M (__A - __B) * __H", &[], ""),
            ("meta M 1 / (__A + __H)", &[], "__A"),
        ] {
            assert_eq!(open(text, hits), expected, "{text} {hits:?}");
        }
    }
}

//! Every fuzz target over its seeds and a seeded round of mutations: repeats run after run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::harness::wants_all;
use crate::targets::{ALL, Target};

/// Repeats run after run; quality does not matter here.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn mutated(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        const TOKENS: [&[u8]; 16] = [
            b"\r\n",
            b"\n",
            b"\r",
            b".",
            b"\0",
            b"\xff",
            b"(",
            b")",
            b"\"",
            b"{9+}\r\n",
            b"<",
            b">",
            b" ",
            b"=",
            b"\\",
            b"9999999999",
        ];
        let mut out = seed.to_vec();
        for _ in 0..=self.below(6) {
            let (a, b) = (self.below(out.len() + 1), self.below(out.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            match self.below(6) {
                0 => drop(out.drain(from..to.min(from + 30))),
                1 if from < out.len() => out[from] = u8::try_from(self.below(256)).unwrap(),
                2 => {
                    let piece = out[from..to.min(from + 100)].to_vec();
                    out.splice(from..from, piece);
                }
                3 => drop(out.splice(from..from, TOKENS[self.below(TOKENS.len())].iter().copied())),
                4 => {
                    let start = self.below(other.len() + 1);
                    out.splice(from..from, other[start..other.len().min(start + 60)].iter().copied());
                }
                _ => out.truncate(to.max(1)),
            }
        }
        out
    }
}

fn replay((name, target): &Target) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let run = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("{name} fails on {hex} ({:?})", String::from_utf8_lossy(input));
        }
    };
    seeds.iter().for_each(|seed| run(seed));
    let mut random = Random(7);
    // Compiling rules, cleaning HTML or unpacking costs a hundred times what parsing a command does.
    let slow = ["rule_files", "message_html", "rendering", "archive_other", "documents", "attachments"];
    let rounds = if slow.contains(name) { 2_000 } else { 30_000 } * if wants_all() { 10 } else { 1 };
    for _ in 0..rounds {
        let (seed, other) = (random.below(seeds.len()), random.below(seeds.len()));
        run(&random.mutated(&seeds[seed], &seeds[other]));
    }
}

#[test]
fn targets_hold_for_seeds_and_mutations() {
    std::thread::scope(|scope| {
        let runs: Vec<_> = ALL.iter().map(|target| scope.spawn(|| replay(target))).collect();
        let failed: Vec<_> = runs.into_iter().filter_map(|run| run.join().err()).collect();
        if let Some(first) = failed.into_iter().next() {
            std::panic::resume_unwind(first);
        }
    });
}

//! Power lost at each step of the embedded engine: only what was synced is left, and what it was told is there.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::crash::{Task, folder, has_ended, has_failed, matrix, run, run_with, runtime, verify, wants_all};
use crate::contract::Random;

/// Runs processes and finds what a power loss leaves of the folder that they worked in.
struct PowerLoss {
    library: tempfile::TempDir,
}

impl PowerLoss {
    /// Builds the library that listens to syncs. `None`, and only where not all tests are wanted, without a C compiler or a
    /// file system in memory, whose inode numbers are not used again.
    fn new() -> Option<Self> {
        let built = Self::build();
        assert!(built.is_some() || !wants_all(), "a C compiler and /dev/shm are needed");
        built
    }

    fn build() -> Option<Self> {
        let library = tempfile::tempdir_in("/dev/shm").ok()?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("proof/unsynced.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library.path().join("unsynced.so")).arg(source);
        compile.status().ok().filter(std::process::ExitStatus::success).map(|_| Self { library })
    }

    /// Runs the child on `task`; gives its lines and what is left: nothing that was not synced, or, with a seed in
    /// `mixed`, some pages of it.
    /// With `failing`, one call fails as on a bad disk.
    fn run(&self, task: &Task, mixed: Option<u64>, failing: Option<&str>) -> (Vec<String>, tempfile::TempDir) {
        let (kept, left) = (folder(), folder());
        let mut environment = vec![
            ("LD_PRELOAD", self.library.path().join("unsynced.so")),
            ("UNSYNCED_OF", task.dir.clone()),
            ("UNSYNCED_IN", kept.path().to_path_buf()),
        ];
        environment.extend(failing.map(|call| ("UNSYNCED_FAIL", PathBuf::from(call))));
        let lines = run_with(task, &environment);
        let mut random = mixed.map(Random);
        rebuild(&task.dir, kept.path(), left.path(), &mut random);
        (lines, left)
    }
}

/// Builds in `to` what is left of the folder `of`.
fn rebuild(of: &Path, kept: &Path, to: &Path, random: &mut Option<Random>) {
    let Ok(names) = std::fs::read_to_string(kept.join(format!("d{}", of.metadata().unwrap().ino()))) else { return };
    for line in names.lines() {
        let [inode, kind, name] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        if kind == "d" {
            std::fs::create_dir(to.join(name)).unwrap();
            rebuild(&of.join(name), kept, &to.join(name), random);
            continue;
        }
        let mut content = std::fs::read(kept.join(format!("f{inode}"))).unwrap_or_default();
        // What was written since may be there as well, page by page.
        let now = std::fs::File::open(of.join(name))
            .ok()
            .filter(|file| file.metadata().is_ok_and(|facts| facts.ino().to_string() == inode));
        if let (Some(random), Some(mut now)) = (random.as_mut(), now) {
            let mut written = Vec::new();
            now.read_to_end(&mut written).unwrap();
            if random.below(2) == 0 {
                content.resize(written.len(), 0);
            }
            for (page, new) in content.chunks_mut(PAGE).zip(written.chunks(PAGE)) {
                let length = page.len().min(new.len());
                if random.below(2) == 0 {
                    page[..length].copy_from_slice(&new[..length]);
                }
            }
        }
        std::fs::write(to.join(name), content).unwrap();
    }
}

const PAGE: usize = 4096;

#[test]
fn a_power_loss_at_any_step_keeps_every_promise() {
    let Some(power) = PowerLoss::new() else { return };
    let (most, operations) = if wants_all() { (3, 100) } else { (1, 60) };
    let dir = folder();
    let alone = Task::new(dir.path(), 11, 1, operations);
    let lines = run(&alone);
    let places = matrix(&alone, &lines, most);
    let runtime = runtime();
    let mut losses = 0;
    for (nth, (place, hit)) in places.iter().enumerate() {
        let dir = folder();
        let task = Task { dir: dir.path().to_path_buf(), place: place.clone(), hit: *hit, ..alone.clone() };
        let mixed = (nth % 2 == 1).then_some(nth as u64 + 1);
        let (lines, left) = power.run(&task, mixed, None);
        assert!(!has_failed(&lines), "{task:?}: {lines:?}");
        losses += usize::from(!has_ended(&lines));
        runtime.block_on(verify(&Task { dir: left.path().to_path_buf(), ..task }, &lines));
    }
    println!("{losses} losses of power");
    assert!(losses >= if wants_all() { 60 } else { 20 }, "{losses} losses of power");
}

/// A sync or a read that fails is told, never taken for done: what was acknowledged survives a loss of power right after.
#[test]
fn a_disk_that_fails_is_told_and_loses_nothing_acknowledged() {
    let Some(power) = PowerLoss::new() else { return };
    let runtime = runtime();
    let each = if wants_all() { 40 } else { 8 };
    let mut failures = 0;
    for nth in 0..each {
        for kind in ["sync", "read"] {
            let dir = folder();
            let task = Task::new(dir.path(), nth, 1, 40);
            let call = format!("{kind} {}", 1 + nth * nth % 97);
            let (lines, left) = power.run(&task, None, Some(&call));
            assert!(has_failed(&lines) || has_ended(&lines), "{call}: {lines:?}");
            failures += usize::from(has_failed(&lines));
            runtime.block_on(verify(&Task { dir: left.path().to_path_buf(), ..task }, &lines));
        }
    }
    println!("{failures} failures of the disk");
    assert!(failures > each as usize / 2, "{failures} failures of the disk");
}

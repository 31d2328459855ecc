//! What holds for the simulation itself.

use std::process::{Command, Output};

fn simulation(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_streamhouse-sim")).args(arguments).output();
    command.expect("the simulation can be started")
}

/// Two processes, the most that is ever logged, and all faults that the seeds draw.
#[test]
fn a_seed_that_runs_twice_writes_the_same_trace_byte_for_byte() {
    for seed in ["7", "11"] {
        let output = simulation(&["twin", seed, "--seconds", "10"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("twice the same"), "{text}");
        print!("{text}");
    }
}

/// Else equal traces would show nothing.
#[test]
fn another_seed_does_something_else() {
    let outcome = |seed| simulation(&["run", seed, "--seconds", "2"]).stdout;
    assert_ne!(outcome("7"), outcome("8"));
}

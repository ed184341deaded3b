//! The binary as a shell sees it. With these tests cargo builds the binary, which the tests of `slt` run.

use std::process::{Command, Output};

fn millpond(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("cargo has built the binary")
}

#[test]
fn help_names_every_option() {
    let output = millpond(&["--help"]);
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    for option in
        ["serve", "demo", "--data-dir", "--pg-addr", "--pg-port", "--http-addr", "--object-store", "--config"]
    {
        assert!(help.contains(option), "{option} is not in:\n{help}");
    }
    for option in ["--memory-limit", "--shards", "--log-level", "MILLPOND_SHARDS"] {
        assert!(help.contains(option), "{option} is not in:\n{help}");
    }
}

#[test]
fn wrong_options_are_refused_with_a_sentence() {
    for (arguments, said) in [
        (&["--shards", "0"][..], "expected 1 to 256"),
        (&["--memory-limit", "2XB"], "expected a size"),
        (&["--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
        (&["--no-such-option"], "--no-such-option"),
    ] {
        let output = millpond(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} was taken");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

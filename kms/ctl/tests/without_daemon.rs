//! `sealctl` where no daemon is.

use std::process::{Command, Output};

fn sealctl(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealctl"));
    command.args(["--socket", "/nonexistent/kms.sock"]).args(words);
    command.output().unwrap()
}

fn says(words: &[&str]) -> String {
    let output = sealctl(words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_shell_gets_its_completions_without_a_daemon() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = says(&["completions", shell]);
        for word in ["sealctl", "completions", "disk", "reinit", "--repair"] {
            // fish has options without their hyphens.
            let word = if shell == "fish" {
                word.trim_start_matches('-')
            } else {
                word
            };
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(sealctl(&["completions", "cmd"]).status.code(), Some(2));
    assert_eq!(sealctl(&["disk", "list"]).status.code(), Some(1));
}

#[test]
fn bash_completes_commands_and_options() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("sealctl.bash");
    std::fs::write(&script, says(&["completions", "bash"])).unwrap();
    let completed = |words: &str| {
        let last = words.split(' ').count() - 1;
        let line = format!(
            ". {}; COMP_WORDS=({words}); COMP_CWORD={last}; [[ ${{#COMP_WORDS[@]}} -gt $COMP_CWORD ]] || COMP_WORDS+=(''); \
             _sealctl sealctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &line])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(completed("sealctl snap"), "snapshot\n");
    assert_eq!(completed("sealctl disk re"), "resize reinit restore\n");
    assert_eq!(completed("sealctl disk check --rep"), "--repair\n");
}

#[test]
fn each_command_gets_its_manual_page_without_a_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("man");
    says(&["man", target.to_str().unwrap()]);
    let page = |name: &str| {
        let path = target.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    for name in [
        "man1/sealctl.1",
        "man1/sealctl-disk.1",
        "man1/sealctl-disk-create.1",
        "man1/sealctl-audit-verify.1",
        "man8/sealblk-kms.8",
        "man8/sealblk-kms-serve.8",
    ] {
        let text = page(name);
        assert!(
            text.contains(".TH ") && text.contains(".SH OPTIONS"),
            "{name}: {text}"
        );
    }
    let create = page("man1/sealctl-disk-create.1");
    assert!(
        create.contains(".SH NOTES\n") && create.contains("Examples:"),
        "{create}"
    );
    assert!(create.contains("before\\-upgrade"), "{create}");
    assert_eq!(sealctl(&["man", "/dev/null/man"]).status.code(), Some(1));
}

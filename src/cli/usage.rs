//! A command line that cannot be read, for programs.

use std::ffi::OsString;

use super::problem::Problem;

/// Whether reports and errors are to be JSON, on a command line that cannot be read.
pub(super) fn asks_for_json(args: &[OsString]) -> bool {
    // What follows `--` is another command's.
    let own: Vec<_> = args.iter().take_while(|word| *word != "--").collect();
    own.iter().any(|word| *word == "--output=json")
        || own.windows(2).any(|words| matches!(words, [key, value] if *key == "--output" && *value == "json"))
}

/// What is wrong with it, and what clap says beside that.
pub(super) fn problem(error: &clap::Error) -> Problem {
    let text = error.render().to_string();
    let (what, next) = text.split_once("\n\n").unwrap_or((&text, ""));
    let lines = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let next: Vec<_> = next.split("\n\n").map(lines).filter(|part| !part.is_empty()).collect();
    Problem::usage(lines(what.trim_start_matches("error: "))).next(next.join("; "))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn check(line: &str, json: bool) {
        assert_eq!(asks_for_json(&args(line)), json, "{line}");
    }

    #[test]
    fn the_shape_is_known_of_a_line_that_cannot_be_read() {
        check("leasehold statsu --output json", true);
        check("leasehold --output=json statsu", true);
        check("leasehold exec --lease a@b -- tool --output json", false);
        check("leasehold --output text --json", false);
        check("leasehold --output", false);
    }

    #[test]
    fn what_is_wrong_is_told_in_the_shape_of_every_error() {
        let error = Cli::try_parse_from(args("leasehold revoke --all --reaosn x")).unwrap_err();
        insta::assert_snapshot!(format!("{:#}", problem(&error).json()));
    }
}

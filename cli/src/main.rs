//! The `tierpool` program: the command line is in `tierpool_cli::app`.

use std::process::ExitCode;

use clap::Parser;
use tierpool_cli::app::App;

fn main() -> ExitCode {
    match App::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tierpool: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

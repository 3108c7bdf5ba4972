#!/usr/bin/env bash
# Runs the models, and logs how far each went.
#
#   loom-tests/run.sh                           all models
#   loom-tests/run.sh --test close              those of one file; arguments go to `cargo test`
#
# `cargo test --release -p tierpool-loom` under RUSTFLAGS="--cfg loom" runs them too, but with a loom that explores less.
# LOOM_TARGET_DIR keeps what was built between runs; LOOM_MAX_PREEMPTIONS and LOOM_MAX_DURATION override the models' own.
set -uo pipefail
source "$(dirname "$0")/workspace.sh"
cd "$scratch" && cargo test --release -p tierpool-loom "$@"

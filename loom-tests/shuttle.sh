#!/usr/bin/env bash
# Runs the programs of tests/shuttle.rs, each in some thousand orders drawn at random; arguments go to the test program.
#
# SHUTTLE_ITERATIONS says how many orders; SHUTTLE_REPLAY repeats the one that a failure has printed;
# LOOM_TARGET_DIR keeps what was built between runs.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg loom --cfg shuttle" CARGO_TARGET_DIR="${LOOM_TARGET_DIR:-$PWD/target/loom}/shuttle"
cargo test --quiet --release -p tierpool-loom --test shuttle -- "$@"

#!/usr/bin/env bash
# Shows that each model fails when the line that it guards is broken.
#
#   loom-tests/mutate.sh              all mutations, after a run of all models without any
#   loom-tests/mutate.sh WORD...      only those whose file names contain one of the words
#
# A mutation is a patch to src/ in loom-tests/mutations. Lines before the diff say what it breaks and which model must
# fail: "# model: FILE TEST", once or several times. Each is applied to a copy of the sources, in a temporary directory.
# Exit status 0: every mutation applied, compiled and was caught by each of its models, and every model caught one.
set -uo pipefail
shopt -s nullglob

source "$(dirname "$0")/workspace.sh"
# Longer than any mutation needs to be found; a model that runs out of it has not failed.
export LOOM_MAX_DURATION="${LOOM_MAX_DURATION:-60}"

models() { # FILE [arguments of the test program]
    local file=$1
    shift
    if [ "$file" = shuttle ]; then
        local -x RUSTFLAGS="$RUSTFLAGS --cfg shuttle" CARGO_TARGET_DIR="$CARGO_TARGET_DIR/shuttle"
    fi
    (cd "$scratch" && cargo test --quiet --release -p tierpool-loom --test "$file" "$@")
}

faults=0
fault() {
    faults=$((faults + 1))
    printf '%-44s | %-52s | %s\n' "$1" "$2" "$3"
}

if [ $# -eq 0 ]; then
    echo "The models, without a mutation:"
    log="$scratch/log"
    if ! (cd "$scratch" && cargo test --quiet --release -p tierpool-loom) >"$log" 2>&1; then
        cat "$log"
        echo "The models fail on the sources as they are: nothing can be shown by breaking them."
        exit 1
    fi
    grep -o 'explored .*' "$log"
    echo
fi

printf '%-44s | %-52s | %s\n' mutation model result
caught=()
for patch in "$here"/mutations/*.patch; do
    name=$(basename "$patch" .patch)
    if [ $# -gt 0 ]; then
        wanted=false
        for word in "$@"; do [[ $name == *"$word"* ]] && wanted=true; done
        $wanted || continue
    fi
    fresh_sources
    if ! patch --batch --forward --quiet --strip=1 --fuzz=2 --no-backup-if-mismatch --directory="$scratch" <"$patch" >"$scratch/log" 2>&1; then
        fault "$name" "" "DOES NOT APPLY: $(head -1 "$scratch/log")"
        continue
    fi
    while read -r file test; do
        if ! models "$file" --no-run >"$scratch/log" 2>&1; then
            fault "$name" "$file::$test" "DOES NOT COMPILE: $(grep -m1 '^error' "$scratch/log")"
        elif models "$file" -- --exact "$test" >"$scratch/log" 2>&1; then
            fault "$name" "$file::$test" "SURVIVED: $(grep -m1 -o 'explored .*' "$scratch/log" || echo "no such model")"
        elif ! grep -q "^model $test failed" "$scratch/log"; then
            fault "$name" "$file::$test" "FAILED OTHERWISE: $(tail -1 "$scratch/log")"
        else
            caught+=("$file::$test")
            why=$(grep -m1 -A1 "^model $test failed" "$scratch/log" | tail -1)
            printf '%-44s | %-52s | failed as it must: %s\n' "$name" "$file::$test" "${why:0:80}"
        fi
    done < <(sed -n 's/^# model: //p' "$patch")
done

if [ $# -eq 0 ]; then
    for source in "$here"/tests/*.rs; do
        file=$(basename "$source" .rs)
        for test in $(grep -A1 '^#\[test\]' "$source" | sed -n 's/^fn \([a-z_0-9]*\).*/\1/p'); do
            [[ " ${caught[*]} " == *" $file::$test "* ]] || fault "(none)" "$file::$test" "NO MUTATION CAUGHT"
        done
    done
fi
echo "${#caught[@]} caught, $faults at fault"
[ "$faults" -eq 0 ]

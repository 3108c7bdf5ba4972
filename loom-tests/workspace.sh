# Sourced by run.sh and mutate.sh: a temporary workspace of the library and the models alone, with a loom that explores
# what ours leaves out (loom.patch says what).

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

export RUSTFLAGS="--cfg loom" RUST_BACKTRACE=0 CARGO_TERM_COLOR=never CARGO_PROFILE_RELEASE_DEBUG=0
export CARGO_TARGET_DIR="${LOOM_TARGET_DIR:-$scratch/target}"

mkdir "$scratch/loom-tests"
sed -e 's/^members = .*/members = [".", "loom-tests"]/' -e '/^default-members/d' -e '/^exclude/d' \
    "$root/Cargo.toml" >"$scratch/Cargo.toml"
cp "$root/Cargo.lock" "$root/README.md" "$scratch/" 2>/dev/null
cp -R "$root/docs" "$scratch/" 2>/dev/null
cp -R "$here/Cargo.toml" "$here/src" "$here/tests" "$scratch/loom-tests/"

# Fresh copies of the sources, so that cargo sees by their times that they changed.
fresh_sources() {
    rm -rf "$scratch/src"
    cp -R "$root/src" "$scratch/src"
}
fresh_sources

loom=$(cd "$scratch" && cargo metadata --format-version 1 | grep -o '"manifest_path":"[^"]*/loom-[0-9.]*/Cargo.toml"' | cut -d'"' -f4)
[ -n "$loom" ] || { echo "cargo metadata does not say where loom is"; exit 1; }
cp -R "$(dirname "$loom")" "$scratch/loom"
if ! patch --batch --quiet --strip=1 --directory="$scratch/loom" <"$here/loom.patch"; then
    echo "loom.patch does not apply to $(basename "$(dirname "$loom")"): carry it over, or drop it if loom needs it no more"
    exit 1
fi
printf '\n[patch.crates-io]\nloom = { path = "loom" }\n' >>"$scratch/Cargo.toml"

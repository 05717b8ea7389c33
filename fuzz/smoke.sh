#!/usr/bin/env bash
# Runs each fuzz target for some seconds, ten if no number is given, from the inputs that are checked in. With 0 it only builds
# them: to libfuzzer that would be no limit.
set -euo pipefail
seconds=${1:-10}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v c++ >/dev/null || ! cargo fetch --quiet --locked --manifest-path fuzz/Cargo.toml; then
    echo 'fuzzing: skipped, since libfuzzer cannot be had here: it needs a C++ compiler, and its source from the registry'
    exit 0
fi
programs=$(fuzz/build)
if ((seconds == 0)); then
    exit 0
fi
for target in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$target" .rs)
    found=$(mktemp -d)
    printf '%s: ' "$name"
    if ! "$programs/$name" "$found" "tests/corpora/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -artifact_prefix="$found/" -print_final_stats=1 >"$found.log" 2>&1; then
        tail -40 "$found.log"
        echo "what broke it, and the rest of the log: $found, $found.log"
        exit 1
    fi
    sed -n 's/^stat::number_of_executed_units: *//p' "$found.log" | tr '\n' ' '
    echo 'inputs'
    rm -r "$found" "$found.log"
done

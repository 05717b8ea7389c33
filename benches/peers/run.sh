#!/usr/bin/env bash
# Measures this crate beside its peers and beside the machine: `benches/peers/run.sh`, from anywhere.
#
# `--prepare` compiles and makes the virtual environment, and measures nothing. `--quick` makes two small rounds, to see that
# all of it runs. `--only JOB,JOB` and `--no-scaling` leave things out; what an earlier run has measured is kept then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
target=../../target/peers
mkdir -p "$target"

# Compiles with every peer that can be built here, and says which are left out.
prepare() {
    local features=() feature
    export CARGO_TARGET_DIR=$target
    if cargo build --quiet --release --locked --all-features; then
        echo iceoryx2,ipc-channel,procspawn >"$target/features"
    else
        for feature in iceoryx2 ipc-channel procspawn; do
            if cargo build --quiet --release --features "$feature"; then
                features+=("$feature")
            else
                echo "left out: $feature cannot be built here"
            fi
        done
        cargo build --quiet --release --features "$(IFS=,; echo "${features[*]}")"
    fi
    if ! "$target/venv/bin/python" -c 'import matplotlib, joblib, mpire, pebble, rich' 2>/dev/null; then
        python3 -m venv "$target/venv"
        while read -r package; do
            "$target/venv/bin/pip" install --quiet "$package" ||
                echo "left out: $package cannot be installed here"
        done <requirements.txt
    fi
}

prepare
[[ ${1-} == --prepare ]] && exit
exec "$target/venv/bin/python" run.py "$target" "$@"

#!/usr/bin/env bash
# Measures this crate beside its peers and beside the machine: `benches/peers/run.sh`, from anywhere, on an idle machine.
#
# Twelve and a half minutes of measuring; what is compiled and installed before is not counted. Prints tables, and writes
# docs/benchmarks/ and the tables of docs/BENCHMARKS.md. `--prepare` compiles and installs only; `--help` tells the rest.
set -euo pipefail
exec </dev/null
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$here/../../target/peers"
target=$(cd "$here/../../target/peers" && pwd)

# Compiles with every peer that can be built here, and says which are left out.
build() {
    local features=() feature
    export CARGO_TARGET_DIR=$target
    if cargo build --quiet --manifest-path "$here/Cargo.toml" --release --locked --all-features; then
        echo iceoryx2,ipc-channel,procspawn >"$target/features"
        return
    fi
    for feature in iceoryx2 ipc-channel procspawn; do
        if cargo build --quiet --manifest-path "$here/Cargo.toml" --release --features "$feature"; then
            features+=("$feature")
        else
            echo "left out: $feature cannot be built here"
        fi
    done
    cargo build --quiet --manifest-path "$here/Cargo.toml" --release --features "$(IFS=,; echo "${features[*]-}")"
    (IFS=,; echo "${features[*]-}") >"$target/features"
}

# One virtual environment with every package that can be installed here; the next time only with what has changed.
install() {
    if ! "$target/venv/bin/python" -c '' 2>/dev/null; then
        rm -rf "$target/venv"
        python3 -m venv "$target/venv"
    fi
    cmp --silent "$here/requirements.txt" "$target/venv/installed" && return
    local package complete=yes
    while read -r package; do
        if ! "$target/venv/bin/pip" install --quiet --disable-pip-version-check "$package"; then
            echo "left out: $package cannot be installed here"
            complete=no
        fi
    done <"$here/requirements.txt"
    if [[ $complete == yes ]]; then
        cp "$here/requirements.txt" "$target/venv/installed"
    fi
}

build
install
[[ ${1-} == --prepare ]] && exit
exec "$target/venv/bin/python" "$here/run.py" "$target" "$@"

#!/bin/sh
# Makes .venv from the lock, or brings it up to date; run by `make`, from the root of the repository.
# Safe to run again after it was interrupted. PYTHON names the interpreter to use.
set -eu

# ensurepip is what Debian leaves out of python3 and puts into python3-venv.
usable='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c "$usable" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "Bookmesh needs Python 3.11 or newer with venv: none of" \
        "'${PYTHON:-python3 python3.14 ... python3.11}' is that (on Debian and Ubuntu" \
        "venv is the package python3-venv); or name one: make PYTHON=/path/to/python3" >&2
    return 1
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi

pip() {
    .venv/bin/python -m pip --quiet --disable-pip-version-check "$@"
}

if ! cmp -s requirements.txt .venv/requirements.txt; then
    echo "installing $(grep -c '==' requirements.txt) packages into .venv (the first time takes a minute)"
    pip install --require-hashes --only-binary :all: -r requirements.txt
    cp requirements.txt .venv/requirements.txt
fi

echo "installing bookmesh into .venv"
pip install --no-deps --no-build-isolation --editable .
touch .venv/installed

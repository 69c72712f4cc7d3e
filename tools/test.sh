#!/bin/sh
# Runs all tests, in as many processes as $1 says; run by `make test`, from the root of the repository.
# What failed is run once more, alone and with processes of its own: a test of real processes can lose against whatever
# else the machine does at that second (docs/adr/0013). Failing twice is red, and both are printed.
set -u

.venv/bin/python -m pytest -n "$1" --dist loadfile
code=$?
if [ $code -ne 1 ]; then
    exit $code
fi
echo "Once more, alone, what has failed:"
exec .venv/bin/python -m pytest --verbose --exitfirst --last-failed --last-failed-no-failures none

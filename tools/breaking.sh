#!/bin/sh
# Refuses a change of protos/ that would break who uses the contracts of main: run by `make breaking`,
# from the root of the repository. On a branch the base is where it left main; on main itself, when
# protos/ is as committed, the commit before. Without such a base it says so and is content; without buf
# it says how to come by it and ends with 1, as nothing was checked.
set -eu

skip() {
    echo "buf breaking: skipped, $1"
    exit 0
}

git rev-parse --verify --quiet HEAD >/dev/null 2>&1 || skip "there is no git history here"
base=$(git merge-base HEAD origin/main 2>/dev/null || git merge-base HEAD main 2>/dev/null) ||
    skip "this clone does not know where it left main"
if [ "$base" = "$(git rev-parse HEAD)" ] && [ -z "$(git status --porcelain -- protos)" ]; then
    base=$(git rev-parse --verify --quiet HEAD~1) || skip "this clone has no commit before this one"
fi
git cat-file -e "$base:buf.yaml" 2>/dev/null || skip "$(git rev-parse --short "$base") has no buf.yaml"

command -v buf >/dev/null || {
    echo "buf breaking: there is no buf on the PATH, so the contracts were not checked." \
        "'make breaking' brings it into .venv (the package buf-bin of requirements.txt);" \
        "by hand: PATH=\"\$PWD/.venv/bin:\$PATH\" sh tools/breaking.sh" >&2
    exit 1
}

git archive "$base" | buf breaking protos --against '-#format=tar,subdir=protos' || {
    echo "buf breaking: the above breaks the contracts of $(git rev-parse --short "$base");" \
        "add a field, a method or a version beside them instead"
    exit 1
}
echo "buf breaking: nothing broken since $(git rev-parse --short "$base")"

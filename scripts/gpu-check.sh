#!/bin/sh
# Checks and measures revnet on a GPU, in parts that each have a time limit: gpu-check.sh OUT [PART...]; --help says more.
# The logic is in gpu-check/main.js. In the bundle, run.sh has the Node.js for it.
case "$0" in */*) here=${0%/*} ;; *) here=. ;; esac
root=$(CDPATH= cd -- "$here/.." && pwd) || exit 1
if [ -x "$root/run.sh" ]; then set -- "$root/run.sh" node "$root/scripts/gpu-check/main.js" "$@"
else set -- node "$root/scripts/gpu-check/main.js" "$@"; fi
exec "$@"

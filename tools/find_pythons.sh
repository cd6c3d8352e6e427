#!/bin/sh
# Usage: find_pythons.sh [VERSION...]
# Print the supported Python interpreters of this machine, newest first, one path a line and one line a version;
# of the versions named, if any are.
# A name on the PATH may be a shim for a version that is not there, so each candidate has to run and to have venv and pip.
[ $# -gt 0 ] || set -- 3.14 3.13 3.12 3.11
for version in "$@"; do
    for candidate in "python$version" python3 python "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
        path=$("$candidate" -c "
import sys, venv, ensurepip
if '%d.%d' % sys.version_info[:2] != '$version' or sys.implementation.name != 'cpython': sys.exit(1)
print(sys.executable)" 2>/dev/null) || continue
        echo "$path"
        break
    done
done

#!/usr/bin/env bash
# Downloads, verifies, unpacks and binarises a data set of the paper into data-bin/:
#
#   bash get_data.sh {wikitext-103 | enwik8} [--from DIR] [--data-bin DIR] [--workers N]
#
# Several addresses are tried in turn; an interrupted download goes on where it was; what is done is not done
# again. --from DIR takes the archive, or the files in it, from DIR. Python: $PYTHON, or .venv, or python3.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-$here/.venv/bin/python}"
command -v "$python" > /dev/null || python=python3
exec "$python" "$here/scripts/get_data.py" "$@"

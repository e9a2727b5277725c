#!/usr/bin/env bash
# Builds the API reference from the docstrings; a warning is an error.
#     bash tools/build_api.sh [FOLDER]      (default: docs/api/_build; read FOLDER/html/index.html)
# Needs Sphinx: pip install -e '.[docs]'. PYTHON chooses the interpreter (default: .venv's, else python3).
set -euo pipefail
build=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../docs/api/_build}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
if ! "$PYTHON" -c 'import sphinx' 2> /dev/null; then
    echo "error: $PYTHON has no Sphinx; run: $PYTHON -m pip install -r requirements/docs.txt" >&2
    exit 2
fi

# The pages, one for each module, are made anew every time: a list that is kept by hand would rot.
rm -rf "$build/source" "$build/doctrees" "$build/html"
mkdir -p "$build/source"
cp docs/api/index.rst "$build/source"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
"$PYTHON" -m sphinx.ext.apidoc -q --separate --module-first --no-toc -o "$build/source" mmseg_semi > /dev/null
"$PYTHON" -W ignore -m sphinx -q -W --keep-going -c docs/api -d "$build/doctrees" "$build/source" "$build/html" || {
    rm -rf "$build/html" # half a reference looks like a whole one
    echo "error: the lines above name the docstrings to mend" >&2
    exit 1
}
echo "$build/html/index.html"

#!/usr/bin/env bash
# Sets up an environment, then runs something in it; a second call finds the environment ready
# (that of test-wheel is a new one each time, and goes when all is well).
#     bash tools/quickstart.sh [demo|test|lint|api|setup|setup-openmmlab|test-openmmlab|test-wheel]      (default: demo)
# PYTHON chooses the interpreter (3.10 to 3.13). Everything lands in .venv (setup-openmmlab, test-openmmlab: in
# .venv-openmmlab; test-wheel: in .venv-wheel).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1

TASK=${1:-demo}
STEP=start
SECONDS=0
say() { printf '[quickstart] %s\n' "$*"; }
finish() {
    local code=$?
    if [ "$code" -eq 0 ]; then
        say "OK: $TASK finished in $SECONDS s"
    elif [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; then
        say "INTERRUPTED: $TASK, during: $STEP"
    else
        say "FAILED: $TASK, during: $STEP (exit code $code); the lines above say why" >&2
    fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Prints the interpreter for new environments.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13 python3.10}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python 3.10 to 3.13 found (looked at: ${PYTHON:-python3 python3.12 python3.11 python3.13 python3.10})." \
        "Install one, or name it: PYTHON=/path/to/python $0 $TASK" >&2
    return 1
}

minor_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# make_venv FOLDER: creates it unless it is there; with PYTHON set, unless it is there for that Python version.
make_venv() {
    STEP="creating $1"
    local python
    if [ -x "$1/bin/python" ] && [ -z "${PYTHON:-}" ]; then
        return
    fi
    python=$(find_python)
    if [ -x "$1/bin/python" ] && [ "$(minor_version "$1/bin/python")" = "$(minor_version "$python")" ]; then
        return
    fi
    say "creating $1 with $python (Python $(minor_version "$python"))"
    "$python" -m venv --clear "$1" || {
        echo "Could not create a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        return 1
    }
}

# What an environment is made of; another value means: install again.
fingerprint() {
    { "$1/bin/python" --version; pwd; cat setup.py pyproject.toml requirements/*.txt; } | cksum
}

# Runs an installation unless the environment holds its result already.
#     once FOLDER COMMAND...
once() {
    local stamp="$1/.mmseg_semi_stamp"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint "$1")" ]; then
        say "$1 is up to date"
        return
    fi
    rm -f "$stamp"
    "${@:2}"
    fingerprint "$1" > "$stamp"
}

install_default() {
    STEP="installing the packages into .venv"
    say "installing into .venv (about 5 GB, torch brings the CUDA libraries; a few minutes)"
    .venv/bin/python -m pip install -e '.[onedl,demo,tests,export,docs]' -c requirements/constraints.txt
}

# OpenMMLab's mmcv has no wheel for a current torch: it is compiled once, without CUDA, and kept in a cache.
install_openmmlab() {
    local python=.venv-openmmlab/bin/python pins=requirements/constraints-openmmlab.txt torch wheels
    STEP="installing torch into .venv-openmmlab"
    say "installing torch into .venv-openmmlab"
    $python -m pip install torch torchvision numpy -c $pins
    torch=$($python -c 'import torch; print(torch.__version__)')
    wheels=$(wheel_cache "$torch")
    if ! have_mmcv "$wheels" "$(tag)"; then
        STEP="compiling mmcv"
        say "compiling mmcv for torch $torch, once (about 8 minutes on 2 cores); the wheel goes to $wheels"
        mkdir -p "$wheels"
        $python -m pip install 'setuptools<81' wheel ninja psutil
        MMCV_WITH_OPS=1 FORCE_CUDA=0 $python -m pip wheel --no-build-isolation --no-deps --no-binary mmcv -w "$wheels" \
            mmcv -c $pins
    fi
    STEP="installing the packages into .venv-openmmlab"
    say "installing into .venv-openmmlab"
    $python -m pip install -e '.[openmmlab,demo,export,tests]' -c $pins --find-links "$wheels" --only-binary mmcv
}

# Builds the wheel and installs it as a user would, with nothing but what it asks for.
install_wheel() {
    local python=.venv-wheel/bin/python wheel
    STEP="building the wheel"
    rm -rf build # what an earlier build left there would be in this wheel, too
    $python -m pip wheel . --no-deps -w .venv-wheel/dist
    wheel=$(ls .venv-wheel/dist/mmseg_semi-*.whl)
    STEP="installing the wheel into .venv-wheel"
    say "installing $wheel into .venv-wheel"
    $python -m pip install --no-compile "$wheel[onedl]" -c requirements/constraints.txt
    # mim without opendatalab, which it does not import and which asks for packages of 2022; it reads pkg_resources.
    $python -m pip install --no-compile --no-deps openmim -c requirements/constraints.txt
    $python -m pip install --no-compile colorama tabulate pandas requests 'setuptools<81' -c requirements/constraints.txt
}

tag() { .venv-openmmlab/bin/python -c 'import sys; print("cp%d%d" % sys.version_info[:2])'; }
wheel_cache() { echo "${XDG_CACHE_HOME:-$HOME/.cache}/mmseg_semi/wheels/torch-$1"; }
have_mmcv() { compgen -G "$1/mmcv-*-$2-*.whl" > /dev/null; }

# run_tests FOLDER MARKER
run_tests() {
    local code=0
    STEP="running the tests ($2)"
    say "running the tests: $2"
    # A process and a thread per core: the tests' tiny networks gain nothing from more threads.
    OMP_NUM_THREADS=1 "$1/bin/python" -m pytest -m "$2" -n auto --maxprocesses 8 --dist worksteal --durations 10 || code=$?
    # 5: no test has that marker.
    [ "$code" -eq 0 ] || { [ "$2" = slow ] && [ "$code" -eq 5 ]; } || return "$code"
}

case $TASK in
    setup | demo | test | lint | api)
        make_venv .venv
        once .venv install_default
        ;;
    setup-openmmlab | test-openmmlab)
        make_venv .venv-openmmlab
        once .venv-openmmlab install_openmmlab
        ;;
    test-wheel)
        rm -rf .venv-wheel
        make_venv .venv-wheel
        install_wheel
        ;;
    *)
        STEP="reading the command line"
        echo "usage: bash tools/quickstart.sh [demo|test|lint|api|setup|setup-openmmlab|test-openmmlab|test-wheel], not '$TASK'" >&2
        exit 2
        ;;
esac

case $TASK in
    demo)
        STEP="running the demo"
        .venv/bin/python tools/demo.py
        ;;
    test)
        run_tests .venv 'not slow'
        run_tests .venv slow
        ;;
    lint)
        STEP="checking the code with ruff"
        .venv/bin/python -m ruff check .
        ;;
    api)
        STEP="building the API reference"
        PYTHON=.venv/bin/python bash tools/build_api.sh
        ;;
    test-openmmlab)
        run_tests .venv-openmmlab 'not slow or both_stacks'
        ;;
    test-wheel)
        STEP="using the wheel away from the checkout"
        bash tests/use_wheel.sh .venv-wheel
        rm -rf .venv-wheel # 5 GB
        ;;
esac

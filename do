#!/usr/bin/env bash
# One verb a task. Uses $PYTHON (default: python3), into which `$PYTHON -m pip install -e '.[test,dev]'` was done.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
PATH=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH

help() {
    cat <<'TEXT'
usage: ./do VERB [arguments]

  build           compile the extension into the source tree
  test [ARGS]     run all tests, or what pytest's ARGS say
  quick [ARGS]    run the tests that need no server and no vendor's runtime, in several processes (minutes)
  lint            ruff (style, format), cython-lint, clang-format
  format          let ruff and clang-format rewrite the format
  types           mypy --strict and pyright
  asan [ARGS]     the quick tests under AddressSanitizer and UndefinedBehaviorSanitizer, built apart in build/asan
  tsan [ARGS]     the tests in which threads meet under ThreadSanitizer, built apart in build/tsan
  site [ARGS]     build the documentation into build/site, warnings being errors (extra `docs`)
  man [FOLDER]    write the manual pages into build/man, or another folder
  bench NAME ...  run bench/*/bench_NAME.py; without a name, list them
  wheels [ARGS]   build, audit and test wheels for every Python on this machine
  clean           remove what was built
TEXT
}

# Half of what a test does is wait: for a card of known speed, a process, a time limit. Each process begins with a part of the
# tests in their order, and takes from others' ends when it has none left, so that few need the same fixtures of a module. The
# cards come first: one process starts what they need, instead of each. No test needs the threads that numpy's BLAS starts.
QUICK_PROCESSES=$(($(nproc) * 2 + 1))
QUICK=(tests/drivers tests/lifetime tests/unit -m 'not vendor and not server and not slow')

build() {
    "$PYTHON" setup.py -q build_ext --inplace "$@"
}

c_sources() {
    find csrc tests apyfal/rtl -name '*.[ch]' -o -name '*.cpp'
}

lint() {
    ruff check
    ruff format --check
    cython-lint --max-line-length 120 apyfal/_core
    c_sources | xargs clang-format --dry-run --Werror
}

# What has no lock of the interpreter's while it works; what Python protects, this cannot see.
THREADS=(-q tests/lifetime/test_threads.py tests/lifetime/test_shared_state.py tests/unit/core tests/unit/jobs)

# The tests import apyfal from the source tree, unless run from elsewhere with another one on the path.
sanitized() { # FOLDER SANITIZERS LIBRARIES ARGUMENTS...
    local folder=build/$1 kinds=$2 lib=$PWD/build/$1/lib root=$PWD compiler library libraries=()
    read -ra compiler <<< "${CC:-cc}"
    for library in $3; do libraries+=("$("${compiler[@]}" -print-file-name="$library")"); done
    shift 3
    APYFAL_DEBUG=1 APYFAL_SANITIZE=$kinds "$PYTHON" setup.py -q build --build-base "$folder" --build-lib "$lib"
    cd "$folder"
    local args=()
    for arg in "$@"; do
        case $arg in tests*) arg=$root/$arg ;; esac
        args+=("$arg")
    done
    # Python's own allocator hides overruns from the sanitizer, and Python leaks by design.
    env LD_PRELOAD="${libraries[*]}" PYTHONMALLOC=malloc PYTHONPATH="$lib" APYFAL_SANITIZED=1 \
        ASAN_OPTIONS=detect_leaks=0:handle_segv=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        TSAN_OPTIONS=halt_on_error=1:history_size=5 \
        "$PYTHON" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider "${args[@]}"
}

verb=${1:-help}
shift || true
case $verb in
    build) build "$@" ;;
    test) "$PYTHON" -m pytest "$@" ;;
    quick) OPENBLAS_NUM_THREADS=1 "$PYTHON" -m pytest -q -n "$QUICK_PROCESSES" --maxprocesses 8 --dist worksteal "${QUICK[@]}" "$@" ;;
    lint) lint ;;
    format) ruff format && c_sources | xargs clang-format -i ;;
    types) mypy && pyright ;;
    asan) sanitized asan address,undefined "libasan.so libubsan.so" "${@:-${QUICK[@]}}" ;;
    tsan) sanitized tsan thread libtsan.so "${@:-${THREADS[@]}}" ;;
    site) NO_MKDOCS_2_WARNING=1 "$PYTHON" -m mkdocs build --strict --clean "$@" ;;
    man) "$PYTHON" tools/man_pages.py "$@" ;;
    bench) "$PYTHON" bench "$@" ;;
    wheels) "$PYTHON" packaging/build_wheels.py "$@" ;;
    clean) rm -rf build dist wheelhouse apyfal/_core/*.c apyfal/_core/*.so ./*.egg-info ;;
    help | -h | --help) help ;;
    *)
        echo "do: unknown verb '$verb'; expected one of build, test, quick, lint, format, types, asan, tsan, site, man, bench, wheels, clean" >&2
        exit 2
        ;;
esac

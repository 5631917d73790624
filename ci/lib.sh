# Shared by the scripts in ci/: source it first. It stops at the first error, moves to the root of
# the source tree and says how many jobs to use.
#
# SPDX-License-Identifier: Apache-2.0
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
root=$PWD
unset MAKEFLAGS MFLAGS MAKELEVEL # the make that called is not the make that builds
self=${0##*/}

# Exit status that ctest counts as "skipped".
skip() {
  echo "$self: skipped: $*"
  exit 77
}

fail() {
  echo "$self: FAIL: $*" >&2
  exit 1
}

have() {
  command -v "$1" >/dev/null 2>&1
}

# CI_JOBS is set by ctest, where several scripts run side by side.
jobs=${CI_JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}

# A scratch directory that is gone when the script is.
make_scratch() {
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/splitkv-$self.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  trap 'exit 1' HUP INT TERM
}

# configure SOURCE BUILD [CMAKE_OPTION...]: quiet unless it fails.
configure() {
  source_dir=$1
  build_dir=$2
  shift 2
  if [ ! -f "$build_dir/CMakeCache.txt" ] && [ -z "${CMAKE_GENERATOR:-}" ] && have ninja; then
    set -- -GNinja "$@"
  fi
  mkdir -p "$build_dir"
  cmake -S "$source_dir" -B "$build_dir" "$@" >"$build_dir/configure.log" 2>&1 || {
    cat "$build_dir/configure.log" >&2
    fail "cmake could not configure $build_dir"
  }
}

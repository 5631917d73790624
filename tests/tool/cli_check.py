"""Runs the suites of `splitkv check` over data types, kernel sets, threads, policies and tables.

usage: cli_check.py SPLITKV [--full]    --full: every combination, for a release; many minutes

SPDX-License-Identifier: Apache-2.0
"""
import itertools
import json
import os
import sys

from run_support import Failures, run_tool, set_does, set_dtype, set_words, usable_kernel_sets

DTYPES = (("dtype=f32",), ("dtype=f16",), ("dtype=bf16",),
          ("dtype=f32", "dtype_kv=f16"), ("dtype=f32", "dtype_kv=bf16"))
MIXED = ("dtype=f32", "dtype_kv=f16")
THREADS = ("threads=1", "threads=2")
POLICIES = ("split=auto", "split=none", "split=size:64", "split=count:5")
TABLES = ("table=identity", "table=shuffled", "table=shared")
SUITE_CASES = {"pr683": 21, "ragged": 30, "odd": 46, "long": 7, "variants": 18, "models": 80, "quant": 64}


def kv_of(dtype):
    return dtype[-1].split("=")[1]


def check_suite(failures, tool, suite, *words):
    result = run_tool([tool, "check", "--suite", suite, *words, "--json"], timeout=3000)
    name = f"{suite} {' '.join(words)}"
    if not failures.check(result.returncode in (0, 1), f"{name}: {result.stderr.decode()!r}"):
        return
    report = json.loads(result.stdout)
    failures.check(len(report["cases"]) == SUITE_CASES[suite], f"{name}: has all its cases")
    for row in report["cases"]:
        failures.check(row["pass"], f"{row['case']}: {row.get('reason')}: '{row['problem']}'")
    failures.check(result.returncode == (report["failed"] > 0), f"{name}: the exit status tells")
    print(f"{report['passed']:3d} of {len(report['cases'])} passed: {name}", flush=True)


def check_quick(failures, tool, kernel_sets):
    for dtype, isa, threads in itertools.product(DTYPES, kernel_sets, THREADS):
        if set_does(isa, kv_of(dtype)):
            check_suite(failures, tool, "odd", *dtype, *set_words(isa), threads)
    for policy, table in itertools.product(POLICIES, TABLES):
        check_suite(failures, tool, "odd", policy, table, "threads=2")
    for dtype in DTYPES:
        check_suite(failures, tool, "ragged", *dtype, "threads=2")
    for isa in kernel_sets:
        words = set_words(isa) + set_dtype(isa)
        check_suite(failures, tool, "ragged", *words, "threads=1")
    check_suite(failures, tool, "pr683", "threads=2")
    check_suite(failures, tool, "long", *MIXED, "threads=2")
    for suite in ("variants", "models", "quant"):
        check_suite(failures, tool, suite, "threads=2")


def check_full(failures, tool, kernel_sets):
    for suite, dtype, isa, threads in itertools.product(SUITE_CASES, DTYPES, kernel_sets, THREADS):
        if set_does(isa, kv_of(dtype)) and (suite != "quant" or not isa.endswith("bf16")):
            check_suite(failures, tool, suite, *dtype, *set_words(isa), threads)
    for suite, policy, table, isa in itertools.product(SUITE_CASES, POLICIES, TABLES, kernel_sets):
        if (suite != "pr683" or isa == kernel_sets[0]) and (suite != "quant" or set_does(isa, "f16")):
            words = set_words(isa) + set_dtype(isa)
            check_suite(failures, tool, suite, policy, table, *words, "threads=2")


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--full"]):
        sys.exit(__doc__)
    tool = os.path.abspath(sys.argv[1])
    kernel_sets = usable_kernel_sets(tool)
    failures = Failures()
    if len(sys.argv) == 3:
        check_full(failures, tool, kernel_sets)
        return failures.finish(5000)
    check_quick(failures, tool, kernel_sets)
    return failures.finish(1000)


if __name__ == "__main__":
    sys.exit(main())

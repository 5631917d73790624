"""The JSON of `splitkv info`, `plan`, `check` and `bench`: keys, types, and that the numbers agree
with each other and with the text for people.

SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import re
import shutil
import sys
import tempfile

from run_support import (Failures, run_tool, set_dtype, set_words, tool_from_arguments,
                         usable_kernel_sets)

PULL_REQUEST = "b=256 hq=16 hkv=1 d=128 page=128 kv=8192 dtype=f16 threads=24"
PLAN_KEYS = ("kernel_set", "policy", "splits", "workspace_bytes", "bound_bytes", "regions",
             "balance", "tasks", "problem", "threads", "rows")
CHECK_KEYS = ("case", "pass", "max_abs_err", "max_ulp_err", "lse_err", "worst", "seed", "problem", "rows")
BENCH_KEYS = ("case", "threads", "time_ms", "time_ms_min", "time_ms_max", "spread", "roof_ms",
              "roof_fraction", "bound_by", "gb_per_s", "gflop_per_s", "workspace_bytes",
              "max_abs_err", "pass", "kernel_set", "cpu_ms", "noisy", "rows", "tokens_per_s")


def tool_json(failures, tool, *arguments, status=0):
    result = run_tool([tool, *arguments, "--json"])
    failures.check(result.returncode == status and result.stderr == b"",
                   f"{arguments}: status {result.returncode}, {result.stderr.decode()!r}")
    report = json.loads(result.stdout)
    failures.check(report["command"] == arguments[0], f"{arguments}: says its command")
    failures.check(bool(report["version"]) and bool(report["cpu"]), f"{arguments}: version and CPU")
    failures.check(all(report[key] for key in ("compiler", "compile_flags", "commit")),
                   f"{arguments}: how it was built")
    failures.check("/" not in report["compile_flags"] and re.fullmatch(r"[\w./+-]+", report["commit"]),
                   f"{arguments}: no path in {report['compile_flags']!r}, {report['commit']!r}")
    return report


def check_keys(failures, what, row, keys):
    for key in keys:
        failures.check(key in row and row[key] is not None, f"{what}: has no {key!r}")


def check_plan_consistency(failures, report):
    end = 0
    for region in report["regions"]:
        failures.check(region["offset"] >= end and region["offset"] % 4 == 0,
                       f"region {region} begins after {end}")
        end = region["offset"] + region["bytes"]
    failures.check(end == report["workspace_bytes"], "the last region ends with the workspace")
    failures.check(report["workspace_bytes"] <= report["bound_bytes"], "the bound holds")
    work = [task["kv_tokens"] for task in report["tasks"]]
    failures.check(0 < len(work) <= report["threads"], f"{len(work)} tasks")
    failures.check(0 < report["balance"] <= 1, f"balance {report['balance']}")
    return work


def check_plan(failures, tool):
    report = tool_json(failures, tool, "plan", PULL_REQUEST)
    check_keys(failures, "plan", report, PLAN_KEYS)
    work = check_plan_consistency(failures, report)
    failures.check(sum(work) == 256 * 8192, "the tasks read all tokens")
    failures.check(max(work) <= 1.01 * sum(work) / len(work), "the tasks are balanced")
    failures.check(report["workspace_bytes"] <= 400_000, "AUTO takes kilobytes")
    failures.check(report["policy"] == "auto", "the policy is auto")
    single_words = tool_json(failures, tool, "plan", *PULL_REQUEST.split())
    failures.check(single_words == report, "words apart or in one argument are the same")

    report = tool_json(failures, tool, "plan", PULL_REQUEST + " split=count:22")
    check_plan_consistency(failures, report)
    failures.check(report["workspace_bytes"] == 256 * 22 * 16 * (128 + 2) * 4,
                   "FIXED_COUNT takes what the formula says, to the byte")
    failures.check(report["policy"] == "count:22", "the policy is count:22")

    report = tool_json(failures, tool, "plan", "kv=131072,512x63 threads=2")
    failures.check(report["balance"] > 0.95, "one long request among 63 short ones is balanced")
    report = tool_json(failures, tool, "plan", "b=0")
    failures.check(report["workspace_bytes"] == 0 and report["regions"] == [], "b=0 takes nothing")
    report = tool_json(failures, tool, "plan", "b=16M kv=64 hq=8 threads=65535 split=none")
    failures.check(report["workspace_bytes"] == 0, "16 M requests are planned without tensors")

    text = run_tool([tool, "plan", PULL_REQUEST]).stdout.decode()
    total = re.search(r"^total +(\d+)$", text, re.M)
    planned = tool_json(failures, tool, "plan", PULL_REQUEST)
    failures.check(bool(total) and int(total.group(1)) == planned["workspace_bytes"],
                   "people see the same total")
    failures.check(planned["kernel_set"] in text, "people see the kernel set")


def check_info(failures, tool):
    report = tool_json(failures, tool, "info")
    check_keys(failures, "info", report, ("cpus", "kernel_sets", "kernel_set", "default_threads", "models"))
    chosen = [entry["name"] for entry in report["kernel_sets"] if entry["default"]]
    failures.check(chosen == [report["kernel_set"]], f"one kernel set is chosen, not {chosen}")
    for entry in report["kernel_sets"]:
        check_keys(failures, "kernel set", entry, ("name", "arithmetic", "needs", "missing"))
        failures.check(entry["usable"] == (entry["missing"] == ""), f"{entry}: usable or missing")
    text = run_tool([tool, "info"]).stdout.decode()
    for entry in report["kernel_sets"]:
        failures.check(entry["name"] in text, f"people see {entry['name']}")
    failures.check("chosen" in text, "people see which one is chosen")


def check_check(failures, tool):
    report = tool_json(failures, tool, "check", "b=2 kv=0..300", "kv=5,0,17 table=shared",
                       "dtype=bf16", "seed=7")
    failures.check(len(report["cases"]) == 2 and report["passed"] == 2 and report["failed"] == 0,
                   "two problems are two cases")
    for row in report["cases"]:
        check_keys(failures, "check", row, CHECK_KEYS)
        failures.check("dtype=bf16" in row["problem"] and row["seed"] == 7,
                       "words apart override quoted problems")
        failures.check(row["pass"] is True and row["worst"] <= 1, f"{row['case']} passes")
    again = tool_json(failures, tool, "check", report["cases"][0]["problem"])
    same = {key: again["cases"][0][key] for key in ("max_abs_err", "lse_err", "problem")}
    failures.check(all(report["cases"][0][key] == value for key, value in same.items()),
                   "a case's problem text repeats it exactly")
    lines = run_tool([tool, "check", "b=2 kv=300", "kv=5 "]).stdout.decode().splitlines()
    failures.check(len([line for line in lines if line.endswith("PASS")]) == 2,
                   "one line per case ends in PASS")


def check_bench(failures, tool):
    with tempfile.TemporaryDirectory() as folder:
        plot = os.path.join(folder, "it's \"1\".svg")
        path = os.path.join(folder, "b.json")
        has_gnuplot = shutil.which("gnuplot") is not None
        result = run_tool([tool, "bench", "b=2 kv=2048 hq=8 hkv=2", "b=1 kv=0", "threads=2",
                           "--seconds", "0.05", "--json-file", path]
                          + (["--plot", plot] if has_gnuplot else []))
        failures.check(result.returncode == 0, f"bench: {result.stderr.decode()!r}")
        table = result.stdout.decode()
        failures.check(table.count("PASS") == 2, f"one line per case in {table!r}")
        if has_gnuplot:
            with open(plot, encoding="utf-8") as file:
                svg = file.read()
            failures.check("<svg" in svg and "fraction of the roof" in svg, "the plot is an SVG")
        else:
            print("no gnuplot here: no plot was drawn")
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    for row in report["cases"]:
        check_keys(failures, "bench", row, BENCH_KEYS)
        failures.check(row["bound_by"] in ("memory", "compute"), f"bound by {row['bound_by']}")
        failures.check(row["threads"] == 2 and row["pass"] is True, "threads and pass")
        failures.check(row["time_ms_min"] <= row["time_ms"] <= row["time_ms_max"], "the times rise")
        failures.check(abs(row["roof_fraction"] * row["time_ms"] - row["roof_ms"])
                       <= 1e-6 * row["roof_ms"], "the fraction is roof / time")
    busy, empty = report["cases"]
    kv_bytes = 2 * 2048 * 2 * 256 * 2
    flops = 2 * 2 * 2048 * 8 * 256
    seconds = busy["time_ms"] / 1000
    failures.check(abs(busy["gb_per_s"] * 1e9 * seconds / kv_bytes - 1) < 1e-6, "GB/s")
    failures.check(abs(busy["gflop_per_s"] * 1e9 * seconds / flops - 1) < 1e-6, "GFLOP/s")
    failures.check(empty["gb_per_s"] == 0 and empty["roof_ms"] == 0, "nothing to read, no roof")


# Problems, their bytes of KV, their multiply-adds for each query head and channel of K and V, and rows.
COUNTED = (
    ("kv=100,40 q=30,3 causal", 140 * 2 * 256 * 2, sum(range(71, 101)) + sum(range(38, 41)), 33),
    ("kv=100,40 q=30,3", 140 * 2 * 256 * 2, 30 * 100 + 3 * 40, 33),
    ("kv=100 q=4 causal window=10", 13 * 2 * 256 * 2, 4 * 10, 4),
    ("kv=100 q=4 causal chunk=98", 98 * 2 * 256 * 2 + 2 * 2 * 256 * 2, 97 + 98 + 1 + 2, 4),
    ("kv=100,50 q=2,0 window_right=1", 100 * 2 * 256 * 2, 99 + 100, 2),
    ("kv=100 q=1 kv_dtype=int8 scales=token", 100 * 2 * (256 + 2 * 4), 100, 1),
    ("kv=100 kv_dtype=int4 scales=channel/group32 scales_dtype=f16 zeros",
     100 * 2 * (128 + 4 * 3) + 2 * 128 * 3, 100, 1),
    ("kv=100 kv_dtype=fp8_e4m3", 100 * 2 * 256 + 2 * 4, 100, 1),
    ("kv=100 mla dv=64", 100 * 2 * 128 * 2, 100 * (128 + 64) / 256, 1),
)


def check_counts(failures, tool):
    """The bytes and multiply-adds that a roof is made of."""
    report = tool_json(failures, tool, "bench", *(problem + " " for problem, *_ in COUNTED), "hq=6", "hkv=2",
                       "--seconds", "0.001", "--warm")
    for row, (problem, kv_bytes, attended, rows) in zip(report["cases"], COUNTED):
        seconds = row["time_ms"] / 1000
        failures.check(abs(row["gb_per_s"] * 1e9 * seconds / kv_bytes - 1) < 1e-6, f"{problem}: bytes")
        failures.check(abs(row["gflop_per_s"] * 1e9 * seconds / (2 * attended * 6 * 256) - 1) < 1e-6,
                       f"{problem}: multiply-adds, {row['gflop_per_s'] * 1e9 * seconds / (2 * 6 * 256)}")
        failures.check(row["rows"] == rows and abs(row["tokens_per_s"] * seconds / rows - 1) < 1e-6,
                       f"{problem}: {row['rows']} rows")
    plan = tool_json(failures, tool, "plan", "kv=100,40 q=30,3 causal")
    failures.check(plan["rows"] == 33, "plan counts rows")
    failures.check("query rows  33 in all, at most 30 of one request" in
                   run_tool([tool, "plan", "kv=100,40 q=30,3 causal"]).stdout.decode(), "people see the rows")


def check_models(failures, tool):
    """A model is its words, words beside it go before, and the text of a case has no model."""
    known = tool_json(failures, tool, "info")["models"]
    tiny = ("b=1", "kv=4", "q=1", "hq=1", "hkv=1", "d=8", "dv=8")
    report = tool_json(failures, tool, "check", "--suite", "models", *tiny)
    shown = {re.sub("^models/(.*)-(decode|prefill|mixed|tree)$", r"\1", row["case"]) for row in report["cases"]}
    kinds = {name.split("/")[0] for name in known if "/" in name}  # of layers: NAME is NAME/global
    failures.check(shown == {name.replace("/", "-") for name in known if name not in kinds},
                   f"the suite has all models: {shown}, {known}")
    for words, same in (("model=gemma-2-9b/local", "hq=16 hkv=8 d=256 scale=0.0625 softcap=50 window=4096 causal"),
                        ("model=gpt-oss-20b", "hq=64 hkv=8 d=64 sinks causal"),
                        ("window=0 model=mistral-7b hq=8", "hq=8 hkv=8 d=128 causal"),
                        ("model=llama-4-scout/local window_right=2", "hq=40 hkv=8 chunk=8192 window_right=2"),
                        ("model=deepseek-v3 kv_dtype=fp8_e4m3",
                         "hq=128 hkv=1 d=576 dv=512 scale=0.0721687824 mla causal dtype_kv=fp8_e4m3 scales=tensor"),
                        ("model=bloom-7b q=3 tree=3", "hq=32 hkv=32 alibi causal q=3 tree=3")):
        texts = [tool_json(failures, tool, "plan", text)["problem"] for text in (words, same)]
        failures.check(texts[0] == texts[1] and "model" not in texts[0], f"{words}: {texts}")
    report = tool_json(failures, tool, "check", "--suite", "variants", "model=gemma-3-27b", "kv=70", "b=2")
    texts = {row["problem"] for row in report["cases"] if "hq=32 hkv=16 d=128 dv=128" in row["problem"]}
    failures.check(len({text.split("scale=")[1].split()[0] for text in texts}) == 1 and
                   len(report["cases"]) == 18, f"a model beside a suite replaces heads and scales: {texts}")
    failures.check(not any(word in text for text in texts for word in ("sinks", "alibi", "softcap", "window")),
                   f"and variants: {texts}")


def check_stops(failures, tool):
    """A case that cannot run does not take the results before it along."""
    with tempfile.TemporaryDirectory() as folder:
        path, plot = os.path.join(folder, "r.json"), os.path.join(folder, "p.svg")
        for command in ("check", "bench"):
            more = ["--seconds", "0.001"] if command == "bench" else []
            if command == "bench" and shutil.which("gnuplot"):
                more += ["--plot", plot]
            for second, status, word in (("kv=68719476736 ", 3, "memory"),
                                         ("hq=7 hkv=2 ", 2, "hkv")):
                arguments = [tool, command, "kv=10 ", second, "kv=11 ", "--json-file", path] + more
                result = run_tool(arguments + ["--json"])
                what = f"{command} that stops at {second!r}"
                error = result.stderr.decode()
                failures.check(result.returncode == status and error.count("\n") == 1,
                               f"{what}: status {result.returncode}, {error!r}")
                report = json.loads(result.stdout)
                failures.check(len(report["cases"]) == report["passed"] == 1, f"{what}: one case")
                failures.check(word in error and error == f"splitkv: {report.get('stopped')}\n",
                               f"{what}: {report.get('stopped')!r} is the reason")
                with open(path, encoding="utf-8") as file:
                    failures.check(json.load(file) == report, f"{what}: the file has it, too")
                if "--plot" in more:
                    with open(plot, encoding="utf-8") as file:
                        failures.check("kv=10" in file.read(), f"{what}: the plot has it, too")
                    os.unlink(plot)
                os.unlink(path)
                text = run_tool(arguments).stdout.decode()
                failures.check("1 passed, 0 failed, stopped after 1 of 3 cases" in text,
                               f"{what}: people see that, too: {text!r}")
    report = tool_json(failures, tool, "check", "kv=10")
    failures.check("stopped" not in report, "a report of all cases did not stop")


def check_suites(failures, tool):
    """How many cases there are; the shapes are made tiny, which keeps their number."""
    tiny = ("b=1", "kv=40", "q=1", "page=8")
    for command, suites, count in (("check", ("pr683",), 21), ("bench", ("pr683",), 14),
                                   ("check", ("pr683", "long"), 28), ("check", ("models",), 80),
                                   ("check", ("quant",), 64)):
        arguments = [word for suite in suites for word in ("--suite", suite)]
        if command == "bench":
            arguments += ["--seconds", "0.001", "--warm"]
        report = tool_json(failures, tool, command, *arguments, *tiny)
        names = [row["case"] for row in report["cases"]]
        failures.check(len(names) == count == report["passed"], f"{command} {suites}: {len(names)}")
        failures.check(len(set(names)) == count, f"{command} {suites}: names are unique")
        failures.check(all("kv=40" in row["problem"] for row in report["cases"]),
                       "words beside a suite override")
    report = tool_json(failures, tool, "check", "--suite", "pr683", "b=1", "kv=128")
    shapes = {re.search(r"hq=\d+ hkv=\d+", row["problem"]).group() for row in report["cases"]}
    failures.check(shapes == {"hq=16 hkv=8", "hq=32 hkv=8", "hq=40 hkv=8", "hq=64 hkv=8",
                              "hq=32 hkv=32", "hq=16 hkv=1", "hq=8 hkv=8"}, f"heads: {shapes}")
    failures.check(all("page=128" in row["problem"] and "d=128 dv=128" in row["problem"]
                       and "dtype=f16" in row["problem"] for row in report["cases"]), "pr683")


def check_threads_and_kernels(failures, tool):
    for isa in usable_kernel_sets(tool):
        report = tool_json(failures, tool, "check", *set_words(isa), "threads=3", "kv=777",
                           *(set_dtype(isa) or ("dtype=bf16",)))
        row = report["cases"][0]
        failures.check(row["kernel_set"] == isa and row["threads"] == 3, f"{isa} ran: {row}")


def main():
    tool = tool_from_arguments()
    failures = Failures()
    check_info(failures, tool)
    check_plan(failures, tool)
    check_check(failures, tool)
    check_bench(failures, tool)
    check_counts(failures, tool)
    check_models(failures, tool)
    check_stops(failures, tool)
    check_suites(failures, tool)
    check_threads_and_kernels(failures, tool)
    return failures.finish(150)


if __name__ == "__main__":
    sys.exit(main())

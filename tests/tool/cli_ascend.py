"""`splitkv ascend`: words against the reference's vectors, JSON, what explain says of the pull
request's case, checks that pass and checks that have to fail, tensors through the stand-ins of the
device's libraries, and what it says to bad usage.

usage: cli_ascend.py SPLITKV PA_LIB.so LIBASCENDCL.so

SPDX-License-Identifier: Apache-2.0
"""
import array
import json
import math
import os
import random
import struct
import sys
import tempfile
import xml.etree.ElementTree

from run_support import Failures, npy_bytes, option, parse_npy, run_tool

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PULL_REQUEST = "b=256 hq=16 hkv=1 d=128 page=128 kv=8192 dtype=f16"
BUFFERS = ("s", "p", "o_tmp", "go", "o_core", "l", "k16", "v16")
PLAN_KEYS = ("rule", "cores", "key", "groups", "splits", "split_tokens", "tile_tokens", "tasks",
             "tasks_with_tokens", "former_requests", "former_heads", "tail_requests", "tail_heads",
             "balance", "words", "buffers", "traffic", "problem")
TRAFFIC_KEYS = ("kv_bytes", "kv_read_bytes", "o_core_write_bytes", "o_core_read_bytes",
                "l_write_bytes", "l_read_bytes", "tile_bytes")
CHECK_KEYS = ("case", "pass", "rule", "cores", "key", "splits", "tasks", "touched_bytes",
              "exact_bytes", "faults", "rows_unwritten", "max_abs_err", "max_ulp_err", "bound",
              "worst", "of_tolerance", "problem", "seed")
BENCH_KEYS = ("case", "pass", "launches", "time_ms", "time_ms_min", "time_ms_max", "spread",
              "gb_per_s", "max_abs_err", "worst", "of_tolerance", "key", "splits")

# Command lines after `splitkv ascend`, and what the error line has to say. All have status 2.
BAD_LINES = (
    ([], ("plan, explain, check, bench or run",)),
    (["plna"], ("plna", "plan")),
    (["frobnicate"], ("frobnicate", "plan, explain")),
    (["plan"], ("ascend plan", "problem")),
    (["plan", "b=1 kv=1", "b=2 kv=1"], ("one problem",)),
    (["plan", "kv=5", "--words", "--json"], ("--words", "--json")),
    (["plan", "core=3"], ("core=3", "'cores'")),
    (["plan", "frob=3"], ("frob=3", "help ascend")),
    (["plan", "cores=0"], ("cores=0", "1 .. 65535")),
    (["plan", "rule=pr638"], ("rule=pr638", "did you mean pr683?")),
    (["plan", "width=0"], ("width=0", "1 ..")),
    (["plan", "kv=1000", "width=3"], ("kv", "384")),
    (["plan", "b=4 kv=1000 pages=31"], ("pages=31", "32")),
    (["plan", "b=4 kv=1000 pages=31 table=shuffled"], ("pages=31", "32")),
    (["plan", "isa=avx2"], ("isa=avx2", "Ascend")),
    (["plan", "arithmetic=f32"], ("arithmetic=f32", "Ascend")),
    (["plan", "layout=hnd"], ("layout", "[pages, page, heads, channels]")),
    (["plan", "split=none"], ("split", "rule decides")),
    (["plan", "format=csr"], ("format", "dense")),
    (["plan", "index=i64"], ("index", "int32")),
    (["plan", "dtype=f32"], ("dtype", "f16", "bf16")),
    (["plan", "dtype_kv=bf16"], ("dtype_kv", "bf16")),
    (["plan", "d=64 dv=128"], ("dv", "128", "64")),
    (["plan", "d=576"], ("d:", "576", "256")),
    (["plan", "d=256 page=128"], ("page", "128")),
    (["plan", "hq=7 hkv=2"], ("hq", "7", "2")),
    (["plan", "b=0"], ("b:", "0")),
    (["plan", "kv=0"], ("kv", "lengths are 0")),
    (["plan", "cores=100 rule=pr683 kv=100000"], ("cores", "splits", "64")),
    (["explain", "kv=5", "--svg", "/nonexistent/x.svg"], ("--svg /nonexistent/x.svg",)),
    (["explain", "kv=5", "--words"], ("--words", "unknown option")),
    (["check", "--sizes", "exatc"], ("--sizes exatc", "exact, before or after")),
    (["check", "--suite", "odd"], ("--suite odd", "pr683, ascend")),
    (["check", "--suite", "asend"], ("asend", "did you mean ascend")),
    (["bench", "kv=5"], ("--kernel", "missing")),
    (["bench", "kv=5", "--kernel", "x.so", "--launches", "0"], ("--launches 0", "1 ..")),
    (["run", "b=3"], ("b=3", "options only")),
    (["run"], ("--out", "missing")),
    (["run", "--out", "x.npy"], ("--kernel", "--model")),
    (["run", "--out", "x.npy", "--model"], ("--q FILE.npy is missing",)),
    (["run", "--out", "x.npy", "--model", "--kernel", "x.so"], ("--model", "--kernel")),
    (["run", "--out", "x.npy", "--model", "--runtime", "x.so"], ("--runtime", "--kernel")),
    (["run", "--out", "x.npy", "--model", "--name-q", "Q"], ("--name-q", "--tensors")),
    (["run", "--cores", "x"], ("--cores x", "65535")),
    (["run", "--rule", "both"], ("--rule both", "guarded or pr683")),
    (["run", "--device", "-1"], ("--device -1", "0 ..")),
    (["run", "--offsets", "x.npy"], ("--offsets", "unknown option")),
)
# The Ascend words and suite are not known elsewhere.
BAD_ELSEWHERE = (
    (["plan", "cores=24"], ("cores=24", "splitkv ascend")),
    (["check", "rule=guarded"], ("rule=guarded", "splitkv ascend")),
    (["bench", "width=3"], ("width=3", "splitkv ascend")),
    (["check", "pages=3"], ("pages=3", "splitkv ascend")),
    (["check", "--suite", "ascend"], ("--suite ascend", "pr683, ragged, odd, long")),
)


def ascend_json(failures, tool, *arguments, status=0):
    result = run_tool([tool, "ascend", *arguments, "--json"])
    failures.check(result.returncode == status and result.stderr == b"",
                   f"{arguments}: status {result.returncode}, {result.stderr.decode()!r}")
    report = json.loads(result.stdout)
    failures.check(report["command"] == "ascend " + arguments[0], f"{arguments}: says its command")
    return report


def check_keys(failures, what, row, keys):
    for key in keys:
        failures.check(row.get(key) is not None, f"{what}: has no {key!r}")


def buffer_bytes(report, key):
    return {row["name"]: row[key] for row in report["buffers"]}


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def vector_cases(path):
    """(numbers, lengths, words, allocated bytes) of each case of a file of vectors."""
    with open(path, encoding="ascii") as file:
        for line in file:
            kind, _, rest = line.partition(" ")
            if kind == "case":
                numbers = dict(part.split("=") for part in rest.split()[1:])
            elif kind == "kv_lens":
                lengths = rest.split()
            elif kind == "workspace":
                allocated = {name: int(n) for name, n in (p.split("=") for p in rest.split())}
            elif kind == "words":
                yield numbers, lengths, rest.strip(), allocated


def problem_of(numbers, lengths, rule):
    runs = []  # kv=LENGTHxCOUNT keeps the argument short
    for length in lengths:
        if runs and runs[-1][0] == length:
            runs[-1][1] += 1
        else:
            runs.append([length, 1])
    return (f"hq={numbers['num_heads']} hkv={numbers['kv_heads']} d={numbers['head_dim']} "
            f"dv={numbers['head_dim_v']} page={numbers['block_size']} "
            f"kv={','.join(f'{length}x{n}' for length, n in runs)} dtype={numbers['dtype']} "
            f"scale={numbers['scale']} cores={numbers['block_dim']} rule={rule} "
            f"width={numbers['max_blocks_per_query']} pages={numbers['num_blocks']}")


def check_vectors(failures, tool):
    for rule in ("pr683", "guarded"):
        path = os.path.join(ROOT, "tests", "vectors", f"ascend_{rule}.txt")
        if not failures.check(os.path.exists(path), f"the vectors of {rule} are there"):
            continue
        n_compared = 0
        for numbers, lengths, words, allocated in vector_cases(path):
            if int(numbers["head_dim_v"]) > 576:
                continue  # no word of the grammar
            problem = problem_of(numbers, lengths, rule)
            result = run_tool([tool, "ascend", "plan", "--words", "--unchecked", problem])
            shown = result.stdout.decode()
            failures.check(result.returncode == 0 and shown == words + "\n",
                           f"words of {problem}: {result.stderr!r}")
            if n_compared % 7 == 0:
                plan = run_tool([tool, "ascend", "plan", "--json", "--unchecked", problem])
                if failures.check(plan.returncode == 0, f"plan of {problem}: {plan.stderr!r}"):
                    after = buffer_bytes(json.loads(plan.stdout), "after_bytes")
                    wanted = {name.replace("o_core_tmp", "o_core"): n
                              for name, n in allocated.items()}
                    failures.check(after == wanted, f"{problem}: {after}, not {wanted}")
            n_compared += 1
        failures.check(n_compared >= 60, f"{rule}: {n_compared} cases")


# ── plan and explain ─────────────────────────────────────────────────────────────────────────────


def check_plan(failures, tool):
    report = ascend_json(failures, tool, "plan", PULL_REQUEST, "rule=pr683")
    check_keys(failures, "plan", report, PLAN_KEYS)
    check_keys(failures, "traffic", report["traffic"], TRAFFIC_KEYS)
    failures.check(tuple(row["name"] for row in report["buffers"]) == BUFFERS, "eight buffers")
    for row in report["buffers"]:
        check_keys(failures, "buffer", row, ("exact_bytes", "before_bytes", "after_bytes",
                                             "bound_bytes"))
        failures.check(row["exact_bytes"] <= row["bound_bytes"], f"{row['name']}: in its bound")
    words = run_tool([tool, "ascend", "plan", "--words", PULL_REQUEST, "rule=pr683"]).stdout.decode()
    failures.check(words == " ".join(str(word) for word in report["words"]) + "\n",
                   "--words and --json have the same words, in one line")
    failures.check(len(report["words"]) == 44 + 17 * 256, f"{len(report['words'])} words")
    failures.check(abs(report["balance"] - 0.968) < 0.001, f"balance {report['balance']}")
    text = run_tool([tool, "ascend", "plan", PULL_REQUEST, "rule=pr683"]).stdout.decode()
    failures.check("46,137,344" in text and "o_core" in text, "people see o_core")
    tail = ascend_json(failures, tool, "plan", "b=32 kv=2048")
    failures.check((tail["former_requests"], tail["tail_requests"], tail["tail_heads"]) == (24, 8, 11),
                   f"32 requests on 24 cores have a tail: {tail['tail_requests']}")
    one = ascend_json(failures, tool, "plan", "b=1 hq=32 hkv=8 kv=2048")
    failures.check(one["traffic"]["kv_read_bytes"] == 2 * one["traffic"]["kv_bytes"],
                   "tasks of two heads of a group of four read every KV head twice")


def check_explain(failures, tool):
    report = ascend_json(failures, tool, "explain", PULL_REQUEST, "cores=24", "rule=pr683")
    exact, before = buffer_bytes(report, "exact_bytes"), buffer_bytes(report, "before_bytes")
    failures.check((report["key"], report["splits"], report["split_tokens"]) == (16, 22, 384),
                   "key 16, 22 splits of 384 tokens")
    failures.check((exact["o_core"], before["o_core"]) == (46_137_344, 3_735_552), "o_core")
    failures.check((exact["l"], before["l"]) == (360_448, 29_184), "l")
    failures.check([row["name"] for row in report["too_small"]] == ["o_core", "l"], "warnings")
    failures.check(report["too_small"][0]["short_bytes"] == 46_137_344 - 3_735_552, "how much")
    failures.check(abs(report["split_traffic_fraction"] - 0.1289) < 1e-3, "12.9 % of traffic")
    other = report["other"]
    failures.check(other["rule"] == "guarded" and other["key"] == 0 and other["splits"] == 1,
                   "guarded does not split")
    failures.check(buffer_bytes(other, "exact_bytes")["o_core"] == 0, "guarded needs no o_core")

    text = run_tool([tool, "ascend", "explain", PULL_REQUEST, "cores=24", "rule=pr683"])
    text = text.stdout.decode()
    flat = " ".join(text.split())
    for part in ("key 16", "22 splits of 384 tokens", "46,137,344", "3,735,552", "360,448",
                 "29,184", "12.9 %", "key 0", "no split", "WARNING: o_core is 42,401,792 bytes",
                 "Balance 96.8 %", "Batch 256 > 0.8 x 24 cores"):
        failures.check(part in flat, f"explain says {part!r}")
    failures.check(all(len(line) <= 80 for line in text.splitlines()), "explain fits 80 columns")
    guarded = run_tool([tool, "ascend", "explain", PULL_REQUEST]).stdout.decode()
    failures.check("WARNING" not in guarded and "Balance 97.0 %" in guarded, "guarded is enough")
    same = run_tool([tool, "ascend", "explain", "b=4 kv=300"]).stdout.decode()
    failures.check("The same words" in same, "both rules agree on short requests")
    one = run_tool([tool, "ascend", "explain", "b=1 hq=4 hkv=1 kv=100"]).stdout.decode()
    failures.check("One split takes all tokens" in one, "a request of one page is not split")


def check_picture(failures, tool):
    namespace = "{http://www.w3.org/2000/svg}"
    with tempfile.TemporaryDirectory() as folder:
        for name, problem, cores in (("split", PULL_REQUEST + " rule=pr683", 24),
                                     ("tail", "b=32 kv=1..2048", 24),
                                     ("many", "b=2000 kv=1..300 cores=2", 2),
                                     ("cores", "b=70000 kv=5 hq=1 hkv=1 cores=65535", 65535)):
            path = os.path.join(folder, name + ".svg")
            result = run_tool([tool, "ascend", "explain", problem, "--svg", path])
            failures.check(result.returncode == 0, f"{problem}: {result.stderr!r}")
            picture = xml.etree.ElementTree.parse(path).getroot()
            texts = [element.text or "" for element in picture.iter(namespace + "text")]
            blocks = len(list(picture.iter(namespace + "rect")))
            failures.check(any("balance" in text for text in texts), f"{name}: a title")
            failures.check(any("tokens × heads" in text for text in texts), f"{name}: an axis")
            failures.check(min(cores, 90) <= blocks <= 330 * min(cores, 90),
                           f"{name}: {blocks} blocks")
        failures.check(sorted(os.listdir(folder)) == sorted(f"{n}.svg" for n in (
            "split", "tail", "many", "cores")), "nothing else is left")


# ── check ────────────────────────────────────────────────────────────────────────────────────────


def check_check(failures, tool):
    report = ascend_json(failures, tool, "check", "--suite", "ascend")
    failures.check(report["failed"] == 0 and report["passed"] >= 40, f"{report['passed']} pass")
    for row in report["cases"]:
        check_keys(failures, row["case"], row, CHECK_KEYS)
        failures.check(row["touched_bytes"] == row["exact_bytes"], f"{row['case']}: exact")
        failures.check(row["worst"] <= 1 and row["of_tolerance"] <= 1, f"{row['case']}: errors")
    failures.check({row["key"] for row in report["cases"]} == {0, 1, 16, 17}, "all four kernels")
    small = ("kv=300", "hkv=1", "hq=8", "cores=2")
    report = ascend_json(failures, tool, "check", "--suite", "pr683", *small, "rule=pr683",
                         "dtype=bf16")
    failures.check(report["passed"] == 21, "suite pr683 has 21 shapes")
    failures.check(all("rule=pr683" in row["problem"] and "dtype=bf16" in row["problem"]
                       and "cores=2" in row["problem"] for row in report["cases"]), "overrides")
    again = ascend_json(failures, tool, "check", report["cases"][3]["problem"])["cases"][0]
    failures.check(all(again[key] == report["cases"][3][key]
                       for key in ("max_abs_err", "worst", "touched_bytes", "problem")),
                   "a case's problem repeats it")


def check_faults(failures, tool):
    """What the reference does wrong is found, and where."""
    problem = "b=24 kv=2048 hq=4 hkv=1 d=64 cores=8 rule=pr683"
    before = ascend_json(failures, tool, "check", problem, "--sizes", "before", status=1)
    row = before["cases"][0]
    failures.check(not row["pass"] and row["faults"] > 0, "the sizes before are too small")
    reached = {entry["name"]: entry["reached_bytes"] for entry in row["outside"]}
    plan = buffer_bytes(ascend_json(failures, tool, "plan", problem), "exact_bytes")
    failures.check(reached == {"o_core": plan["o_core"], "l": plan["l"]}, f"reached {reached}")
    check_keys(failures, "fault", row["fault"], ("buffer", "write", "byte", "task", "request",
                                                 "split", "head"))
    after = ascend_json(failures, tool, "check", problem, "--sizes", "after")
    failures.check(after["passed"] == 1, "the sizes after are enough")
    scaled = ascend_json(failures, tool, "check", problem, "--offsets-times-splits", status=1)
    row = scaled["cases"][0]
    failures.check(row["fault"]["buffer"] == "o_core" and row["fault"]["write"] is True
                   and [entry["name"] for entry in row["outside"]] == ["o_core"],
                   f"offsets times splits leave o_core: {row['fault']}")
    failures.check(row["outside"][0]["reached_bytes"] > 7 * plan["o_core"], "by far")
    mask = ascend_json(failures, tool, "check", "kv=100,40", "--mask-by-pointer", status=1)
    failures.check(mask["cases"][0]["fault"]["buffer"] == "mask"
                   and mask["cases"][0]["outside"][0]["reached_bytes"] == 200, "the mask is read")
    rows = ascend_json(failures, tool, "check", "kv=100,0,40", "--keep-empty-rows", status=1)
    failures.check(rows["cases"][0]["rows_unwritten"] == 32, "32 rows are not written")
    text = run_tool([tool, "ascend", "check", problem, "--sizes", "before"])
    shown = text.stdout.decode()
    failures.check(text.returncode == 1 and "past its end" in shown and "FAIL" in shown
                   and "splitkv ascend check --sizes before '" in shown, f"people see it: {shown}")


# ── tensors and devices ──────────────────────────────────────────────────────────────────────────


def f16(values):
    return struct.pack(f"<{len(values)}e", *values)


def bf16(values):
    return array.array("H", [struct.unpack("<I", struct.pack("<f", v))[0] >> 16
                             for v in values]).tobytes()


def read_values(path, is_bf16):
    _, _, data = parse_npy(open(path, "rb").read())
    if not is_bf16:
        return struct.unpack(f"<{len(data) // 2}e", data)
    halves = struct.unpack(f"<{len(data) // 2}H", data)
    return [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves]


class Tensors:
    """A ragged batch in a folder of .npy files: one empty request, a shuffled table of int64."""

    def __init__(self, folder, is_bf16, hkv=2, d=32):
        values = random.Random(7)
        self.hq, self.hkv, self.d, self.page, self.n_pages = 8, hkv, d, 16, 23
        self.kv_lens = (100, 0, 37, 64)
        pack, descr = (bf16, "<u2") if is_bf16 else (f16, "<f2")
        width = 7
        table = list(range(self.n_pages))
        values.shuffle(table)
        entries, used = [], 0
        for kv_len in self.kv_lens:
            n = -(-kv_len // self.page)
            entries += table[used:used + n] + [1 << 40] * (width - n)
            used += n

        def normal(*shape):
            return npy_bytes(descr, shape, pack([values.gauss(0, 1) for _ in range(math.prod(shape))]))

        cache = (self.n_pages, self.page, self.hkv, self.d)
        n = len(self.kv_lens)
        files = {"q": normal(n, self.hq, self.d), "k": normal(*cache), "v": normal(*cache),
                 "table": npy_bytes("<i8", (n, width), struct.pack(f"<{n * width}q", *entries)),
                 "kv_lens": npy_bytes("<i4", (n,), struct.pack(f"<{n}i", *self.kv_lens))}
        self.options = ["--bf16"] if is_bf16 else []
        for role, content in files.items():
            path = os.path.join(folder, role + ".npy")
            with open(path, "wb") as file:
                file.write(content)
            self.options += [option(role), path]


def check_close(failures, what, path, wanted, is_bf16, d):
    """Weights are rounded to 16 bits before they meet V: 2^-11 or 2^-8 of it, and as much again for
    the result."""
    got = read_values(path, is_bf16)
    unit = 2.0 ** -8 if is_bf16 else 2.0 ** -11
    worst = max(abs(a - b) / (unit * (5 + 2 * abs(b))) for a, b in zip(got, wanted))
    failures.check(len(got) == len(wanted) and worst <= 1, f"{what}: {worst} of the bound")
    empty = got[8 * d:16 * d]
    failures.check(all(value == 0 for value in empty), f"{what}: an empty request gives zeros")


def check_run(failures, tool, kernel, runtime):
    device = ["--kernel", kernel, "--runtime", runtime]
    # Of 40 channels with a KV head for each head, Q is read past the end of its last row.
    for is_bf16, hkv, d in ((False, 2, 32), (True, 2, 32), (False, 8, 40)):
        with tempfile.TemporaryDirectory() as folder:
            tensors = Tensors(folder, is_bf16, hkv, d)
            out = os.path.join(folder, "out.npy")
            result = run_tool([tool, "run", *tensors.options, "--out", out])
            failures.check(result.returncode == 0, f"splitkv run: {result.stderr!r}")
            wanted = read_values(out, is_bf16)
            for by in (["--model"], device):
                for more in ([], ["--cores", "8"], ["--rule", "pr683"], ["--cores", "64"]):
                    os.unlink(out)
                    line = ["run", *tensors.options, "--out", out, *by, *more]
                    report = ascend_json(failures, tool, *line)
                    check_keys(failures, "run", report, ("out", "shape", "dtype", "by", "rule",
                                                         "cores", "key", "splits", "groups",
                                                         "scratch_bytes", "time_ms"))
                    failures.check(report["shape"] == [4, 8, d]
                                   and report["dtype"] == ("bf16" if is_bf16 else "f16"), "shape")
                    check_close(failures, f"{by} {more}", out, wanted, is_bf16, d)
            text = run_tool([tool, "ascend", "run", *tensors.options, "--out", out, "--model"])
            failures.check(text.returncode == 0 and b"key " in text.stdout, "text of run")


def check_run_empty(failures, tool, kernel, runtime):
    """No token at all, or no request: zeros, without a launch and without its libraries."""
    with tempfile.TemporaryDirectory() as folder:
        tensors = Tensors(folder, False)
        out = os.path.join(folder, "out.npy")
        nowhere = ["--kernel", "/nonexistent/pa.so", "--runtime", "/nonexistent/acl.so"]
        for by in (["--model"], ["--kernel", kernel, "--runtime", runtime], nowhere):
            for n in (4, 0):
                for role, shape, size in (("kv_lens", (n,), 4), ("table", (n, 7), 8),
                                          ("q", (n, 8, 32), 2)):
                    descr = {"kv_lens": "<i4", "table": "<i8", "q": "<f2"}[role]
                    with open(os.path.join(folder, role + ".npy"), "wb") as file:
                        file.write(npy_bytes(descr, shape, bytes(size * math.prod(shape))))
                text = run_tool([tool, "ascend", "run", *tensors.options, "--out", out, *by])
                failures.check(text.returncode == 0 and b"none: no request has tokens" in text.stdout,
                               f"empty batch of {n} {by}: {text.stderr!r}")
                failures.check(list(read_values(out, False)) == [0] * (n * 8 * 32), f"zeros of {n}")
                os.unlink(out)
        line = ["run", *tensors.options, "--out", out, "--model"]
        report = ascend_json(failures, tool, *line)
        failures.check(report["groups"] == 0 and report["scratch_bytes"] == 0, "nothing launched")


def check_run_errors(failures, tool, kernel, runtime):
    with tempfile.TemporaryDirectory() as folder:
        tensors = Tensors(folder, False)
        out = os.path.join(folder, "out.npy")
        with open(out, "w", encoding="ascii") as file:
            file.write("before")
        table = os.path.join(folder, "table.npy")
        good = open(table, "rb").read()

        def refuse(more, status, parts):
            result = run_tool([tool, "ascend", "run", *tensors.options, "--out", out, *more])
            check_line(failures, more, result, status, parts)
            failures.check(open(out, encoding="ascii").read() == "before", f"{more}: out is lost")

        for page in (23, -1, 1 << 33):
            with open(table, "wb") as file:
                file.write(good[:-7 * 8] + struct.pack("<q", page) + good[-6 * 8:])
            refuse(["--model"], 2, ("--table", f"page {page}", "[3, 0]", "23 pages"))
        with open(table, "wb") as file:
            file.write(good)
        refuse(["--model", "--scale", "nan"], 2, ("--scale nan", "finite"))
        refuse(["--kernel", "/nonexistent/pa.so", "--runtime", runtime], 3,
               ("--kernel", "/nonexistent/pa.so"))
        refuse(["--kernel", kernel, "--runtime", "/nonexistent/acl.so"], 3,
               ("--runtime", "/nonexistent/acl.so"))
        refuse(["--kernel", kernel, "--runtime", "libc.so.6"], 3, ("libc.so.6",))
        q = os.path.join(folder, "q.npy")
        result = run_tool([tool, "ascend", "run", *tensors.options, "--out", q, "--model"])
        check_line(failures, "out is q", result, 2, ("--out", "is the file of --q"))
        with open(q, "wb") as file:
            file.write(npy_bytes("<f4", (4, 8, 32), bytes(4 * 8 * 32 * 4)))
        refuse(["--model"], 2, ("--q", "f16"))


def check_bench(failures, tool, kernel, runtime):
    device = ["--kernel", kernel, "--runtime", runtime, "--launches", "5"]
    report = ascend_json(failures, tool, "bench", "b=3 kv=0..300 table=shuffled",
                         "kv=1500,3 rule=pr683 hq=4 hkv=2 cores=4", *device)
    failures.check(report["passed"] == 2, "both pass")
    for row in report["cases"]:
        check_keys(failures, "bench", row, BENCH_KEYS)
        failures.check(row["launches"] == 5 and row["time_ms_min"] <= row["time_ms"]
                       <= row["time_ms_max"], f"{row['case']}: times")
    report = ascend_json(failures, tool, "bench", "--suite", "ascend", *device)
    failures.check(report["failed"] == 0 and report["passed"] >= 4, "the suite's bench cases pass")


# ── usage ────────────────────────────────────────────────────────────────────────────────────────


def check_line(failures, name, result, status, parts):
    text = result.stderr.decode(errors="replace")
    failures.check(result.returncode == status, f"{name}: {result.returncode}, {text!r}")
    failures.check(result.stdout == b"" and text.count("\n") == 1 and text.startswith("splitkv: "),
                   f"{name}: one line, not {text!r}")
    for part in parts:
        failures.check(part in text, f"{name}: {part!r} is not in {text!r}")


def check_usage(failures, tool):
    for arguments, parts in BAD_LINES:
        check_line(failures, arguments, run_tool([tool, "ascend", *arguments]), 2, parts)
    for arguments, parts in BAD_ELSEWHERE:
        check_line(failures, arguments, run_tool([tool, *arguments]), 2, parts)
    missing = run_tool([tool, "ascend", "bench", "kv=5", "--kernel", "/nonexistent/pa_lib.so"])
    check_line(failures, "no library", missing, 3, (".so",))
    huge = run_tool([tool, "ascend", "check", "b=1024 kv=64M"])
    check_line(failures, "no memory", huge, 3, ("memory",))
    page = run_tool([tool, "help", "ascend"]).stdout.decode()
    for word in ("cores=24", "rule=guarded", "width=N", "pages=N", "kv=4096"):
        failures.check(f"\n  {word} " in page, f"the help explains {word}")


def main():
    if len(sys.argv) != 4 or not all(os.access(path, os.R_OK) for path in sys.argv[1:]):
        sys.exit(f"usage: {sys.argv[0]} SPLITKV PA_LIB.so LIBASCENDCL.so")
    tool, kernel, runtime = (os.path.abspath(path) for path in sys.argv[1:])
    failures = Failures()
    check_usage(failures, tool)
    check_vectors(failures, tool)
    check_plan(failures, tool)
    check_explain(failures, tool)
    check_picture(failures, tool)
    check_check(failures, tool)
    check_faults(failures, tool)
    check_run(failures, tool, kernel, runtime)
    check_run_empty(failures, tool, kernel, runtime)
    check_run_errors(failures, tool, kernel, runtime)
    check_bench(failures, tool, kernel, runtime)
    return failures.finish(1200)


if __name__ == "__main__":
    sys.exit(main())

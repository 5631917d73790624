"""`splitkv bench --vs`: the protocol with peers, good ones and others (fake_peer.py).

SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import re
import stat
import sys
import tempfile
import time

from run_support import Failures, run_tool, tool_from_arguments

HERE = os.path.dirname(os.path.abspath(__file__))
PROBLEM = "b=2 kv=9,5 hq=4 hkv=2 d=8 dv=12 page=4 dtype=f32 table=shuffled threads=1"
PEER_KEYS = ("version", "path", "layout", "kv_dtype", "time_ms", "time_ms_min", "time_ms_max",
             "spread", "cpu_ms", "ratio", "max_abs_err", "max_ulp_err", "relative_l2_err", "worst",
             "kv_copies", "within_bound", "wrong", "noisy")

# Name of the peer, and what the error line has to say.
BROKEN = (
    ("dies-at-once", ("status 1", "no such library")),
    ("dies", ("signal 6", "the last words")),
    ("dies-with-child", ("status 7",)),
    ("nonsense", ("hello",)),
    ("no-copies", ("answered",)),
    ("hangs-at-once", ("no answer within 1 s",)),
    ("hangs", ("no answer within 1 s",)),
    ("talks", ("does not end",)),
    ("complains", ("out of luck",)),
    ("slower-than-time", ("seconds 1000", "run ")),
    ("no-time", ("seconds 0",)),
    ("no-number", ("or so",)),
    ("hexadecimal", ("seconds 0x1p-20",)),
    ("no-time-at-all", ("seconds nan",)),
    ("ends-early", ("seconds 1e-9? or so",)),
    ("adds-to-json", ("to 'the case'",)),
    ("repeats", ("it said 'seconds ", "without being asked")),
    ("starts-early", ("it said 'sec' without being asked",)),
    ("no-out", ("here you are", "out")),
)


class Peers:
    """A folder of fake peers."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ, SPLITKV_PEERS=folder)

    def add(self, name):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file, \
                open(os.path.join(HERE, "fake_peer.py"), encoding="utf-8") as source:
            file.write(f"#!{sys.executable}\n{source.read()}")
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)

    def bench(self, tool, *arguments, problem=PROBLEM):
        return run_tool([tool, "bench", problem, "--seconds", "0.02", *arguments],
                        env=self.environment)

    def bench_json(self, tool, *arguments, problem=PROBLEM):
        result = self.bench(tool, *arguments, "--json", problem=problem)
        return result, json.loads(result.stdout)


def check_good(failures, tool, peers):
    for name in ("good", "inexact", "wrong", "silent"):
        peers.add(name)
    result, report = peers.bench_json(tool, "--vs", "good", "--vs", "inexact", "--vs=wrong",
                                      "--vs", "silent", "--vs", "good:bf16")
    failures.check(result.returncode == 0 and result.stderr == b"", f"good: {result.stderr!r}")
    row = report["cases"][0]
    names = [peer["name"] for peer in row["peers"]]
    failures.check(names == ["good", "inexact", "wrong", "silent", "good:bf16"], f"names: {names}")
    failures.check(row["pass"] is True, "our own result is right")
    for peer in row["peers"]:
        for key in PEER_KEYS:
            failures.check(key in peer, f"{peer['name']} has no {key}")
        failures.check(abs(peer["ratio"] * row["time_ms"] / peer["time_ms"] - 1) < 1e-9,
                       "the ratio is the peer's time over ours")
        failures.check(peer["time_ms_min"] <= peer["time_ms"] <= peer["time_ms_max"],
                       "the times rise")
        failures.check(peer["time_ms"] >= 0.5, "the time is what the peer measured")
        failures.check(peer["version"] == "1.2" and peer["path"] == "plain Python", "who it is")
    good, inexact, wrong, silent, bf16 = row["peers"]
    failures.check(good["within_bound"] and not good["wrong"] and good["worst"] <= 1, "good is")
    failures.check(good["kv_copies"] == 5 and good["max_abs_err"] < 1e-6, "good is exact, and cold")
    failures.check(good["kv_dtype"] == "f32" and bf16["kv_dtype"] == "bf16", "the wanted type")
    failures.check(not inexact["within_bound"] and not inexact["wrong"]
                   and abs(inexact["relative_l2_err"] - 0.01) < 1e-4, "inexact is no more than that")
    failures.check(not wrong["within_bound"] and wrong["wrong"], "a wrong answer is")
    failures.check(silent["wrong"], "an answer that was not written is wrong")
    means = {peer["name"]: peer for peer in report["peers"]}
    failures.check(abs(means["good"]["ratio_mean"] / good["ratio"] - 1) < 1e-9
                   and means["good"]["cases_within_bound"] == 1, "the mean of one is that one")
    failures.check(means["inexact"]["cases"] == 1 and means["inexact"]["cases_within_bound"] == 0,
                   "what is not as accurate is counted apart")
    failures.check(means["wrong"]["cases"] == 0 and means["wrong"]["wrong"] == 1,
                   "a fast wrong answer does not count")
    result, report = peers.bench_json(tool, "--vs", "good", "--warm")
    failures.check(report["cases"][0]["peers"][0]["kv_copies"] == 1, "warm is one copy")


def check_table(failures, tool, peers):
    result = peers.bench(tool, "--vs", "good", "--vs", "wrong", "--vs", "inexact")
    lines = result.stdout.decode().splitlines()
    failures.check("ratio" in lines[0], f"a column of ratios: {lines[0]!r}")
    failures.check(lines[2].startswith("  vs good ") and re.search(r"\dx  in bound", lines[2]),
                   f"{lines[2]!r}")
    failures.check("WRONG" in lines[3] and re.search(r"x bound", lines[4]),
                   f"wrong and inexact: {lines[3:5]}")
    failures.check(re.match(r"vs good: [\d.]+x over 1 case, all within", lines[5]), f"{lines[5]!r}")
    failures.check(lines[6] == "vs wrong: no ratio, 1 wrong", f"{lines[6]!r}")
    alone = run_tool([tool, "bench", PROBLEM, "--seconds", "0.01"]).stdout.decode()
    failures.check("ratio" not in alone, "no ratios without peers")


def check_geometric_mean(failures, tool, peers):
    result, report = peers.bench_json(tool, "b=1 kv=3 ", "--vs", "good", "hq=4", "hkv=2", "d=8",
                                      "dtype=f32", "layout=hnd", problem="b=2 kv=4 ")
    ratios = [row["peers"][0]["ratio"] for row in report["cases"]]
    mean = report["peers"][0]["ratio_mean"]
    failures.check(result.returncode == 0 and len(ratios) == 2
                   and abs(mean * mean / (ratios[0] * ratios[1]) - 1) < 1e-9, "geometric mean")
    failures.check(all(row["peers"][0]["within_bound"] for row in report["cases"]), "hnd, too")
    result, report = peers.bench_json(tool, "--vs", "good", problem="b=3 kv=0,2,0 hq=4 hkv=1 d=8 "
                                      "dtype=f32 format=csr index=i64 table=shared")
    failures.check(report["cases"][0]["peers"][0]["within_bound"], "empty requests, csr, i64")


def check_rows(failures, tool, peers):
    """Query rows, causal or not; what peers have no word for is refused, and the line says what."""
    small = "hq=4 hkv=2 d=8 dtype=f32 page=4 table=shuffled threads=1 "
    for words in ("kv=9,5 q=3 causal", "kv=9,0,50,3 q=3,2,0,5 causal", "kv=9,5 q=3", "b=2 kv=7 causal",
                  "kv=4,6 q=1,0 causal"):
        result, report = peers.bench_json(tool, "--vs", "good", problem=f"{words} {small}")
        failures.check(result.returncode == 0 and report["cases"][0]["peers"][0]["within_bound"],
                       f"{words}: {report}")
    for words, word in (("q=3 window=2 causal", "window="), ("q=3 window_right=2", "window_right="),
                        ("softcap=5", "softcap="), ("sinks", "sinks"), ("alibi", "alibi"),
                        ("q=3 chunk=4", "chunk="), ("q=2 tree=3", "tree="), ("prefix=4", "prefix="),
                        ("mla dv=4", "mla"), ("kv_dtype=int8", "dtype_kv=")):
        result = peers.bench(tool, "--vs", "good", problem=f"b=2 kv=9 {words} {small}")
        error = result.stderr.decode()
        failures.check(result.returncode == 3 and result.stdout == b"" and error.count("\n") == 1
                       and f"no word for {word}," in error, f"{words}: {result.returncode}, {error!r}")


def check_broken(failures, tool, peers):
    for name, parts in BROKEN:
        peers.add(name)
        start = time.monotonic()
        result, report = peers.bench_json(tool, "b=1 kv=5 hq=1 hkv=1 d=4 dtype=f32", "--vs", name,
                                          "--vs", "good", "--vs-timeout", "1")
        error = result.stderr.decode()
        failures.check(result.returncode == 3, f"{name}: status {result.returncode}, {error!r}")
        failures.check(time.monotonic() - start < 30, f"{name}: no hang")
        failures.check(error.count("\n") == len(report["cases"]) == 2,
                       f"{name}: a line for each case, {error!r}")
        for part in ("splitkv: ", f"--vs {name}: ", *parts):
            failures.check(part in error, f"{name}: {part!r} is not in {error!r}")
        for row in report["cases"]:
            failures.check("broken" in row["peers"][0] and row["pass"] is True,
                           f"{name}: our own result stands")
            failures.check(row["peers"][1]["within_bound"], f"{name}: so does the other peer's")
        failures.check(report["peers"][0]["broken"] == 2 and "stopped" not in report,
                       f"{name}: {report['peers']}")


def check_unsupported(failures, tool, peers):
    for name in ("unsupported", "missing", "stays"):
        peers.add(name)
    result, report = peers.bench_json(tool, "--vs", "unsupported", "--vs", "good")
    row = report["cases"][0]
    failures.check(result.returncode == 0 and result.stderr == b"", "unsupported is no error")
    failures.check(row["peers"][0] == {"name": "unsupported",
                                       "unsupported": "nothing with a d in it"}, f"{row['peers']}")
    failures.check(report["peers"][0]["unsupported"] == 1 and row["peers"][1]["ratio"] > 0, "count")
    result = peers.bench(tool, "--vs", "good", "--vs", "missing")
    error = result.stderr.decode()
    failures.check(result.returncode == 3 and result.stdout == b"" and error.count("\n") == 1
                   and "--vs missing: " in error and "bench/peers/install missing" in error,
                   f"missing: {result.returncode}, {error!r}")
    start = time.monotonic()
    result = peers.bench(tool, "--vs", "stays")
    failures.check(result.returncode == 0 and time.monotonic() - start < 20,
                   "a peer that does not go is ended")


def check_usage(failures, tool, peers):
    os.mkdir(os.path.join(peers.folder, "folder"))
    peers.add("install")
    for arguments, parts in ((("--vs", "nobody"), ("--vs nobody", "no such peer", "which has ", "good")),
                             (("--vs", "install"), ("--vs install", "no such peer")),
                             (("--vs", "folder"), ("--vs folder", "no such peer")),
                             (("--vs", ""), ("--vs", "name of a peer")),
                             (("--vs", "../x"), ("--vs ../x", "name of a peer")),
                             (("--vs", "good:f8"), ("--vs good:f8", "f32, f16 or bf16")),
                             (("--vs", "good", "--vs", "good"), ("--vs good", "twice")),
                             (("--vs",), ("--vs", "value")),
                             (("--vs", "good", "--vs-timeout", "-1"), ("--vs-timeout -1", "above")),
                             (tuple(word for i in range(9) for word in ("--vs", f"p{i}")),
                              ("--vs p8", "at most 8"))):
        result = peers.bench(tool, *arguments)
        error = result.stderr.decode()
        failures.check(result.returncode == 2 and result.stdout == b"" and error.count("\n") == 1,
                       f"{arguments}: status {result.returncode}, {error!r}")
        for part in parts:
            failures.check(part in error, f"{arguments}: {part!r} is not in {error!r}")
    with open(os.path.join(peers.folder, "no-program"), "w", encoding="utf-8"):
        pass
    os.chmod(os.path.join(peers.folder, "no-program"), 0o755)
    result = peers.bench(tool, "--vs", "no-program", "--vs-timeout", "1")
    failures.check(result.returncode == 3 and b"cannot be started" in result.stderr,
                   f"an empty program: {result.returncode}, {result.stderr!r}")


def check_cut(failures, tool, peers):
    """A peer that cuts the file of tensors short does not take the tool with it."""
    peers.add("cuts")
    result, report = peers.bench_json(tool, "--vs", "cuts")
    peer = report["cases"][0]["peers"][0]
    failures.check(result.returncode in (0, 3) and ("broken" in peer or peer["wrong"]),
                   f"cuts: status {result.returncode}, {result.stderr!r}, {peer}")
    if sys.platform == "linux":
        result, report = peers.bench_json(tool, "--vs", "cuts", "--vs", "good")
        failures.check(report["cases"][0]["peers"][1].get("within_bound") is True,
                       f"cuts: nor another peer, {report['cases'][0]['peers'][1]}")


def check_closed_descriptors(failures, tool, peers):
    """As a shell closes them: what the tool opens must not get their numbers."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        for closed in ("<&-", "2>&-", "<&- 2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"):
            command = f'exec "$0" "$@" {closed}'
            result = run_tool(["sh", "-c", command, tool, "bench", PROBLEM, "--seconds", "0.02",
                               "--vs", "good", "--json-file", report], env=peers.environment)
            lost = ">&-" in closed.split()
            failures.check(result.returncode == (2 if lost else 0),
                           f"{closed}: status {result.returncode}, {result.stderr!r}")
            with open(report, encoding="utf-8") as file:
                peer = json.load(file)["cases"][0]["peers"][0]
            failures.check(peer.get("within_bound") is True, f"{closed}: {peer}")
            os.remove(report)


def check_no_leftovers(failures, folder):
    """Files of tensors, as the tool names them for a moment."""
    names = [name for place in ("/dev/shm", folder) if os.path.isdir(place)
             for name in os.listdir(place) if re.fullmatch(r"splitkv-\w{6}", name)]
    failures.check(names == [], f"no files are left: {names}")


def main():
    tool = tool_from_arguments()
    failures = Failures()
    with tempfile.TemporaryDirectory() as folder:
        peers = Peers(folder)
        check_good(failures, tool, peers)
        check_table(failures, tool, peers)
        check_geometric_mean(failures, tool, peers)
        check_rows(failures, tool, peers)
        check_broken(failures, tool, peers)
        check_unsupported(failures, tool, peers)
        check_usage(failures, tool, peers)
        check_cut(failures, tool, peers)
        check_closed_descriptors(failures, tool, peers)
        check_no_leftovers(failures, tempfile.gettempdir())
    return failures.finish(275)


if __name__ == "__main__":
    sys.exit(main())

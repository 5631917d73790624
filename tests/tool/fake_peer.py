"""A peer for tests of `splitkv bench --vs`: attention in plain Python, on f32, and on request one of
the things that a peer should not do. The name under which it is called says which.

SPDX-License-Identifier: Apache-2.0
"""
import json
import math
import mmap
import os
import struct
import subprocess
import sys
import time

BEHAVIOUR = os.path.basename(sys.argv[0])
ODD_ANSWERS = {"hexadecimal": "seconds 0x1p-20", "no-time-at-all": "seconds nan",
               "ends-early": "seconds 1e-9\0 or so"}


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Tensors:
    def __init__(self, case):
        self.case = case
        self.memory = mmap.mmap(case["fd"], case["file_bytes"])
        b = case["requests"]
        self.kv_lens = self.read("q", b, "kv_lens_offset")
        self.q_offsets = self.read("q", b + 1, "q_offsets_offset")
        self.offsets = self.read("q", b + 1, "table_offsets_offset")
        self.table = self.read("q", case["table_pages"], "table_offset")

    def read(self, kind, count, key, first=0):
        size = struct.calcsize(kind)
        return struct.unpack_from(f"<{count}{kind}", self.memory, self.case[key] + first * size)

    def row(self, key, channels, request, token, head):
        """Of K or V."""
        case = self.case
        page = self.table[self.offsets[request] + token // case["page_tokens"]]
        slot, heads = token % case["page_tokens"], case["heads_kv"]
        if case["layout"] == "nhd":
            row = (page * case["page_tokens"] + slot) * heads + head
        else:
            row = (page * heads + head) * case["page_tokens"] + slot
        return self.read("f", channels, key, row * channels)

    def attention(self, request, row, head):
        """Of one of all query rows."""
        case = self.case
        d, dv, n = case["head_dim"], case["head_dim_v"], self.kv_lens[request]
        if case["causal"]:
            n = max(0, n - (self.q_offsets[request + 1] - row - 1))
        kv_head = head // (case["heads_q"] // case["heads_kv"])
        q = self.read("f", d, "q_offset", (row * case["heads_q"] + head) * d)
        scores = [case["scale"] * math.fsum(a * b for a, b in zip(
            q, self.row("k_offset", d, request, t, kv_head))) for t in range(n)]
        top = max(scores, default=0)
        weights = [math.exp(score - top) for score in scores]
        rows = [self.row("v_offset", dv, request, t, kv_head) for t in range(n)]
        total = math.fsum(weights) or 1
        return [math.fsum(w * row[c] for w, row in zip(weights, rows)) / total for c in range(dv)]

    def write_out(self, factor):
        case, offset = self.case, self.case["out_offset"]
        for request in range(case["requests"]):
            for row in range(self.q_offsets[request], self.q_offsets[request + 1]):
                for head in range(case["heads_q"]):
                    values = [factor * value for value in self.attention(request, row, head)]
                    struct.pack_into(f"<{len(values)}f", self.memory, offset, *values)
                    offset += 4 * len(values)


def begin(case):
    if BEHAVIOUR == "unsupported":
        say(json.dumps({"unsupported": "nothing with a d in it"}))
    elif BEHAVIOUR == "missing":
        say(json.dumps({"missing": "not installed, run bench/peers/install missing"}))
    elif BEHAVIOUR == "dies-at-once":
        sys.exit("no such library")
    elif BEHAVIOUR == "nonsense":
        say("hello")
    elif BEHAVIOUR == "no-copies":
        say(json.dumps({"ready": True, "version": "1", "kv_dtype": "f32", "copies": 0}))
    elif BEHAVIOUR == "adds-to-json":
        say(json.dumps({"ready": True, "version": "1", "kv_dtype": "f32", "copies": 1}) + "\0more")
    elif BEHAVIOUR == "hangs-at-once":
        time.sleep(1000)
    else:
        kv_bytes = 4 * sum(Tensors(case).kv_lens) * case["heads_kv"] * (case["head_dim"]
                                                                       + case["head_dim_v"])
        say(json.dumps({"ready": True, "version": "1.2", "path": "plain Python",
                        "layout": case["layout"], "kv_dtype": case["wanted_kv"],
                        "copies": max(1, min(5, int(case["cold_bytes"]) // max(1, kv_bytes)))}))


def run(tensors, n_runs):
    if BEHAVIOUR == "dies" and n_runs == 3:
        sys.stderr.write("first line\nthe last words\n")
        os.abort()
    if BEHAVIOUR == "dies-with-child" and n_runs == 3:
        os._exit(7)
    if BEHAVIOUR == "hangs" and n_runs == 3:
        time.sleep(1000)
    if BEHAVIOUR == "starts-early" and n_runs == 3:
        return "seconds 1e-9\nsec"
    if BEHAVIOUR == "talks" and n_runs == 3:
        sys.stdout.write("x" * 100000)
        sys.stdout.flush()
        time.sleep(1000)
    if BEHAVIOUR == "complains" and n_runs == 3:
        return "error out of luck"
    if BEHAVIOUR == "slower-than-time":
        return "seconds 1000"
    if BEHAVIOUR == "no-time":
        return "seconds 0"
    if BEHAVIOUR == "no-number":
        return "seconds 1e-4 or so"
    if BEHAVIOUR in ODD_ANSWERS:
        return ODD_ANSWERS[BEHAVIOUR]
    start = time.perf_counter()
    end = start + 0.0005
    while time.perf_counter() < end:
        pass
    return f"seconds {time.perf_counter() - start:.9f}"


def main():
    line = sys.stdin.readline()
    case = json.loads(line)
    if BEHAVIOUR == "dies-with-child":
        subprocess.Popen(["sleep", "1000"])
    begin(case)
    tensors = Tensors(case)
    n_runs = 0
    copies = set()
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "run":
            copies.add(int(rest[0]))
            n_runs += 1
            answer = run(tensors, n_runs)
            say("\n".join([answer] * (3 if BEHAVIOUR == "repeats" else 1)))
        elif word == "out":
            if BEHAVIOUR == "cuts":
                try:
                    os.ftruncate(case["fd"], 0)
                except PermissionError:
                    pass  # the file is sealed; so much the better
                say("ok")
                continue
            if BEHAVIOUR != "silent":
                tensors.write_out({"wrong": 0.0, "inexact": 1.01}.get(BEHAVIOUR, 1.0))
            say("ok" if BEHAVIOUR != "no-out" else "here you are")
    if BEHAVIOUR == "stays":
        time.sleep(1000)


main()

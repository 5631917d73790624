"""`splitkv run` on bad input: the exit status, one line that names the cause, nothing touched.

SPDX-License-Identifier: Apache-2.0

Every case starts from a good set of files and options and spoils one thing. Needs no NumPy.
"""
import json
import os
import resource
import stat
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # the source folder stays as it is
from run_support import (Failures, npy_bytes, option, run_tool, safetensors_bytes,
                         tool_from_arguments)

B, HQ, HKV, D, PAGE, PAGES, WIDTH = 2, 4, 2, 8, 4, 5, 3
LENS = (9, 6)
TABLE = ((0, 1, 2), (3, 4, 0))
BEFORE = b"what was there before"


def floats(n):
    return struct.pack(f"<{n}f", *[(i * 37 % 19 - 9) / 8 for i in range(n)])


def ints(values, code="i"):
    return struct.pack(f"<{len(values)}{code}", *values)


def good_arrays():
    """{role: (descr, shape, bytes)}"""
    cache = [PAGES, PAGE, HKV, D]
    n = PAGES * PAGE * HKV * D
    return dict(q=("<f4", [B, HQ, D], floats(B * HQ * D)), k=("<f4", cache, floats(n)),
                v=("<f4", cache, floats(n)),
                table=("<i4", [B, WIDTH], ints([p for row in TABLE for p in row])),
                kv_lens=("<i4", [B], ints(LENS)))


class Bench:
    """A folder with good files, output files that exist, and the tool."""

    def __init__(self, tool, folder, failures):
        self.tool, self.folder, self.failures = tool, folder, failures
        self.files = {role: npy_bytes(*array) for role, array in good_arrays().items()}
        self.out, self.lse = self.path("out.npy"), self.path("lse.npy")

    def path(self, name):
        return os.path.join(self.folder, name)

    def arguments(self, files, drop=()):
        arguments = []
        for role, content in files.items():
            path = self.path(role + ".npy")
            with open(path, "wb") as file:
                file.write(content)
            if role not in drop:
                arguments += [option(role), path]
        for place, path in (("--out", self.out), ("--lse", self.lse)):
            if place[2:] not in drop:
                arguments += [place, path]
        return arguments

    def run(self, arguments, **keywords):
        for path in (self.out, self.lse):
            with open(path, "wb") as file:
                file.write(BEFORE)
        listed = set(os.listdir(self.folder))
        result = run_tool([self.tool, "run"] + list(arguments), **keywords)
        return result, set(os.listdir(self.folder)) - listed

    def refused(self, what, arguments, *words, status=2, **keywords):
        """The tool refuses; its one line on stderr holds all of `words`."""
        result, left = self.run(arguments, **keywords)
        line = result.stderr.decode(errors="replace")
        ok = result.returncode == status and line.count("\n") == 1 and line.endswith("\n") and \
            line.startswith("splitkv: ") and not result.stdout and not left and \
            all(word in line for word in words)
        for path in (self.out, self.lse):
            with open(path, "rb") as file:
                ok = ok and file.read() == BEFORE
        self.failures.check(ok, f"{what}: exit {result.returncode} (expected {status}), stderr "
                            f"{line!r} (expected {words}), new files {sorted(left)}")

    def accepted(self, what, arguments, **keywords):
        result, left = self.run(arguments, **keywords)
        self.failures.check(result.returncode == 0 and not result.stderr and not left,
                            f"{what}: exit {result.returncode}, {result.stderr.decode()!r}, "
                            f"new files {sorted(left)}")
        return result

    def spoiled(self, what, role, content, *words, extra=(), more=None, **keywords):
        """One file replaced by other bytes (or by other (descr, shape, bytes))."""
        if isinstance(content, tuple):
            content = npy_bytes(*content)
        files = {**self.files, **(more or {}), role: content}
        words = words + (option(role), role + ".npy")
        self.refused(what, self.arguments(files) + list(extra), *words, **keywords)


# ── the .npy format ──────────────────────────────────────────────────────────────────────────────


def npy_with(bench, role, before, after):
    """The role's file with its header changed, the header's length corrected."""
    content = bench.files[role]
    n_header = struct.unpack("<H", content[8:10])[0]
    header = content[10:10 + n_header]
    assert header.count(before) == 1, (header, before)
    header = header.replace(before, after)
    return content[:8] + struct.pack("<H", len(header)) + header + content[10 + n_header:]


def check_npy_truncated(bench):
    content = bench.files["q"]
    n_header = struct.unpack("<H", content[8:10])[0] + 10
    for size in range(0, n_header + 8):
        bench.spoiled(f"q.npy cut to {size} bytes", "q", content[:size])
    for size in (n_header, n_header + 1, len(content) - 1):
        bench.spoiled(f"q.npy cut to {size} bytes", "q", content[:size], "cut short",
                      str(size - n_header), str(len(content) - n_header))
    for role in ("k", "v", "table", "kv_lens"):
        bench.spoiled(f"{role} short by a byte", role, bench.files[role][:-1], "cut short")
    bench.spoiled("q.npy too long", "q", content + b"x", "too long")


def check_npy_headers(bench):
    descr, shape = b"'descr': '<f4'", b"(2, 4, 8)"
    order = b"'fortran_order': False"
    cases = [
        (descr, b"'descr': '>f4'", "big-endian", ">f4"), (descr, b"'descr': '<f8'", "<f8"),
        (descr, b"'descr': '|O'", "|O"), (descr, b"'descr': [('a', '<f4')]", "structured"),
        (descr, b"'descr': 4", "descr"), (descr, b"'Descr': '<f4'", "Descr"),
        (descr, b"'descr': '<f4', 'descr': '<f4'", "twice"), (descr + b", ", b"", "no descr"),
        (order, b"'fortran_order': True", "Fortran"), (order, b"'fortran_order': 0", "True or"),
        (order + b", ", b"", "no fortran_order"), (shape, b"(2, -4, 8)", "-4"),
        (shape, b"(2, 4, 8.0)", "8.0"), (shape, b"[2, 4, 8]", "shape"), (shape, b"64", "shape"),
        (shape, b"(64)", "tuple"), (shape, b"(2, 4, 8", "header"), (shape, b"(2, 4, 9)", "cut short"),
        (shape, b"(2, 4, 7)", "too long"), (shape, b"(2, 4, 99999999999999999999)", "999"),
        (shape, b"(4611686018427387904, 4611686018427387904, 4)", "4611686018427387904"),
        (shape, b"(0, 4611686018427387904, 4611686018427387904)", "4611686018427387904"),
        (shape, b"(1, 1, 1, 1, 1, 1, 1, 1, 64)", "dimensions"), (shape, b"(2, x, 8)", "x"),
        (shape, b"(2 4, 8)", "header"), (b"}", b"} {}", "follows"), (b"}", b"}" + b"\0", "follows"),
        (b"{", b"[", "header"), (b"'shape'", b"'sh\\x61pe'", "string"), (b"}", b"'\n\x1b': 1}", "?"),
    ]
    for before, after, *words in cases:
        bench.spoiled(f"header with {after!r}", "q", npy_with(bench, "q", before, after), *words)
    content = bench.files["q"]
    for version in (b"\x00\x00", b"\x04\x00", b"\x01\x01"):
        bench.spoiled(f"version {version!r}", "q", content[:6] + version + content[8:], "version")
    for length in (65535, 1):
        bench.spoiled(f"header length {length}", "q",
                      content[:8] + struct.pack("<H", length) + content[10:], "header")
    bench.spoiled("header length 2^32-1", "q",
                  content[:6] + b"\x02\x00\xff\xff\xff\xff" + content[10:], "4294967295")
    bench.spoiled("a zip file", "q", b"PK\x03\x04" + content, "not a .npy file")
    for before, after in ((shape, b"(2L, 4L, 8L)"), (shape, b"( 2,4 ,8, )"), (b"{", b" {"),
                          (descr + b", " + order, order + b",\n" + descr)):
        changed = npy_with(bench, "q", before, after)
        bench.accepted(f"header with {after!r}", bench.arguments({**bench.files, "q": changed}))


# ── tensors that do not fit each other ───────────────────────────────────────────────────────────


def resized(array, dim, size):
    """The array with one dimension of another size, its bytes to match."""
    descr, shape, data = array
    new_shape = list(shape)
    new_shape[dim] = size
    n = 1
    for extent in new_shape:
        n *= extent
    n_bytes = n * int(descr[2])
    return descr, new_shape, (data * (n_bytes // max(1, len(data)) + 1))[:n_bytes]


def check_shapes(bench):
    arrays = good_arrays()
    for role, dim, size, *words in (
            ("q", 0, B + 1, "requests"), ("q", 2, D + 1, "channels"), ("k", 3, D - 1, "channels"),
            ("k", 0, PAGES + 1, "pages"), ("k", 1, PAGE + 1, "tokens"), ("k", 2, HKV + 1, "KV heads"),
            ("v", 0, PAGES - 1, "pages"), ("v", 1, PAGE - 1, "tokens"), ("v", 2, 1, "KV heads"),
            ("table", 0, B - 1, "requests"), ("kv_lens", 0, B + 1, "requests")):
        files = {**bench.files, role: npy_bytes(*resized(arrays[role], dim, size))}
        bench.refused(f"{role} with {size} in dimension {dim}", bench.arguments(files), *words,
                      str(size))
    for role, (descr, shape, data) in arrays.items():
        if role in ("q", "k", "v"):
            flat = [shape[0] * shape[1]] + shape[2:]
            bench.spoiled(f"{role} with a dimension less", role, (descr, flat, data), "shape")
        bench.spoiled(f"{role} with a dimension more", role, (descr, [1] + shape, data), "shape")
        bench.spoiled(f"{role} without dimensions", role, (descr, [], data[:4]), "shape []")
    bench.spoiled("a CSR table without offsets", "table",
                  ("<i4", [B * WIDTH], arrays["table"][2]), "--offsets")
    descr, shape, data = arrays["v"]
    bench.spoiled("v of another dtype than k", "v", ("<f2", shape, data[:len(data) // 2]), "float16",
                  "float32", "--k")
    wrong_type = {"q": "<i4", "k": "<i4", "v": "<i4", "table": "<f4", "kv_lens": "<f4"}
    for role, descr in wrong_type.items():
        bench.spoiled(f"{role} as {descr}", role, (descr,) + arrays[role][1:],
                      {"<i4": "int32", "<f4": "float32"}[descr])
    descr, shape, data = arrays["q"]
    bench.spoiled("uint16 without --bf16", "q", ("<u2", shape, data[:len(data) // 2]), "--bf16")
    # dv other than d: the factor has to be said
    wide = resized(arrays["v"], 3, D + 3)
    files = {**bench.files, "v": npy_bytes(*wide)}
    bench.refused("d != dv without --scale", bench.arguments(files), "--scale", str(D), str(D + 3))
    bench.accepted("d != dv with --scale", bench.arguments(files) + ["--scale", "0.3"])
    # heads
    bench.spoiled("hq not a multiple of hkv", "q", resized(arrays["q"], 1, 5), "5", "2")
    bench.spoiled("no query heads", "q", resized(arrays["q"], 1, 0), "0")
    for role, dim, name in (("q", 2, "d"), ("k", 1, "page size"), ("k", 2, "KV heads")):
        files = {r: npy_bytes(*resized(arrays[r], dim, 0)) for r in
                 (("q", "k", "v") if role == "q" else ("k", "v"))}
        if role == "q":
            files["k"], files["v"] = (npy_bytes(*resized(arrays[r], 3, 0)) for r in "kv")
        bench.refused(f"{name} 0", bench.arguments({**bench.files, **files}), option(role), "0")
    for role in ("q", "k", "v"):
        files = {r: npy_bytes(*resized(arrays[r], 2 if r == "q" else 3, 577)) for r in "qkv"}
        bench.refused("577 channels", bench.arguments({**bench.files, **files}), "--q", "577")


def check_values(bench):
    arrays = good_arrays()
    for code, descr in (("i", "<i4"), ("q", "<i8")):
        for request, page, value in ((0, 0, -1), (0, 2, PAGES), (1, 1, PAGES), (1, 0, -2**31)):
            table = [list(row) for row in TABLE]
            table[request][page] = value
            flat = ints([p for row in table for p in row], code)
            bench.spoiled(f"page id {value}", "table", (descr, [B, WIDTH], flat), str(value))
        unused = ints([0, 1, 2, 3, 4, -1], code)  # beyond kv_len: never looked at
        files = {**bench.files, "table": npy_bytes(descr, [B, WIDTH], unused)}
        bench.accepted("page id -1 in an unused entry", bench.arguments(files))
        for lens in ((-1, 6), (9, -2**31)):
            bench.spoiled(f"lengths {lens}", "kv_lens", (descr, [B], ints(lens, code)),
                          str(min(lens)))
        for lens in ((13, 6), (9, 2**31 - 1)):
            bench.spoiled(f"lengths {lens}", "kv_lens", (descr, [B], ints(lens, code)),
                          str(max(lens)))
        bench.accepted("lengths to the end of the table", bench.arguments(
            {**bench.files, "kv_lens": npy_bytes(descr, [B], ints((12, 12), code))}))
    for value in (2**40, 2**63 - 1, -2**63):
        flat = ints([value] + [p for row in TABLE for p in row][1:], "q")
        bench.spoiled(f"page id {value}", "table", ("<i8", [B, WIDTH], flat), str(value))
        bench.spoiled(f"length {value}", "kv_lens", ("<i8", [B], ints([value, 6], "q")), str(value))


def check_offsets(bench):
    flat = [p for row in TABLE for p in row]
    table = {"table": npy_bytes("<i4", [len(flat)], ints(flat))}

    def arguments(offsets, descr="<i4", code="i"):
        offsets = npy_bytes(descr, [len(offsets)], ints(offsets, code))
        return bench.arguments({**bench.files, **table, "offsets": offsets})

    bench.accepted("CSR", arguments([0, 3, 6]))
    bench.accepted("CSR with int64 offsets", arguments([0, 3, 6], "<i8", "q"))
    for offsets, *words in (([0, 3],  "2", "3"), ([0, 3, 6, 6], "4", "3"), ([0, 3, 2], "--offsets"),
                            ([0, 3, 7], "--offsets", "7"), ([-1, 3, 6], "--offsets", "-1"),
                            ([0, 2, 6], "--offsets"), ([0, 5, 6], "--offsets")):
        bench.refused(f"offsets {offsets}", arguments(offsets), *words)
    bench.refused("an offset beyond int32", arguments([0, 3, 2**31], "<i8", "q"), "2147483648")
    bench.refused("a dense table with offsets",
                  bench.arguments({**bench.files, "offsets": npy_bytes("<i4", [3], ints([0, 3, 6]))}),
                  "--table", "shape")
    bench.refused("float offsets", bench.arguments(
        {**bench.files, **table, "offsets": npy_bytes("<f4", [3], floats(3))}), "--offsets",
        "float32")


# ── safetensors ──────────────────────────────────────────────────────────────────────────────────

DTYPES = {"<f4": "F32", "<i4": "I32"}


def check_variants(bench):
    heads = ("<f4", [HQ], floats(HQ))
    for role in ("sinks", "alibi"):
        bench.accepted(role, bench.arguments({**bench.files, role: npy_bytes(*heads)}))
        bench.spoiled(f"{role} of one head too few", role, ("<f4", [HQ - 1], floats(HQ - 1)), "query heads",
                      str(HQ), str(HQ - 1))
        bench.spoiled(f"{role} with two dimensions", role, ("<f4", [1, HQ], floats(HQ)), "[1, 4]",
                      "[query heads]")
        bench.spoiled(f"{role} of int32", role, ("<i4", [HQ], ints(range(HQ))), "int32", "float32")
    good = bench.arguments(bench.files)
    for option_text, value in (("--window", "-1"), ("--window", "x"), ("--window", "1.5"), ("--softcap", "-1"),
                               ("--softcap", "inf"), ("--softcap", "nan"), ("--softcap", "1e39"),
                               ("--softcap", "1e-45"), ("--softcap", "3e38")):
        bench.refused(f"{option_text} {value}", good + [option_text, value], f"{option_text} {value}")
    bench.accepted("a window and a cap", good + ["--window", "4", "--softcap", "30"])


def check_rows(bench):
    """Query rows and masks."""
    rows = 5
    q = {"q": npy_bytes("<f4", [rows, HQ, D], floats(rows * HQ * D))}

    def arguments(offsets, descr="<i4", code="i", more=None, shape=None):
        offsets = npy_bytes(descr, shape or [len(offsets)], ints(offsets, code))
        return bench.arguments({**bench.files, **q, "q_offsets": offsets, **(more or {})})

    for descr, code in (("<i4", "i"), ("<i8", "q")):
        bench.accepted("query rows", arguments([0, 2, 5], descr, code))
        bench.accepted("no row of a request", arguments([0, 0, 5], descr, code) + ["--causal"])
        for offsets, *words in (([0, 5], "2", "3"), ([0, 2, 3, 5], "4", "3"), ([0, 2, 4], "4", "5 rows"),
                                ([0, 2, 6], "6", "5 rows"), ([0, 2, -1], "-1"), ([1, 2, 5], "1"),
                                ([0, 6, 5], "5", "6"), ([-1, 2, 5], "-1")):
            bench.refused(f"q_offsets {offsets}", arguments(offsets, descr, code), "--q-offsets", *words)
    bench.refused("q_offsets with two dimensions", arguments([0, 2, 5], shape=[1, 3]), "--q-offsets", "[1, 3]")
    bench.spoiled("float q_offsets", "q_offsets", ("<f4", [3], floats(3)), "float32", "int32", more=q)
    bench.refused("rows without q_offsets", bench.arguments({**bench.files, **q}), "requests", "5")
    good = arguments([0, 2, 5])
    for extra, *words in ((["--window-right", "-1"], "--window-right -1"), (["--window-right", "x"], "--window-right x"),
                          (["--chunk", "-1"], "--chunk -1"), (["--chunk", ""], "--chunk"),
                          (["--causal=1"], "--causal: takes no value"), (["--cuasal"], "--cuasal", "--causal"),
                          (["--causal", "--window-right", "2"], "--window-right 2"),
                          (["--windw-right", "2"], "--window-right")):
        bench.refused(f"options {extra}", good + extra, *words)
    bench.accepted("all masks", good + ["--causal", "--window", "3", "--chunk", "4"])
    for descr, data in (("|b1", bytes([1, 0, 1] * rows)), ("|i1", bytes([255, 0, 7] * rows)), ("|u1", bytes(3 * rows))):
        mask = {"tree_mask": npy_bytes(descr, [rows, 3], data)}
        bench.accepted(f"a tree mask of {descr}", arguments([0, 2, 5], more=mask))
    for what, mask, *words in (("of a row too few", ("|b1", [rows - 1, 3], bytes(3 * rows - 3)), "rows", "4", "5"),
                               ("of no token", ("|b1", [rows, 0], b""), "no token"),
                               ("with one dimension", ("|b1", [rows], bytes(rows)), "[5]", "[rows, tokens]"),
                               ("of int32", ("<i4", [rows, 1], ints(range(rows))), "int32", "bool"),
                               ("of float32", ("<f4", [rows, 1], floats(rows)), "float32", "bool")):
        more = {"tree_mask": npy_bytes(*mask)}
        bench.refused(f"a tree mask {what}", arguments([0, 2, 5], more=more), "--tree-mask", *words)


def check_codes(bench):
    """Quantised caches."""
    n, cache = PAGES * PAGE * HKV * D, [PAGES, PAGE, HKV, D]

    def kv(descr="|i1", shape=None, data=None):
        array = npy_bytes(descr, shape or cache, data if data is not None else bytes(i * 7 % 120 for i in range(n)))
        return {"k": array, "v": array}

    def arguments(codes, more=None, drop=()):
        return bench.arguments({**bench.files, **codes, **(more or {})}, drop=drop)

    int8, uint8 = kv(), kv("|u1")
    half = kv("|u1", cache[:3] + [D // 2], bytes(n // 2))
    bench.accepted("int8 as it is", arguments(int8))
    bench.accepted("int8, and said so", arguments(int8) + ["--kv-dtype", "int8"])
    for dtype in ("fp8_e4m3", "fp8_e5m2"):
        bench.accepted(dtype, arguments(uint8) + ["--kv-dtype", dtype])
    bench.accepted("ml_dtypes' FP8", arguments(kv("|V1")) + ["--kv-dtype", "fp8_e4m3"])
    bench.accepted("int4", arguments(half) + ["--kv-dtype", "int4"])
    bench.refused("uint8 and nothing said", arguments(uint8), "--k ", "uint8", "--kv-dtype")
    for dtype in ("int8", "f16"):
        bench.refused(f"uint8 said to be {dtype}", arguments(uint8) + ["--kv-dtype", dtype], f"--kv-dtype {dtype}",
                      "uint8")
    bench.refused("int8 said to be FP8", arguments(int8) + ["--kv-dtype", "fp8_e4m3"], "fp8_e4m3", "int8")
    bench.refused("float32 said to be int8", bench.arguments(bench.files) + ["--kv-dtype", "int8"], "int8", "float32")
    bench.refused("no such dtype", arguments(uint8) + ["--kv-dtype", "fp8"], "--kv-dtype fp8", "fp8_e4m3")
    bench.refused("int4 of all channels", arguments(uint8) + ["--kv-dtype", "int4"], "channels", str(2 * D), str(D))
    bench.refused("bool", arguments(kv("|b1")), "bool", "codes")
    bench.refused("int8 beside float32", arguments({"k": int8["k"]}), "float32", "int8")
    bench.refused("Q of int8", bench.arguments({**bench.files, "q": npy_bytes("|i1", [B, HQ, D], bytes(B * HQ * D))}),
                  "--q ", "int8", "float32")
    modes = (([], 1), ([1], 1), ([HKV], HKV), ([HKV, D], HKV * D), (cache[:3], n // D), (cache[:3] + [1], n // D))
    for shape, count in modes:
        for role in ("k_scales", "v_scales"):
            more = {role: npy_bytes("<f4", shape, floats(count)), role[0] + "_zeros": npy_bytes("|i1", shape, bytes(count))}
            bench.accepted(f"{role} {shape}", arguments(int8, {role: more[role]}))
            bench.accepted(f"{role} {shape} and zero points", arguments(int8, more))
    scales = {"k_scales": npy_bytes("<f4", [HKV], floats(HKV)), "v_scales": npy_bytes("<f2", [1], b"\0\x3c")}
    bench.accepted("scales of two types", arguments(int8, scales))
    for shape in ([0], [HKV + 1], [D], [D, HKV], [1, 1], [PAGES, PAGE, HKV, 2], [PAGES, HKV, PAGE], [PAGES, PAGE],
                  [PAGES, PAGE, HKV, 1, 1], [PAGES + 1, PAGE, HKV]):
        count = 1
        for extent in shape:
            count *= extent
        more = {"k_scales": npy_bytes("<f4", shape, floats(count))}
        bench.refused(f"k_scales {shape}", arguments(int8, more), "--k-scales", str(shape), f"[{HKV}, {D}]")
    for descr, word in (("<i4", "int32"), ("|i1", "int8")):
        more = {"v_scales": npy_bytes(descr, [1], bytes(int(descr[2])))}
        bench.refused(f"scales of {word}", arguments(int8, more), "--v-scales", word, "float32")
    bench.refused("scales of float32 KV", arguments({}, scales), "--k-scales", "scales")
    zeros = {"k_zeros": npy_bytes("|i1", [HKV], bytes(HKV))}
    bench.refused("zero points without scales", arguments(int8, zeros), "--k-zeros", "--k-scales")
    bench.refused("zero points of K alone", arguments(int8, {**scales, **zeros}), "--v-zeros", "K")
    bench.refused("zero points of another shape", arguments(int8, {"k_scales": scales["v_scales"], **zeros}),
                  "--k-zeros", f"[{HKV}]", "[1]")
    bench.refused("zero points of uint8", arguments(int8, {**scales, "k_zeros": npy_bytes("|u1", [HKV], bytes(HKV))}),
                  "--k-zeros", "uint8", "int8")
    bench.refused("zero points of FP8", arguments(uint8, {"k_scales": scales["k_scales"], **zeros}) +
                  ["--kv-dtype", "fp8_e4m3"], "--k-zeros")
    bench.accepted("V in K", arguments(int8, drop=("v",)) + ["--mla", str(D)])
    bench.refused("V in K, whose codes have scales",
                  arguments(int8, {"k_scales": scales["k_scales"]}, drop=("v",)) + ["--mla", str(D)], "--v-scales",
                  "--mla")
    bench.refused("V in K without a scale", arguments(int8, drop=("v",)) + ["--mla", str(D - 2)], "--scale")
    bench.refused("V in K, and V", arguments(int8) + ["--mla", str(D)], "--v:", "--mla")
    for value, *words in (("0", "1 .. 576"), (str(D + 1), str(D)), ("577", "576"), ("x", "whole number")):
        bench.refused(f"--mla {value}", arguments(int8, drop=("v",)) + ["--scale", "1", "--mla", value],
                      f"--mla {value}", *words)


def tensors():
    return {role: (DTYPES[descr], shape, data)
            for role, (descr, shape, data) in good_arrays().items()}


def check_safetensors(bench):
    path = bench.path("all.safetensors")
    outputs = ["--out", bench.out, "--lse", bench.lse]
    good = safetensors_bytes(tensors(), {"format": "pt"})
    n_header = struct.unpack("<Q", good[:8])[0]
    header, data = json.loads(good[8:8 + n_header]), good[8 + n_header:]

    def put(content):
        with open(path, "wb") as file:
            file.write(content)
        return ["--tensors", path] + outputs

    def with_text(text, content=data):
        text = text if isinstance(text, bytes) else text.encode()
        return struct.pack("<Q", len(text)) + text + content

    def refused(what, content, *words):
        bench.refused(what, put(content), "--tensors", "all.safetensors", *words)

    def changed(name, key, value, *words):
        new = {**header, name: {**header[name], key: value}}
        refused(f"{name}.{key} = {value}", with_text(json.dumps(new)), name, *words)

    bench.accepted("good safetensors", put(good))
    for size in list(range(0, 24)) + [8 + n_header - 1, 8 + n_header, len(good) - 1]:
        refused(f"safetensors cut to {size} bytes", good[:size])
    refused("a byte more", good + b"x", str(len(data)), str(len(data) + 1))
    for n in (2**64 - 1, 2**63, 10**8 + 1):
        refused(f"header length {n}", struct.pack("<Q", n) + good[8:], str(n))
    refused("header length beyond the file", struct.pack("<Q", len(good) - 7) + good[8:],
            str(len(good) - 7))
    refused("header length short", struct.pack("<Q", n_header - 1) + good[8:], "JSON")
    for text, *words in (("[]", "{"), ("{", "JSON"), ("", "{"), ('{"q": }', "JSON"), ("{} x", "follows"),
                         (b"\xef\xbb\xbf{}", "{"), ('{"q":' + "[" * 5000 + "]" * 5000 + "}", "JSON"),
                         ('{"q": 3}', "q", "object"), ('{"q\n\x1b": 3}', "?"),
                         ('{"__metadata__": 3}', "__metadata__"),
                         ('{"__metadata__": {"a": 3}}', "__metadata__", "a")):
        refused(f"header {text[:40]!r}", with_text(text), *words)
    text = json.dumps(header)
    refused("a zero byte", with_text(text.replace('"q"', '"q\0"')), "zero")
    refused("an escaped zero", with_text(text.replace('"q"', '"q\\u0000"')), "zero")
    refused("a tensor twice", with_text(text[:-1] + ', "q": ' + json.dumps(header["k"]) + "}"),
            "'q'", "twice")
    refused("a field twice", with_text(text.replace('"q": {', '"q": {"dtype": "I32", ')), "'q'",
            "twice")
    begin, end = header["k"]["data_offsets"]
    changed("k", "data_offsets", [end, begin], str(begin), str(end))
    changed("k", "data_offsets", [begin, len(data) + 4], str(len(data) + 4))
    changed("k", "data_offsets", [begin - 4, end - 4], "inside", str(begin - 4))
    changed("k", "data_offsets", [begin + 4, end], str(begin))
    for value in (-4, 0.5, 2**53, 2**53 + 1, 1e300):
        changed("k", "data_offsets", [begin, value], f"{float(value):.17g}")
        changed("k", "shape", [value], f"{float(value):.17g}")
    for value in ([begin], [begin, end, end], "0, 8", None, [str(begin), end], {}):
        changed("k", "data_offsets", value, "data_offsets")
    for value in ("8", None, ["8"], {}):
        changed("k", "shape", value)
    for value in (3, None, ["F32"]):
        changed("k", "dtype", value, "dtype")
    changed("k", "shape", [PAGES, PAGE, HKV, D - 1], str(end - begin))
    changed("k", "shape", [2**40, 2**40], str(2**40))
    changed("k", "shape", [0, 2**40, 2**40], str(2**40))
    changed("k", "shape", [1] * 9, "dimensions")
    changed("k", "dtype", "F64", "F64")
    changed("k", "dtype", "f32", "f32")
    changed("k", "dtype", "F16", "float16")
    changed("table", "dtype", "F32", "float32")
    changed("q", "dtype", "I32", "int32")
    changed("k", "dtype", "F8_E4M3FNUZ", "F8_E4M3FNUZ")
    changed("k", "dtype", "I8", "int8", str(end - begin))
    changed("k", "dtype", "BOOL", "bool", str(end - begin))
    for name in tensors():
        rest = {n: t for n, t in tensors().items() if n != name}
        refused(f"no tensor {name}", safetensors_bytes(rest), f"'{name}'")
        for key in ("dtype", "shape", "data_offsets"):
            new = {**header, name: {k: v for k, v in header[name].items() if k != key}}
            refused(f"{name} without {key}", with_text(json.dumps(new)), f"'{name}'", key)
    bench.refused("a name that is not there", put(good) + ["--name-q", "nobody"], "'nobody'")
    bench.refused("no such file", ["--tensors", bench.path("none")] + outputs, "--tensors", "none")
    bench.accepted("a .npy file before the tensor", bench.arguments({"q": bench.files["q"]}) +
                   ["--tensors", put(good)[1]])


# ── options and files ────────────────────────────────────────────────────────────────────────────


def check_options(bench):
    arguments = bench.arguments(bench.files)
    for role in bench.files:
        bench.refused(f"no {role}", bench.arguments(bench.files, drop=(role,)), option(role))
    bench.refused("no --out", bench.arguments(bench.files, drop=("out",)), "--out")
    bench.refused("no options", [], "--out")
    for extra, *words in (
            (["--json=1"], "--json: takes no value"), (["--bf16=yes"], "--bf16: takes no value"),
            (["--scal", "1"], "--scal", "--scale"), (["stray"], "stray"), (["--scale"], "--scale"),
            (["--scale", "1", "--scale", "1"], "--scale", "twice"), (["--scale", "x"], "--scale x"),
            (["--scale", "nan"], "nan"), (["--scale", "inf"], "inf"), (["--scale", "0"], "--scale 0"),
            (["--scale", "1e99"], "1e99"), (["--scale", ""], "--scale"), (["--scale", "1 2"], "1 2"),
            (["--layout", "nhdx"], "--layout nhdx"), (["--split", "size"], "--split size"),
            (["--split", "size:0"], "size:0"), (["--split", "size:-1"], "size:-1"),
            (["--split", "count:x"], "count:x"), (["--split", "auto threads=9"], "--split"),
            (["--split", "size:99999999999999999999"], "size:9"), (["--threads", "0"], "--threads 0"),
            (["--threads", "65536"], "65536"), (["--threads", "two"], "two"),
            (["--isa", "sse9"], "--isa sse9"), (["--out-dtype", "f64"], "--out-dtype f64"),
            (["--isa", "x" * 5000], "--isa"), (["--name-q", "x"], "--name-q"),
            (["--name-x", "x"], "--name-x"), (["--q\nx"], "--q?x"), (["--scale="], "--scale")):
        bench.refused(f"options {extra}"[:100], arguments + extra, *words)
    bench.accepted("--name=value", arguments + ["--scale=0.5", "--split=size:2", "--threads=2"])
    result = run_tool([bench.tool, "run", "--help"])
    told = result.stdout.decode()
    for name in ("--q", "--k", "--v", "--table", "--kv-lens", "--offsets", "--tensors", "--name-q",
                 "--bf16", "--out", "--lse", "--out-dtype", "--scale", "--layout", "--split",
                 "--threads", "--isa", "--arithmetic", "--json", "--causal", "--window-right", "--chunk",
                 "--q-offsets", "--tree-mask", "--k-scales", "--v-scales", "--k-zeros", "--v-zeros", "--kv-dtype",
                 "--mla"):
        bench.failures.check(result.returncode == 0 and f"{name} " in told,
                             f"run --help does not tell of {name}")
    # One that no CPU has beside the others: of another architecture.
    other = "avx2" if os.uname().machine.startswith(("aarch64", "arm")) else "neon"
    bench.refused(f"--isa {other}", arguments + ["--isa", other], "--isa " + other, status=3)


def check_files(bench):
    for role in bench.files:
        for name, word in (("missing.npy", "No such file"), ("", "No such file"),
                           (bench.folder, "directory"), ("missing\n/\x1b.npy", "?")):
            arguments = bench.arguments(bench.files, drop=(role,)) + [option(role), name]
            bench.refused(f"{role} is {name!r}", arguments, option(role), word)
    arguments = bench.arguments(bench.files, drop=("out", "lse"))
    for name, word in ((bench.path("none/out.npy"), "No such file"), (bench.folder, "directory"),
                       ("", "empty"), (bench.path("q.npy"), "--q"), (bench.path("q.npy/x"), "Not a")):
        bench.refused(f"out is {name!r}", arguments + ["--out", name], "--out", word)
        bench.refused(f"lse is {name!r}", arguments + ["--out", bench.out, "--lse", name], "--lse",
                      word)
    bench.refused("one file for out and lse", arguments + ["--out", bench.out, "--lse", bench.out],
                  "--lse", "--out")
    fresh = bench.path("fresh.npy")
    os.symlink(fresh + ".dir", bench.path("link"))
    os.mkdir(fresh + ".dir")
    both = ["--out", bench.path("link/a.npy"), "--lse", fresh + ".dir/../fresh.npy.dir/a.npy"]
    bench.refused("one new file under two names", arguments + both, "--lse", "--out")
    bench.failures.check(os.listdir(fresh + ".dir") == [], "files are left behind")
    os.rmdir(fresh + ".dir")
    os.unlink(bench.path("link"))
    bench.refused("the disk is full", arguments + ["--out", "/dev/full"], "--out", "No space")
    if os.geteuid() != 0:  # root may write anywhere
        os.chmod(bench.out, 0o444)
        bench.refused("a protected file", arguments + ["--out", bench.out], "--out", "denied")
        os.chmod(bench.out, 0o644)


def check_placement(bench):
    """What is replaced, and how."""
    check = bench.failures.check
    arguments = bench.arguments(bench.files, drop=("out", "lse"))
    bench.accepted("out to a device", arguments + ["--out", "/dev/null"])
    check(stat.S_ISCHR(os.stat("/dev/null").st_mode), "/dev/null is a device no more")
    target, link = bench.path("target.npy"), bench.path("link.npy")
    with open(target, "wb") as file:
        file.write(BEFORE)
    os.chmod(target, 0o640)
    os.symlink("target.npy", link)
    before = os.umask(0o027)
    bench.accepted("out through a link", arguments + ["--out", link])
    new = bench.path("new.npy")
    result = run_tool([bench.tool, "run"] + arguments + ["--out", new])
    os.umask(before)
    check(result.returncode == 0 and stat.S_IMODE(os.stat(new).st_mode) == 0o640,
          "a new file does not have the permissions of the umask")
    check(os.path.islink(link), "the link was replaced")
    with open(target, "rb") as file:
        check(file.read(6) == b"\x93NUMPY", "the target of the link was not written")
    check(stat.S_IMODE(os.stat(target).st_mode) == 0o640, "the permissions changed")
    # Input from a pipe, which cannot be mapped.
    with open(bench.path("q.npy"), "rb") as file:
        result = run_tool([bench.tool, "run"] + bench.arguments(bench.files, drop=("q",)) +
                          ["--q", "/dev/stdin"], input=file.read())
    check(result.returncode == 0, f"q from a pipe: {result.stderr.decode()}")
    check_same_bits(bench, arguments)


def check_json(bench):
    """The manual page has every key of the JSON object."""
    arguments = bench.arguments(bench.files)
    result = bench.accepted("--json", arguments + ["--json"])
    report = json.loads(result.stdout)
    page = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs",
                        "splitkv.1.md")
    with open(page, encoding="utf-8") as file:
        row = [line for line in file if line.startswith("| `run` | ")][0]
    told = {word for i, word in enumerate(row.split("`")) if i % 2 == 1} - {"run"}
    keys = set(report) - {"command", "version", "cpu", "compiler", "compile_flags", "commit"}
    bench.failures.check(keys == told, f"the manual page's keys of run: {sorted(keys ^ told)}")
    bench.failures.check(report["shape"] == [B, HQ, D] and report["dtype_q"] == "f32" and
                         report["lse"] == bench.lse and report["time_ms"] >= 0,
                         f"the JSON of run: {report}")


def check_names(bench):
    """File names are bytes; what is not UTF-8 in them must not make the JSON something else."""
    arguments = bench.arguments(bench.files, drop=("out", "lse"))
    for name, shown in ((b"a\xff.npy", "a\ufffd.npy"), (b"\xc3\xa4\xf0\x9f\x98\x80.npy", "\u00e4\U0001f600.npy"),
                        (b"\xc0\x80.npy", "\ufffd\ufffd.npy"), (b"\xed\xa0\x80.npy", "\ufffd" * 3 + ".npy"),
                        (b"\xe2\x82.npy", "\ufffd" * 2 + ".npy"), (b"\xf4\x90\x80\x80", "\ufffd" * 4),
                        (b"x\xc3", "x\ufffd"), (b"\xe2\x82\xac\"", "\u20ac\"")):
        path = os.path.join(bench.folder.encode(), name)
        result = subprocess.run([os.fsencode(a) for a in [bench.tool, "run"] + arguments] +
                                [b"--json", b"--out", path], stdout=subprocess.PIPE)
        try:
            report = json.loads(result.stdout.decode("utf-8"))
        except ValueError as error:
            report = {"out": f"{error}"}
        bench.failures.check(result.returncode == 0 and report["out"] == bench.path(shown),
                             f"a file named {name!r} in JSON: {report['out']!a}")
        bench.failures.check(os.path.exists(path), f"a file named {name!r} is not there")
        os.unlink(path)


def check_same_bits(bench, arguments):
    """The same tensors from .npy and safetensors, mapped or from a pipe: the same bits."""
    outputs = [bench.path(name) for name in ("a.npy", "b.npy")]
    path = bench.path("all.safetensors")
    with open(path, "wb") as file:
        file.write(safetensors_bytes(tensors()))
    for output, source in zip(outputs, (arguments, ["--tensors", path])):
        result = run_tool([bench.tool, "run", "--out", output] + source)
        bench.failures.check(result.returncode == 0 and result.stdout.startswith(b"out "),
                             f"{source[0]}: {result.stderr.decode()}")
    contents = []
    for output in outputs:
        with open(output, "rb") as file:
            contents.append(file.read())
    bench.failures.check(contents[0] == contents[1], "other bits from safetensors than from .npy")


# ── input without an end ─────────────────────────────────────────────────────────────────────────

MEMORY_LIMIT = 1 << 30


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def check_streams(bench):
    """Pipes and devices are read as far as their header says and no further."""
    arguments = bench.arguments(bench.files)
    # A tool built with ASan does not start with so little address space.
    limited = {"preexec_fn": limit_memory}
    can_limit = run_tool([bench.tool, "--version"], **limited).returncode == 0
    if not can_limit:
        limited = {}
    for role in bench.files:
        rest = bench.arguments(bench.files, drop=(role,))
        bench.refused(f"{role} from /dev/zero", rest + [option(role), "/dev/zero"], option(role),
                      "NUMPY", **limited)
    outputs = ["--out", bench.out, "--lse", bench.lse]
    bench.refused("tensors from /dev/zero", ["--tensors", "/dev/zero"] + outputs, "--tensors",
                  **limited)
    safe = bench.path("all.safetensors")
    with open(safe, "wb") as file:
        file.write(safetensors_bytes(tensors()))
    stdin = {"--q": bench.arguments(bench.files, drop=("q",)), "--tensors": outputs}
    for name, path in (("--q", bench.path("q.npy")), ("--tensors", safe)):
        rest = stdin[name] + [name, "/dev/stdin"]
        with subprocess.Popen(["cat", path, "/dev/zero"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as endless:
            bench.refused(f"endless {name}", rest, name, stdin=endless.stdout, **limited)
            endless.stdout.close()
        with open(path, "rb") as file:
            content = file.read()
        bench.accepted(f"{name} from a pipe", rest, input=content)
        for size in (0, 5, 11, 40, len(content) - 1):
            bench.refused(f"{size} bytes of {name} from a pipe", rest, name, input=content[:size])
        bench.refused(f"{name} and a byte more", rest, name, input=content + b"x")
    huge = npy_bytes("<f4", [1 << 40, 256], b"")
    bench.refused("a header that promises 2^50 bytes", stdin["--q"] + ["--q", "/dev/stdin"], "--q",
                  str((1 << 50) + len(huge)), "memory", status=3, input=huge)
    text = json.dumps({"q": {"dtype": "F32", "shape": [1 << 40, 256],
                             "data_offsets": [0, 1 << 50]}}).encode()
    bench.refused("tensors that promise 2^50 bytes", outputs + ["--tensors", "/dev/stdin"],
                  "--tensors", str((1 << 50) + 8 + len(text)), "memory", status=3,
                  input=struct.pack("<Q", len(text)) + text)
    long_header = b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31)
    bench.refused("a header of 2 GB", stdin["--q"] + ["--q", "/dev/stdin"], "--q", str(1 << 31),
                  input=long_header + bytes(1000))
    if can_limit:
        check_copy(bench, arguments, limited)


def check_copy(bench, arguments, limited):
    """A misaligned array too large to be copied: no fault of the file."""
    n = 5 * MEMORY_LIMIT // 8 // 4
    header = npy_bytes("<f4", [n], b"")
    content = header[:8] + struct.pack("<H", len(header) - 10 + 1) + header[10:] + b" "
    path = arguments[arguments.index("--q") + 1]
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(len(content) + 4 * n)
    bench.refused("no memory for an aligned copy", arguments, "--q", "no memory", str(4 * n),
                  status=3, **limited)
    os.unlink(path)


def main():
    tool = tool_from_arguments()
    failures = Failures()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(tool, folder, failures)
        bench.accepted("the good files", bench.arguments(bench.files))
        for check in (check_npy_truncated, check_npy_headers, check_shapes, check_values,
                      check_offsets, check_variants, check_rows, check_codes, check_safetensors, check_options, check_files,
                      check_placement, check_json, check_names, check_streams):
            check(bench)
    return failures.finish(400)


if __name__ == "__main__":
    sys.exit(main())

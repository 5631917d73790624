"""`splitkv run` against attention written in NumPy: the check that shares nothing with the library.

SPDX-License-Identifier: Apache-2.0

Tensors are written with numpy.save (or as safetensors), the tool runs on the files, and its output
is compared with the formula in float64, within the bounds of docs/numerics.md:

    eps = 2^-20 * (1 + max|score| / 8) * max|v|
    (with a sink, |lse| counts as a score for lse; with ALiBi, |capped score| + |bias| does)
    f32 out: 2 eps;  f16, bf16 out: 1 ulp of the correctly rounded value + eps
    lse: 2^-20 * (1 + max|score|)
"""
import os
import sys

try:
    import numpy as np
except ImportError:
    # The first python3 of the PATH may be one without NumPy, where the system's has it.
    if os.path.realpath(sys.executable) != os.path.realpath("/usr/bin/python3") and os.path.exists(
            "/usr/bin/python3") and "SPLITKV_TEST_REEXEC" not in os.environ:
        os.environ["SPLITKV_TEST_REEXEC"] = "1"
        os.execv("/usr/bin/python3", ["/usr/bin/python3"] + sys.argv)
    sys.exit("this test needs NumPy (Debian: python3-numpy)")

import json
import tempfile

sys.dont_write_bytecode = True  # the source folder stays as it is
from run_support import (Failures, option, run_tool, safetensors_bytes, tool_from_arguments,
                         set_does, usable_kernel_sets)

# ── dtypes ───────────────────────────────────────────────────────────────────────────────────────


def to_bf16(x):
    """The nearest bfloat16, ties to even, as uint16."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def from_bf16(x):
    return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def store(x, dtype):
    if dtype == "bf16":
        return to_bf16(x)
    return x.astype({"f32": np.float32, "f16": np.float16}[dtype])


def load(x, dtype):
    return from_bf16(x) if dtype == "bf16" else x.astype(np.float64)


def ulp(x, dtype):
    """Distance of neighbours of a 16-bit dtype at |x|."""
    smallest, digits = {"f16": (-14, 10), "bf16": (-126, 7)}[dtype]
    _, exponent = np.frexp(np.abs(x))
    return np.ldexp(1.0, np.maximum(exponent - 1, smallest) - digits)


# ── the formula ──────────────────────────────────────────────────────────────────────────────────


def q_rows(case):
    """(request, its length, the row's position) of each query row."""
    counts = case["q_lens"] or [1] * len(case["lens"])
    return [(r, n, n - m + i) for r, (n, m) in enumerate(zip(case["lens"], counts)) for i in range(m)]


def attends(case, row, n, position):
    """Which of n tokens query row `row` attends to: each rule on its own."""
    token = np.arange(n)
    mask = np.ones(n, dtype=bool)
    if case["causal"]:
        mask &= token <= position
    if case["window_right"]:
        mask &= token - position < int(case["window_right"])
    if case["window"]:
        mask &= position - token < int(case["window"])
    if case["chunk"]:
        mask &= token // int(case["chunk"]) == position // int(case["chunk"])
    if case["mask"] is not None:
        width = case["mask"].shape[1]
        for t in range(max(0, n - width), n):
            mask[t] &= case["mask"][row, t - (n - width)] != 0
    return mask


def attended(case):
    """For each request, which tokens some row attends to."""
    reached = [np.zeros(n, dtype=bool) for n in case["lens"]]
    for row, (r, n, position) in enumerate(q_rows(case)):
        reached[r] |= attends(case, row, n, position)
    return reached


def attention(case, q, k, v, rows, scale):
    """q [rows, hq, d], k and v [pages, page, hkv, channels], all float64; rows[r]: page ids."""
    n_heads, n_kv, page = q.shape[1], k.shape[2], k.shape[1]
    group = n_heads // n_kv
    out = np.zeros((q.shape[0], n_heads, v.shape[3]))
    lse = np.full((q.shape[0], n_heads), -np.inf)
    max_score = np.zeros((q.shape[0], n_heads))
    max_v = np.zeros((q.shape[0], n_heads))
    for row, (r, n, position) in enumerate(q_rows(case)):
        token = np.nonzero(attends(case, row, n, position))[0]
        if len(token) == 0:
            continue
        pages = np.asarray(rows[r], dtype=np.int64)[token // page]
        for h in range(n_heads):
            keys = k[pages, token % page, h // group]
            values = v[pages, token % page, h // group]
            score = scale * (keys @ q[row, h])
            if case["softcap"] is not None:
                cap = float(np.float32(case["softcap"]))
                score = cap * np.tanh(score / cap)
            bias = np.zeros(len(token))
            if "alibi" in case["heads"]:
                bias = case["heads"]["alibi"][h] * (token - position)
            finite = (np.abs(score) + np.abs(bias))[np.isfinite(score)]
            max_score[row, h] = finite.max() if len(finite) else 0
            max_v[row, h] = np.max(np.abs(values), where=np.isfinite(values), initial=0)
            score = score + bias
            top = score.max()
            if top == -np.inf:
                continue
            weight = np.exp(score - top)
            out[row, h] = weight @ values / weight.sum()
            lse[row, h] = top + np.log(weight.sum())
    if "sinks" in case["heads"]:
        plain, lse = lse, np.logaddexp(lse, case["heads"]["sinks"])
        out *= np.exp(plain - lse)[:, :, None]
    return out, lse, max_score, max_v


def compare(expected, out, lse, dtype, case, is_rough=False):
    """None, or what is wrong first."""
    exact, exact_lse, max_score, max_v = expected
    out = out.copy()
    special = ~np.isfinite(exact)  # has to be there, and nowhere else
    if not np.array_equal(load(out, dtype)[special], exact[special], equal_nan=True):
        return "inf or NaN is not where it should be"
    exact = np.where(special, 0, exact)
    out[special] = 0
    eps = (2.0**-20 * (1 + max_score / 8) * max_v)[:, :, None]
    lse_unit = 2.0**-20
    if is_rough:  # the arithmetic class bf16
        eps = ((2.0**-8 + 2.0**-12 + 2.0**-16 * (1 + max_score)) * max_v)[:, :, None] + 2.0**-100
        lse_unit = 2.0**-16 if case["q"] == "f32" else 2.0**-20
    if dtype == "f32":
        error, bound = np.abs(load(out, dtype) - exact), eps if is_rough else 2 * eps
    else:
        nearest = load(store(exact, dtype), dtype)
        error, bound = np.abs(load(out, dtype) - nearest), ulp(nearest, dtype) + eps
    if not np.all(error <= bound):
        at = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error - bound)),
                              error.shape)
        where = [int(i) for i in at]
        return f"out{where} is {load(out, dtype)[at]}, exact {exact[at]}, bound " \
               f"{np.broadcast_to(bound, error.shape)[at]}"
    empty = np.isneginf(exact_lse)
    if not np.array_equal(np.isneginf(lse), empty):
        return "lse is -inf in other rows than it should"
    if "sinks" in case["heads"]:
        max_score = np.maximum(max_score, np.abs(np.where(empty, 0, exact_lse)))
    lse_error = np.abs(np.where(empty, 0, lse.astype(np.float64)) - np.where(empty, 0, exact_lse))
    if not np.all(lse_error <= lse_unit * (1 + max_score)):
        at = np.unravel_index(np.argmax(lse_error), lse_error.shape)
        return f"lse{[int(i) for i in at]} is {lse[at]}, exact {exact_lse[at]}"
    if np.any(load(out, dtype)[empty] != 0):
        return "out is not 0 where nothing is attended to"
    return None


# ── codes ────────────────────────────────────────────────────────────────────────────────────────

CODES = ("int8", "int4", "fp8_e4m3", "fp8_e5m2")


def decode(codes, dtype):
    """What codes stand for, before zero point and scale."""
    if dtype == "int8":
        return codes.view(np.int8).astype(np.float64)
    if dtype == "int4":
        return codes.astype(np.float64)
    bits, bias = {"fp8_e4m3": (3, 7), "fp8_e5m2": (2, 15)}[dtype]
    exponent, fraction = (codes & 0x7F) >> bits, codes & (2**bits - 1)
    size = np.where(exponent > 0, np.ldexp(fraction + 2.0**bits, exponent.astype(int) - bias - bits),
                    np.ldexp(fraction.astype(np.float64), 1 - bias - bits))
    special = (codes & 0x7F) == 0x7F if dtype == "fp8_e4m3" else exponent == 31
    return np.where(special, np.nan, np.where(codes & 0x80, -size, size))


def random_codes(shape, dtype, rng):
    """Numbers of every size that is not far below the largest one's."""
    if dtype == "int8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if dtype == "int4":
        return rng.integers(0, 16, shape, dtype=np.uint8)
    low, high = {"fp8_e4m3": (0x10, 0x40), "fp8_e5m2": (0x20, 0x40)}[dtype]
    return rng.integers(low, high, shape, dtype=np.uint8) | rng.integers(0, 2, shape, dtype=np.uint8) << 7


def scales_shape(mode, n_pages, page, n_heads, channels):
    groups = {"token": 1, "group32": -(-channels // 32), "group64": -(-channels // 64)}
    return {"tensor": (1,), "head": (n_heads,), "channel": (n_heads, channels)}.get(
        mode, (n_pages, page, n_heads, groups.get(mode)))


def spread_scales(scales, mode, shape):
    """One number for each element of a cache of that shape."""
    if mode == "none":
        return np.ones(shape)
    if mode in ("tensor", "channel"):
        return np.broadcast_to(scales, shape)
    if mode == "head":
        return np.broadcast_to(scales[:, None], shape)
    width = {"token": shape[3], "group32": 32, "group64": 64}[mode]
    return np.repeat(scales, width, axis=3)[..., :shape[3]]


def make_codes(case, rng, read, width, mode):
    """A cache [pages, page, hkv, width] of codes of which `read` says what somebody attends to: the
    codes, scales and zero points (None where there are none), and the elements."""
    n_pages, page, n_heads = read.shape[:3]
    shape, dtype = (n_pages, page, n_heads, width), case["kv"]
    codes = random_codes(shape, dtype, rng)
    codes[~read] = {"int8": 0x80, "int4": 0}.get(dtype, 0x7F)
    largest = {"int8": 127, "int4": 8, "fp8_e4m3": 1.8, "fp8_e5m2": 1.8}[dtype]
    scales = zeros = None
    zero = np.full(shape, 8.0 if dtype == "int4" else 0.0)
    if mode != "none":
        place = scales_shape(mode, n_pages, page, n_heads, width)
        scales = store((1 + rng.random(place)) / largest, case["scales"])
        if mode in ("token", "group32", "group64"):
            scales[~read] = 0x7FC0 if case["scales"] == "bf16" else np.nan
        if case["zeros"]:
            low, high = {"int8": (-60, 60), "int4": (2, 12)}[dtype]
            zeros = rng.integers(low, high, place, dtype=np.int8)
            zero = spread_scales(zeros.astype(np.float64), mode, shape)
    scale = spread_scales(load(scales, case["scales"]), mode, shape) if mode != "none" else np.ones(shape)
    elements = (scale.astype(np.float32) * (decode(codes, dtype) - zero).astype(np.float32))
    return codes, scales, zeros, elements.astype(np.float64)


def file_codes(codes, dtype):
    """As they lie in a file: INT4 two to a byte."""
    if dtype == "int8":
        return codes.view(np.int8)
    return codes[..., 0::2] | codes[..., 1::2] << 4 if dtype == "int4" else codes


# ── one case ─────────────────────────────────────────────────────────────────────────────────────

DEFAULTS = dict(lens=[5, 0, 130, 17], hq=4, hkv=2, d=64, dv=None, page=16, q="f32", kv="f32",
                out=None, layout="nhd", csr=False, table="shuffled", index=np.int32,
                len_type=np.int32, offset_type=None, split=None, threads=None, isa=None, arithmetic=None, scale=None,
                window=None, q_lens=None, causal=False, window_right=None, chunk=None, tree=None, mask=None,
                k_mode="none", v_mode="none", scales="f32", zeros=False, mla=None, flat=False,
                softcap=None, sinks=None, alibi=None, heads={}, source="npy", data="normal", alias=False, version=None, names=False)


def make_table(case, rng):
    """rows[r]: page ids of request r; and the number of pages, some of which nobody names."""
    need = [-(-n // case["page"]) for n in case["lens"]]
    total = sum(need)
    if case["table"] == "shared":
        n_pages = max(need + [0]) + 2
        return [rng.permutation(n_pages)[:n] for n in need], n_pages
    n_pages = total + 3
    order = rng.permutation(n_pages) if case["table"] == "shuffled" else np.arange(n_pages)
    cuts = np.cumsum([0] + need)
    return [order[cuts[r]:cuts[r + 1]] for r in range(len(need))], n_pages


def read_tokens(case, rows, n_pages):
    """[pages, page, hkv]: what some row attends to."""
    read = np.zeros((n_pages, case["page"], case["hkv"]), dtype=bool)
    for r, reached in enumerate(attended(case)):
        token = np.nonzero(reached)[0]
        read[np.asarray(rows[r], dtype=np.int64)[token // case["page"]], token % case["page"]] = True
    return read


def make_cache(rng, read, width):
    """NaN wherever no row attends to it, so that reading it shows."""
    cache = np.full((*read.shape, width), np.nan)
    cache[read] = rng.standard_normal((int(read.sum()), width))
    return cache


def make_mask(case, rng):
    """Any tokens of the newest ones; each row at its own at least, where it is among them."""
    if case["tree"] is None:
        return None
    mask = rng.integers(0, 2, (len(q_rows(case)), case["tree"])).astype(case["mask_type"])
    for row, (_, n, position) in enumerate(q_rows(case)):
        if position >= n - case["tree"]:
            mask[row, position - (n - case["tree"])] = 1
    return mask


def adapt_data(case, q, k, v):
    if case["data"] == "peaked":  # a few tokens carry all the weight; scores near +-100
        q *= 12
    elif case["data"] == "offset":  # the maximum matters: exp of the scores alone overflows
        k[..., 0] += 40
        q[..., 0] = np.sqrt(q.shape[-1]) * 5
    elif case["data"] == "cancel":  # values whose sum is far smaller than they are
        v[::2] += 100
        v[1::2] -= 100
    elif case["data"] == "minus_inf":  # scores of -inf: weight 0, and whole rows without weight
        q[..., 0] = np.abs(q[..., 0]) + 0.1
        k[::3, :, :, 0] = np.where(np.isnan(k[::3, :, :, 0]), np.nan, -np.inf)
    return q, k, v


def table_arrays(case, rows):
    if not case["csr"]:
        width = max([len(row) for row in rows] + [1]) + 2
        table = np.full((len(rows), width), -7, dtype=case["index"])  # unused entries: anything
        # A plan knows no tree: pages of its tokens are named, whether somebody attends to them or not.
        for r, (row, reached) in enumerate(zip(rows, attended({**case, "mask": None}))):
            table[r, :len(row)] = row
            for i in range(len(row)):  # pages that nobody attends to
                if not reached[i * case["page"]:(i + 1) * case["page"]].any():
                    table[r, i] = -5
        return table, None
    flat = [np.concatenate([row, [-9] * (r % 3)]) for r, row in enumerate(rows)]
    offsets = np.cumsum([0] + [len(row) for row in flat])
    table = np.concatenate(flat) if flat else np.zeros(0)
    return table.astype(case["index"]), offsets.astype(case["offset_type"] or case["index"])


def safetensors_dtype(role, case, array):
    if role in ("k", "v") and case["kv"] in CODES:
        return {"int8": "I8", "int4": "U8", "fp8_e4m3": "F8_E4M3", "fp8_e5m2": "F8_E5M2"}[case["kv"]]
    if role in ("q", "k", "v"):
        return case["q" if role == "q" else "kv"].upper()
    if role in ("k_scales", "v_scales"):
        return case["scales"].upper()
    if role in ("sinks", "alibi"):
        return case[role].upper()
    return {np.dtype(np.int32): "I32", np.dtype(np.int64): "I64", np.dtype(np.int8): "I8",
            np.dtype(np.uint8): "U8", np.dtype(bool): "BOOL"}[array.dtype]


def write_inputs(case, folder, arrays):
    """The options that name the input."""
    if case["source"] != "npy":
        names = {role: ("layer.0/" + role if case["names"] else role) for role in arrays}
        tensors = {names[role]: (safetensors_dtype(role, case, a), a.shape, a.tobytes())
                   for role, a in arrays.items()}
        if case["source"] == "safetensors_odd":  # one byte in front: nothing is aligned
            tensors = {"a byte": ("U8", [1], b"\x55"), **tensors}
        path = os.path.join(folder, "all.safetensors")
        with open(path, "wb") as file:
            file.write(safetensors_bytes(tensors, {"format": "pt"}, b"  "))
        arguments = ["--tensors", path]
        for role in arrays if case["names"] else []:
            arguments += ["--name-" + option(role)[2:], names[role]]
        return arguments
    arguments = []
    for role, a in arrays.items():
        path = os.path.join(folder, role + ".npy")
        with open(path, "wb") as file:
            np.lib.format.write_array(file, a, version=case["version"])
        arguments += [option(role), path]
    is_bf16 = "bf16" in (case["q"], case["kv"], case["sinks"], case["alibi"], case["scales"])
    return arguments + (["--bf16"] if is_bf16 else [])


def make_heads(case, rng):
    """Sinks and slopes, in the dtypes that the case names: the arrays, and their values."""
    numbers = dict(sinks=2 * rng.standard_normal(case["hq"]),
                   alibi=2.0 ** -(8 * (np.arange(case["hq"]) + 1) / case["hq"]))
    arrays = {role: store(x, case[role]) for role, x in numbers.items() if case[role]}
    return arrays, {role: load(x, case[role]) for role, x in arrays.items()}


def make_kv(case, rng, rows, n_pages, dv):
    """The arrays of K and V by role, in nhd, and the elements of both."""
    read = read_tokens(case, rows, n_pages)
    if case["kv"] not in CODES:
        k = make_cache(rng, read, case["d"])
        v = k if case["alias"] else make_cache(rng, read, dv)
        for r, n in enumerate(case["lens"] if case["data"] in ("nan_v", "inf_v") else []):
            if n > 0:  # a token that only the last row may attend to
                v[rows[r][(n - 1) // case["page"]], (n - 1) % case["page"]] = \
                    np.nan if case["data"] == "nan_v" else np.inf
        return dict(k=k, v=v), k, v
    codes, scales, zeros, k = make_codes(case, rng, read, case["d"], case["k_mode"])
    arrays = dict(k=codes, k_scales=scales, k_zeros=zeros)
    codes, scales, zeros, v = make_codes(case, rng, read, dv, case["v_mode"])
    if case["mla"]:  # the codes of K, with scales and zero points of V
        v_scale = spread_scales(np.ones(1) if scales is None else load(scales, case["scales"]),
                                "tensor" if scales is None else case["v_mode"], v.shape)
        zero = spread_scales(np.full(1, 8.0 if case["kv"] == "int4" else 0.0) if zeros is None
                             else zeros.astype(np.float64), "tensor" if zeros is None else case["v_mode"], v.shape)
        v = (v_scale.astype(np.float32) * (decode(arrays["k"][..., :dv], case["kv"]) - zero).astype(
            np.float32)).astype(np.float64)
    arrays.update(v=codes, v_scales=scales, v_zeros=zeros)
    return {role: a for role, a in arrays.items() if a is not None}, k, v


def lay_out(case, role, array):
    """As the file has it."""
    per_token = array.ndim == 4
    if per_token and case["layout"] == "hnd" and not (case["mla"] and role[1:] in ("_scales", "_zeros")):
        array = np.ascontiguousarray(array.transpose(0, 2, 1, 3))
    if role in ("k", "v") and case["kv"] in CODES:
        return np.ascontiguousarray(file_codes(array, case["kv"]))
    if role[1:] in ("_scales", "_zeros") and case["flat"] and array.shape[-1] == 1:
        return np.ascontiguousarray(array[..., 0])  # [pages, page, hkv], and a number for [1]
    return array


def word_arguments(case, dv):
    arguments = []
    for name in ("layout", "split", "threads", "isa", "arithmetic", "scale", "window", "softcap",
                 "window_right", "chunk"):
        if case[name] is not None:
            arguments += [option(name), case[name]]
    if case["out"] is not None:
        arguments += ["--out-dtype", case["out"]]
    if case["causal"]:
        arguments += ["--causal"]
    if case["mla"]:
        arguments += ["--mla", str(dv)]
    if case["kv"] == "int4" or (case["kv"] in CODES[2:] and case["source"] == "npy"):
        arguments += ["--kv-dtype", case["kv"]]
    return arguments


def prepare(case, rng, folder):
    """Writes the input; returns the options, the expected result and out's shape and dtype."""
    dv = case["mla"] or case["dv"] or case["d"]
    case["mask"] = make_mask(case, rng)
    rows, n_pages = make_table(case, rng)
    kv, k, v = make_kv(case, rng, rows, n_pages, dv)
    q = rng.standard_normal((len(q_rows(case)), case["hq"], case["d"]))
    if case["kv"] not in CODES:
        q, k, v = adapt_data(case, q, k, v)
        kv = {role: store(a, case["kv"]) for role, a in zip("kv", (k, v))}
        k, v = (load(kv[role], case["kv"]) for role in "kv")
        if case["mla"]:
            v = k[..., :dv]
    q = store(q, case["q"])
    heads, case["heads"] = make_heads(case, rng)
    scale = 1 / np.sqrt(case["d"]) if case["scale"] is None else float(np.float32(case["scale"]))
    expected = attention(case, load(q, case["q"]), k, v, rows, scale)
    table, offsets = table_arrays(case, rows)
    arrays = dict(q=q, table=table, kv_lens=np.array(case["lens"], dtype=case["len_type"]))
    arrays.update((role, lay_out(case, role, a)) for role, a in kv.items())
    if case["mla"]:
        del arrays["v"]
    if offsets is not None:
        arrays["offsets"] = offsets
    if case["q_lens"] is not None:
        arrays["q_offsets"] = np.cumsum([0] + case["q_lens"]).astype(case["len_type"])
    if case["mask"] is not None:
        arrays["tree_mask"] = case["mask"]
    arrays.update(heads)
    arguments = write_inputs(case, folder, arrays) + word_arguments(case, dv)
    return arguments, expected, (q.shape[0], q.shape[1], dv), case["out"] or case["q"]


def run_case(tool, changes, seed, failures):
    case = {**DEFAULTS, **changes}
    text = "seed %d: %s" % (seed, " ".join(f"{k}={getattr(v, '__name__', v)}"
                                           for k, v in changes.items()))
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        arguments, expected, shape, dtype = prepare(case, rng, folder)
        out_path, lse_path = (os.path.join(folder, name) for name in ("out.npy", "lse.npy"))
        result = run_tool([tool, "run", "--out", out_path, "--lse", lse_path, "--json"] + arguments)
        if not failures.check(result.returncode == 0 and not result.stderr,
                              f"{text}: exit {result.returncode}, {result.stderr.decode()}"):
            return
        out, lse, report = np.load(out_path), np.load(lse_path), json.loads(result.stdout)
    element = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}[dtype]
    failures.check(out.dtype == element and out.shape == shape, f"{text}: out is {out.dtype} "
                   f"{out.shape}")
    failures.check(lse.dtype == np.float32 and lse.shape == shape[:2], f"{text}: lse is "
                   f"{lse.dtype} {lse.shape}")
    failures.check(report["shape"] == list(shape) and report["dtype_out"] == dtype and
                   (case["isa"] is None or report["kernel_set"] == case["isa"]) and
                   same_mode(case, report["k_scales"], "k_mode") and
                   same_mode(case, report["v_scales"], "v_mode"),
                   f"{text}: the report says {report}")
    is_rough = report["kernel_set"].endswith("bf16")
    wrong = compare(expected, out, lse, dtype, case, is_rough)
    failures.check(wrong is None, f"{text}: {wrong}")
    if wrong is None and not is_rough and np.isfinite(expected[1]).any():
        check_comparison(expected, out, lse, dtype, case, text, failures)


def same_mode(case, told, name):
    """The mode that the tool read from a shape: one of those that have it."""
    return told == case[name] or (case[name], told) in (("head", "tensor"), ("group32", "token"),
                                                        ("group64", "token"), ("group64", "group32"))


def check_comparison(expected, out, lse, dtype, case, text, failures):
    """A comparison that accepts everything would pass, too: it has to see small errors."""
    r, h = np.argwhere(np.isfinite(expected[1]))[0]
    eps = 2.0**-20 * (1 + expected[2][r, h] / 8) * expected[3][r, h]
    wrong_out = load(out, dtype)
    step = 5 * eps + (3 * ulp(expected[0][r, h, -1], dtype) if dtype != "f32" else 0)
    wrong_out[r, h, -1] = expected[0][r, h, -1] + step
    failures.check(compare(expected, store(wrong_out, dtype), lse, dtype, case) is not None,
                   f"{text}: an error of {step} in out is not seen")
    wrong_lse = lse.copy()
    wrong_lse[r, h] += np.float32(2.0**-18 * (1 + abs(expected[2][r, h])))
    failures.check(compare(expected, out, wrong_lse, dtype, case) is not None,
                   f"{text}: an error in lse is not seen")


# ── the cases ────────────────────────────────────────────────────────────────────────────────────


def chosen_cases():
    yield {}
    for group in (1, 2, 3, 4, 5, 7, 8, 16, 64):
        yield dict(hq=2 * group, hkv=2, kv="f16", q="f16")
    for lens in ([], [0], [0, 0, 0], [1], [1, 0, 1], [1000], [16, 32, 48], [15, 17, 31, 33],
                 [2500, 3, 0, 700]):
        yield dict(lens=lens)
    for n in (63, 64, 65, 127, 128, 129, 960, 961, 1023, 1024, 1025, 2047, 2049, 5000):
        yield dict(lens=[n], dv=192, scale="0.125", hq=6)  # around the blocks that kernels work in
    for lens in ([], [0, 0]):
        yield dict(lens=lens, csr=True, source="safetensors")
    for q in ("f32", "f16", "bf16"):
        for kv in ("f32", "f16", "bf16"):
            for out in (None, "f32", "f16", "bf16"):
                yield dict(q=q, kv=kv, out=out, lens=[40, 0, 300])
    for d, dv in ((1, 1), (3, 5), (16, 16), (80, 96), (128, 64), (64, 192), (576, 512), (256, 256),
                  (112, 112), (7, 576), (33, 1)):
        yield dict(d=d, dv=dv, scale="0.125" if d != dv else None, q="bf16", kv="bf16")
    for page in (1, 7, 16, 19, 100, 256, 528):
        yield dict(page=page, lens=[page, page + 1, 0, 3 * page - 1])
    for layout in ("nhd", "hnd"):
        for table in ("identity", "shuffled", "shared"):
            for csr in (False, True):
                yield dict(layout=layout, table=table, csr=csr, q="f16", kv="f16")
    for index in (np.int32, np.int64):
        for len_type in (np.int32, np.int64):
            for offset_type in (None, np.int32, np.int64):
                yield dict(index=index, len_type=len_type, offset_type=offset_type,
                           csr=offset_type is not None)
    for split in ("auto", "none", "size:1", "size:64", "size:100", "count:3", "count:22"):
        for threads in ("1", "2", "5"):
            yield dict(split=split, threads=threads, lens=[900, 0, 5, 64], table="shared")
    for data in ("peaked", "offset", "cancel", "minus_inf"):
        for q, kv in (("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "bf16")):
            yield dict(data=data, q=q, kv=kv, lens=[1, 70, 0, 700], split="size:50")
    yield dict(data="minus_inf", lens=[3, 16, 40], page=1000)  # whole requests without weight
    for source in ("safetensors", "safetensors_odd"):
        for q, kv in (("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "bf16")):
            yield dict(source=source, q=q, kv=kv, csr=kv == "f16", index=np.int64)
    yield dict(source="safetensors", names=True, csr=True)
    yield dict(source="safetensors_odd", len_type=np.int64, index=np.int32, csr=True,
               offset_type=np.int64)
    yield dict(alias=True, d=192, dv=192, kv="f16")
    for version in ((1, 0), (2, 0), (3, 0)):
        yield dict(version=version)
    yield dict(scale="-0.25")
    for window in ("1", "16", "100", "5000"):
        for split in ("auto", "size:30"):
            yield dict(window=window, split=split, lens=[900, 0, 5, 64, 100], page=19)
    for softcap in ("50", "0.5", "1e6"):
        yield dict(softcap=softcap, lens=[900, 0, 5])
        yield dict(softcap=softcap, data="peaked", q="f16", kv="f16")
    for dtype in ("f32", "f16", "bf16"):
        yield dict(sinks=dtype, lens=[900, 0, 5])
        yield dict(alibi=dtype, lens=[900, 0, 5], hq=6)
        yield dict(sinks=dtype, alibi=dtype, source="safetensors_odd", split="size:100")
        yield dict(sinks=dtype, alibi=dtype, window="77", softcap="20", q=dtype, kv=dtype, split="count:3",
                   lens=[900, 0, 5, 64, 100], source="safetensors", names=dtype == "f32")
    yield dict(scale="1e-3", q="f16", kv="f16")
    yield from row_cases()
    yield from code_cases()


def row_cases():
    """Query rows and masks."""
    some = dict(lens=[90, 0, 5, 64, 300, 7], q_lens=[3, 2, 9, 0, 20, 7])
    yield dict(some)
    yield dict(some, causal=True)
    for split in ("none", "size:30", "count:3"):
        yield dict(some, causal=True, split=split, threads="3", hq=6, q="f16", kv="f16")
    for window in ("1", "6", "100"):
        yield dict(some, causal=True, window=window, page=7, table="shared")
        yield dict(some, window_right=window, window="9", csr=True)
    for chunk in ("1", "8", "100"):
        yield dict(some, causal=True, chunk=chunk, page=5)
        yield dict(some, chunk=chunk, window="13", q="bf16", kv="bf16", layout="hnd")
    for tree, mask_type in ((1, bool), (7, np.int8), (64, np.uint8), (65, bool), (130, np.int8)):
        yield dict(some, tree=tree, mask_type=mask_type, causal=True)
        yield dict(some, tree=tree, mask_type=mask_type, window="50", source="safetensors", names=True)
        yield dict(some, tree=tree, mask_type=mask_type, causal=True, chunk="40", split="size:16", page=3,
                   source="safetensors_odd", len_type=np.int64)
    yield dict(some, causal=True, sinks="f32", alibi="f32", softcap="20", window="33")
    for data in ("nan_v", "inf_v"):
        for kv in ("f32", "f16", "bf16"):
            yield dict(some, data=data, kv=kv, causal=True, split="size:50")
        yield dict(some, data=data, tree=9, mask_type=bool, causal=True)
    yield dict(some, sinks="f16", alibi="f16", source="safetensors", data="minus_inf", causal=True)
    yield dict(lens=[300], q_lens=[300], causal=True, hq=2, hkv=1)
    yield dict(lens=[40, 50], q_lens=[0, 0])
    yield dict(lens=[], q_lens=[])
    yield dict(some, mla=40, d=72, scale="0.1", causal=True, hkv=1)
    yield dict(some, mla=72, d=72, hkv=2, layout="hnd", source="safetensors", kv="bf16", scale="0.1")


def code_cases():
    """Quantised caches: each kind of scale as its shape."""
    modes = ("none", "tensor", "head", "channel", "token", "group32", "group64")
    for i, dtype in enumerate(CODES):
        for j, mode in enumerate(modes):
            yield dict(kv=dtype, k_mode=mode, v_mode=modes[(i + j) % len(modes)], d=80, dv=96, scale="0.1",
                       layout=("nhd", "hnd")[j % 2], source=("npy", "safetensors")[(i + j) // 2 % 2],
                       scales=("f32", "f16", "bf16")[(i + j) % 3], q=("f32", "f16")[i % 2], out="f32",
                       flat=j % 3 == 0, lens=[90, 0, 5, 170])
    for dtype in ("int8", "int4"):
        for j, mode in enumerate(modes):
            yield dict(kv=dtype, zeros=True, k_mode=mode, v_mode=modes[(3 * j + 1) % len(modes)], d=70, dv=34,
                       scale="0.1", layout=("hnd", "nhd")[j % 2], source=("npy", "safetensors_odd")[j % 2],
                       scales=("f32", "f16")[j % 2], table="shared", split="size:40", lens=[90, 0, 5, 170])
    for dtype in CODES:
        yield dict(kv=dtype, k_mode="channel", v_mode="token", lens=[90, 40], q_lens=[5, 9], causal=True,
                   window="30", q="bf16")
        yield dict(kv=dtype, k_mode="group32", v_mode="group32", mla=64, d=96, scale="0.1", hkv=1,
                   source="safetensors")
        yield dict(kv=dtype, k_mode="token", v_mode="group64", mla=66, d=130, scale="0.1", hkv=2, layout="hnd",
                   zeros=dtype in CODES[:2])
    yield dict(kv="int8", k_mode="head", v_mode="head", hq=6, hkv=1, d=33, flat=True)
    yield dict(kv="fp8_e4m3", k_mode="group32", v_mode="group64", d=31, hq=3, hkv=3)


def random_cases(n, rng):
    for i in range(n):
        hkv = int(rng.integers(1, 5))
        d = int(rng.choice([16, 64, 80, 128, 200, 256]))
        dv = int(rng.choice([16, 64, 80, 128, 200, 256])) if rng.random() < 0.3 else d
        split = str(rng.choice(["auto", "none", f"size:{rng.integers(1, 300)}",
                                f"count:{rng.integers(1, 40)}"]))
        yield dict(lens=[int(n) for n in rng.integers(0, 500 if i % 4 else 3000, rng.integers(1, 9))
                         * (rng.random() < 0.95)],
                   hq=hkv * int(rng.integers(1, 18)), hkv=hkv, d=d, dv=dv,
                   page=int(rng.integers(1, 140)), q=str(rng.choice(["f32", "f16", "bf16"])),
                   kv=str(rng.choice(["f32", "f16", "bf16"])),
                   layout=str(rng.choice(["nhd", "hnd"])), csr=bool(rng.random() < 0.4),
                   table=str(rng.choice(["identity", "shuffled", "shared"])),
                   index=np.int64 if rng.random() < 0.5 else np.int32, split=split,
                   threads=str(rng.integers(1, 5)), scale="0.09" if d != dv else None,
                   source=str(rng.choice(["npy", "safetensors", "safetensors_odd"])))


def random_row_cases(n, rng):
    modes = ("none", "tensor", "head", "channel", "token", "group32", "group64")
    for _ in range(n):
        b, hkv, d = int(rng.integers(1, 5)), int(rng.integers(1, 4)), 2 * int(rng.integers(1, 70))
        kv = str(rng.choice(("f32", "f16", "bf16") + CODES))
        k_mode, v_mode = (str(m) for m in rng.choice(modes, 2)) if kv in CODES else ("none", "none")
        right = {} if rng.random() < 0.3 else dict(causal=True) if rng.random() < 0.7 else dict(
            window_right=str(rng.integers(1, 20)))
        yield dict(right, lens=[int(x) for x in rng.integers(0, 200, b)],
                   q_lens=[int(x) for x in rng.integers(0, 12, b)], hq=hkv * int(rng.integers(1, 9)), hkv=hkv, d=d,
                   q=str(rng.choice(["f32", "f16", "bf16"])), kv=kv, k_mode=k_mode, v_mode=v_mode,
                   zeros=bool(kv in CODES[:2] and rng.random() < 0.5), scales=str(rng.choice(["f32", "f16", "bf16"])),
                   page=int(rng.integers(1, 40)), window=str(rng.integers(1, 90)) if rng.random() < 0.4 else None,
                   chunk=str(rng.integers(1, 90)) if rng.random() < 0.3 else None,
                   tree=int(rng.integers(1, 90)) if rng.random() < 0.4 else None, mask_type=bool,
                   layout=str(rng.choice(["nhd", "hnd"])), csr=bool(rng.random() < 0.3),
                   split=str(rng.choice(["auto", "none", "size:30", "count:4"])), threads=str(rng.integers(1, 4)),
                   table=str(rng.choice(["shuffled", "shared"])), source=str(rng.choice(["npy", "safetensors"])))


def main():
    tool = tool_from_arguments()
    failures = Failures()
    for seed, case in enumerate(chosen_cases()):
        run_case(tool, case, seed, failures)
    for seed, case in enumerate(random_row_cases(40, np.random.default_rng(2025))):
        run_case(tool, case, 3000 + seed, failures)
    for seed, case in enumerate(random_cases(60, np.random.default_rng(2024))):
        run_case(tool, case, 1000 + seed, failures)
    for isa in usable_kernel_sets(tool):
        for q, kv in (("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "f16"), ("f32", "bf16")):
            if not set_does(isa, kv):
                continue
            arithmetic = "bf16" if isa.endswith("bf16") else None
            run_case(tool, dict(isa=isa, arithmetic=arithmetic, q=q, kv=kv, lens=[700, 0, 33], page=48), 2000, failures)
    return failures.finish(1500)


if __name__ == "__main__":
    sys.exit(main())

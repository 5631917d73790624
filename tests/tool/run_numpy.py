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


def first_token(case, n):
    return max(0, n - int(case["window"])) if case["window"] else 0


def attention(case, q, k, v, rows, kv_lens, scale):
    """q [B, hq, d], k and v [pages, page, hkv, channels], all float64; rows[r]: page ids."""
    n_heads, n_kv, page = q.shape[1], k.shape[2], k.shape[1]
    group = n_heads // n_kv
    out = np.zeros((q.shape[0], n_heads, v.shape[3]))
    lse = np.full((q.shape[0], n_heads), -np.inf)
    max_score = np.zeros((q.shape[0], n_heads))
    max_v = np.zeros((q.shape[0], n_heads))
    for r, n in enumerate(kv_lens):
        if n == 0:
            continue
        token = np.arange(first_token(case, n), n)
        pages = np.asarray(rows[r], dtype=np.int64)[token // page]
        for h in range(n_heads):
            keys = k[pages, token % page, h // group]
            values = v[pages, token % page, h // group]
            score = scale * (keys @ q[r, h])
            if case["softcap"] is not None:
                cap = float(np.float32(case["softcap"]))
                score = cap * np.tanh(score / cap)
            bias = np.zeros(len(token))
            if "alibi" in case["heads"]:
                bias = case["heads"]["alibi"][h] * (token - (n - 1))
            finite = (np.abs(score) + np.abs(bias))[np.isfinite(score)]
            max_score[r, h] = finite.max() if len(finite) else 0
            max_v[r, h] = np.abs(values).max()
            score = score + bias
            top = score.max()
            if top == -np.inf:
                continue
            weight = np.exp(score - top)
            out[r, h] = weight @ values / weight.sum()
            lse[r, h] = top + np.log(weight.sum())
    if "sinks" in case["heads"]:
        plain, lse = lse, np.logaddexp(lse, case["heads"]["sinks"])
        out *= np.exp(plain - lse)[:, :, None]
    return out, lse, max_score, max_v


def compare(expected, out, lse, dtype, case, is_rough=False):
    """None, or what is wrong first."""
    exact, exact_lse, max_score, max_v = expected
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


# ── one case ─────────────────────────────────────────────────────────────────────────────────────

DEFAULTS = dict(lens=[5, 0, 130, 17], hq=4, hkv=2, d=64, dv=None, page=16, q="f32", kv="f32",
                out=None, layout="nhd", csr=False, table="shuffled", index=np.int32,
                len_type=np.int32, offset_type=None, split=None, threads=None, isa=None, arithmetic=None, scale=None,
                window=None, softcap=None, sinks=None, alibi=None, heads={}, source="npy", data="normal", alias=False, version=None, names=False)


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


def make_cache(case, rng, rows, n_pages, width):
    """NaN wherever no request attends to it, so that reading it shows."""
    cache = np.full((n_pages, case["page"], case["hkv"], width), np.nan)
    for r, n in enumerate(case["lens"]):
        token = np.arange(first_token(case, n), n)
        cache[np.asarray(rows[r], dtype=np.int64)[token // case["page"]], token % case["page"]] = 0
    used = ~np.isnan(cache)
    cache[used] = rng.standard_normal(int(used.sum()))
    return cache


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
        for r, row in enumerate(rows):
            table[r, :len(row)] = row
            table[r, :first_token(case, case["lens"][r]) // case["page"]] = -5  # passed by the window
        return table, None
    flat = [np.concatenate([row, [-9] * (r % 3)]) for r, row in enumerate(rows)]
    offsets = np.cumsum([0] + [len(row) for row in flat])
    table = np.concatenate(flat) if flat else np.zeros(0)
    return table.astype(case["index"]), offsets.astype(case["offset_type"] or case["index"])


def safetensors_dtype(role, case, array):
    if role in ("q", "k", "v"):
        return case["q" if role == "q" else "kv"].upper()
    if role in ("sinks", "alibi"):
        return case[role].upper()
    return {np.dtype(np.int32): "I32", np.dtype(np.int64): "I64"}[array.dtype]


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
    is_bf16 = "bf16" in (case["q"], case["kv"], case["sinks"], case["alibi"])
    return arguments + (["--bf16"] if is_bf16 else [])


def make_heads(case, rng):
    """Sinks and slopes, in the dtypes that the case names: the arrays, and their values."""
    numbers = dict(sinks=2 * rng.standard_normal(case["hq"]),
                   alibi=2.0 ** -(8 * (np.arange(case["hq"]) + 1) / case["hq"]))
    arrays = {role: store(x, case[role]) for role, x in numbers.items() if case[role]}
    return arrays, {role: load(x, case[role]) for role, x in arrays.items()}


def prepare(case, rng, folder):
    """Writes the input; returns the options, the expected result and out's shape and dtype."""
    dv = case["dv"] or case["d"]
    rows, n_pages = make_table(case, rng)
    k = make_cache(case, rng, rows, n_pages, case["d"])
    v = k if case["alias"] else make_cache(case, rng, rows, n_pages, dv)
    q = rng.standard_normal((len(case["lens"]), case["hq"], case["d"]))
    q, k, v = adapt_data(case, q, k, v)
    q, k, v = store(q, case["q"]), store(k, case["kv"]), store(v, case["kv"])
    heads, case["heads"] = make_heads(case, rng)
    scale = 1 / np.sqrt(case["d"]) if case["scale"] is None else float(np.float32(case["scale"]))
    expected = attention(case, load(q, case["q"]), load(k, case["kv"]), load(v, case["kv"]), rows,
                         case["lens"], scale)
    if case["layout"] == "hnd":
        k, v = (np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (k, v))
    table, offsets = table_arrays(case, rows)
    arrays = dict(q=q, k=k, v=v, table=table, kv_lens=np.array(case["lens"], dtype=case["len_type"]))
    if offsets is not None:
        arrays["offsets"] = offsets
    arrays.update(heads)
    arguments = write_inputs(case, folder, arrays)
    for name in ("layout", "split", "threads", "isa", "arithmetic", "scale", "window", "softcap"):
        if case[name] is not None:
            arguments += ["--" + name, case[name]]
    if case["out"] is not None:
        arguments += ["--out-dtype", case["out"]]
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
                   (case["isa"] is None or report["kernel_set"] == case["isa"]),
                   f"{text}: the report says {report}")
    is_rough = report["kernel_set"].endswith("bf16")
    wrong = compare(expected, out, lse, dtype, case, is_rough)
    failures.check(wrong is None, f"{text}: {wrong}")
    if wrong is None and not is_rough and np.isfinite(expected[1]).any():
        check_comparison(expected, out, lse, dtype, case, text, failures)


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


def main():
    tool = tool_from_arguments()
    failures = Failures()
    for seed, case in enumerate(chosen_cases()):
        run_case(tool, case, seed, failures)
    for seed, case in enumerate(random_cases(60, np.random.default_rng(2024))):
        run_case(tool, case, 1000 + seed, failures)
    for isa in usable_kernel_sets(tool):
        for q, kv in (("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "f16"), ("f32", "bf16")):
            if not set_does(isa, kv):
                continue
            arithmetic = "bf16" if isa.endswith("bf16") else None
            run_case(tool, dict(isa=isa, arithmetic=arithmetic, q=q, kv=kv, lens=[700, 0, 33], page=48), 2000, failures)
    return failures.finish(1000)


if __name__ == "__main__":
    sys.exit(main())

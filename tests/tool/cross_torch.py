"""Every variant of attention, every pair, and every model of the tool, against PyTorch.

SPDX-License-Identifier: Apache-2.0

    cross_torch.py HEADER LIBRARY SPLITKV [PYTHON...]

The library is called through ctypes. Its results are compared, within the bounds of
docs/numerics.md, with three of PyTorch's, all in float64 on the stored inputs:

    the formula, row by row
    scaled_dot_product_attention, where there is neither soft-cap nor sink
    flex_attention, with its own block mask; sinks joined to its lse

Requests are ragged: none, one, some query rows, more rows than tokens; no tokens, part of a page,
many pages. What no row of a request attends to is NaN, pages out of reach have no id, and in some
cases tokens that only some rows attend to are NaN, too. Models are those that `splitkv info --json`
lists, with the words that `splitkv plan` makes of their names, and besides with a tree of drafts;
where they have a window or chunks, one request is longer. Exit status 77 where no interpreter (this
one or a PYTHON that is there) has PyTorch: the check is then left out, and says so.
"""
import os
import sys

try:
    import torch
except ImportError:
    left = [p for p in sys.argv[4:] if os.access(p, os.X_OK)]
    if left:
        later = sys.argv[sys.argv.index(left[0]) + 1:]
        os.execv(left[0], [left[0], os.path.abspath(__file__)] + sys.argv[1:4] + later)
    print("skipped: no PyTorch (bench/peers/install has it)")
    sys.exit(77)

import itertools
import json
import math
import random
import warnings

from torch.nn.attention import flex_attention

sys.dont_write_bytecode = True  # the source folder stays as it is
from library import Library
from run_support import Failures, run_tool

F64 = torch.float64
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
VARIANTS = ("causal", "right", "window", "chunk", "tree", "softcap", "sinks", "alibi")
KV_LENS = (37, 0, 130, 5, 64, 1, 23, 90)
N_ROWS = (5, 3, 17, 9, 1, 1, 0, 30)
MASKED = 3  # a request whose tokens all lie in the tree, of which the mask leaves nothing

# ── cases ────────────────────────────────────────────────────────────────────────────────────────


class Case:
    """Numbers of one problem, and its tensors."""

    def __init__(self, splitkv, seed, decode=False):
        self.splitkv, self.decode = splitkv, decode
        self.generator = torch.Generator().manual_seed(seed)
        self.kv_lens = list(KV_LENS)
        self.n_rows = [1] * len(KV_LENS) if decode else list(N_ROWS)
        pick = random.Random(seed)
        self.page = pick.choice((1, 7, 16, 64))
        self.layout = pick.choice(("NHD", "HND"))
        self.dtype = pick.choice(list(DTYPES))
        self.policy = pick.randrange(4)
        self.is_mla = False
        self.choose(pick)
        self.make_masks()
        self.make_tensors()

    def choose(self, pick):
        """Sets the heads, n_kv of KV; d, dv; scale; variants and what they ask for; is_special:
        NaN in tokens that some rows attend to; and a name."""
        raise NotImplementedError

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=F64)

    def make_masks(self):
        """mask[r]: [rows, tokens], by the rules as docs/variants.md has them."""
        total = sum(self.n_rows)
        self.tree_bits = torch.randint(0, 2, (total, self.tree), generator=self.generator).bool()
        self.tree_bits[::5] = False
        self.tree_bits[sum(self.n_rows[:MASKED]):sum(self.n_rows[:MASKED + 1])] = False
        self.masks, first = [], 0
        for n, kv_len in zip(self.n_rows, self.kv_lens):
            position = (kv_len - n + torch.arange(n))[:, None]
            token = torch.arange(kv_len)[None, :]
            mask = torch.ones(n, kv_len, dtype=torch.bool)
            if "causal" in self.variants:
                mask &= token < position + 1
            if self.right:
                mask &= token < position + self.right
            if self.window:
                mask &= token > position - self.window
            if self.chunk:
                mask &= token.div(self.chunk, rounding_mode="floor") == position.div(
                    self.chunk, rounding_mode="floor")
            if self.tree:
                bits = torch.ones(n, kv_len, dtype=torch.bool)
                n_seen = min(self.tree, kv_len)
                bits[:, kv_len - n_seen:] = self.tree_bits[first:first + n, self.tree - n_seen:]
                mask &= bits
            self.masks.append(mask)
            first += n

    def make_tensors(self):
        dtype = DTYPES[self.dtype]
        total = sum(self.n_rows)
        self.q = self.normal(total, self.n_heads, self.d).to(dtype)
        self.sinks = self.normal(self.n_heads).float() if "sinks" in self.variants else None
        self.slopes = None
        if "alibi" in self.variants:
            self.slopes = torch.exp2(-8 * torch.arange(1, self.n_heads + 1).float() / self.n_heads)
        counts = [-(-kv_len // self.page) for kv_len in self.kv_lens]
        n_pages = sum(counts) + 3
        ids = torch.randperm(n_pages, generator=self.generator)
        self.n_pages, self.width = n_pages, max(counts) + 1
        self.table = torch.full((len(counts), self.width), -7, dtype=torch.int32)
        shape = (n_pages, self.page, self.n_kv)
        self.k = torch.full(shape + (self.d, ), math.nan, dtype=dtype)
        self.v = self.k[..., :self.dv]
        if not self.is_mla:
            self.v = torch.full(shape + (self.dv, ), math.nan, dtype=dtype)
        self.keys, self.values, used = [], [], 0
        for r, (kv_len, count) in enumerate(zip(self.kv_lens, counts)):
            pages = ids[used:used + count]
            used += count
            self.fill_request(r, kv_len, pages)
        if self.layout == "HND":
            self.k = self.k.transpose(1, 2).contiguous()
            self.v = self.k[..., :self.dv] if self.is_mla else self.v.transpose(1, 2).contiguous()

    def fill_request(self, r, kv_len, pages):
        dtype = DTYPES[self.dtype]
        keys = self.normal(kv_len, self.n_kv, self.d).to(dtype)
        values = keys[..., :self.dv]
        if not self.is_mla:
            values = self.normal(kv_len, self.n_kv, self.dv).to(dtype)
        n_attending = self.masks[r].sum(0)
        if self.is_special:
            some = (n_attending > 0) & (n_attending < self.n_rows[r])
            some &= torch.rand(kv_len, generator=self.generator) < 0.3
            values[some, :, 3] = math.nan
            keys[some & (torch.arange(kv_len) % 2 == 0), :, 5] = math.nan
        keys[n_attending == 0] = math.nan
        values[n_attending == 0] = math.nan
        token = torch.arange(kv_len)
        self.k[pages[token // self.page], token % self.page] = keys
        if not self.is_mla:
            self.v[pages[token // self.page], token % self.page] = values
        attended = n_attending.nonzero()
        if len(attended) > 0:
            first, last = int(attended[0]) // self.page, int(attended[-1]) // self.page
            if self.tree:  # the mask is no reason for a page to be missing
                first, last = 0, (kv_len - 1) // self.page
            self.table[r, first:last + 1] = pages[first:last + 1].int()
        elif self.n_rows[r] > 0 and self.tree:
            self.table[r, :len(pages)] = pages.int()
        self.keys.append(keys.to(F64))
        self.values.append(values.to(F64))

    def tree_words(self):
        """[rows, ceil(tree / 64)] of 64 bits; those of no token are set."""
        n_words = -(-self.tree // 64)
        bits = torch.ones(len(self.tree_bits), 64 * n_words, dtype=torch.int64)
        bits[:, :self.tree] = self.tree_bits
        return (bits.view(len(bits), n_words, 64) << torch.arange(64)).sum(2)

    # ── the library ──────────────────────────────────────────────────────────────────────────────

    def run(self):
        s = self.splitkv
        flags = (s.SPLITKV_FLAG_CAUSAL if "causal" in self.variants else 0) | (
            s.SPLITKV_FLAG_SINKS if self.sinks is not None else 0) | (
                s.SPLITKV_FLAG_ALIBI if self.slopes is not None else 0)
        dtype = getattr(s, "SPLITKV_" + self.dtype.upper())
        problem = s.struct("splitkv_problem", n_heads_q=self.n_heads, n_heads_kv=self.n_kv,
                           head_dim=self.d, head_dim_v=self.dv, page_size_tokens=self.page,
                           n_pages=self.n_pages, dtype_q=dtype, dtype_kv=dtype, dtype_out=dtype,
                           layout=getattr(s, "SPLITKV_LAYOUT_" + self.layout),
                           table_width=self.width, split_policy=self.policy,
                           split_value=(0, 24, 3, 0)[self.policy], scale=self.scale, flags=flags,
                           window_tokens=self.window, window_right_tokens=self.right,
                           chunk_tokens=self.chunk, tree_tokens=self.tree,
                           logit_softcap=self.softcap)
        if self.is_mla:
            strides = self.k.stride() if self.layout == "NHD" else self.k.transpose(1, 2).stride()
            problem.layout = s.SPLITKV_LAYOUT_STRIDES
            for x in "kv":
                for name, stride in zip(("page", "token", "head"), strides):
                    setattr(problem, f"{x}_stride_{name}", stride)
        self.scale = problem.scale  # as f32 has it
        kv_lens = torch.tensor(self.kv_lens)
        offsets = torch.tensor([0] + self.n_rows).cumsum(0).int()
        batch = s.struct("splitkv_batch", n_requests=len(self.kv_lens), kv_lens=kv_lens.data_ptr(),
                         kv_lens_type=s.SPLITKV_I64, n_workers=3)
        if not self.decode:
            batch.q_offsets, batch.q_offsets_type = offsets.data_ptr(), s.SPLITKV_I32
        total = sum(self.n_rows)
        out = torch.full((total, self.n_heads, self.dv), math.nan, dtype=DTYPES[self.dtype])
        lse = torch.full((total, self.n_heads), math.nan)
        tensors = s.struct("splitkv_tensors", q=self.q.data_ptr(), k=self.k.data_ptr(),
                           v=self.v.data_ptr(), block_table=self.table.data_ptr(),
                           out=out.data_ptr(), lse=lse.data_ptr())
        words = self.tree_words()
        if self.tree:
            tensors.tree_mask = words.data_ptr()
        if self.sinks is not None:
            tensors.sinks = self.sinks.data_ptr()
        if self.slopes is not None:
            tensors.alibi_slopes = self.slopes.data_ptr()
        plan = s.create_plan(problem, batch)
        n_bytes = s.workspace_bytes(plan)
        memory = torch.full((n_bytes + s.SPLITKV_ALIGNMENT, ), 0xff, dtype=torch.uint8)
        workspace = -memory.data_ptr() % s.SPLITKV_ALIGNMENT + memory.data_ptr()
        s.run(plan, problem, tensors, workspace if n_bytes else None, n_bytes)
        s.destroy_plan(plan)
        return out.to(F64), lse.to(F64)

    # ── PyTorch ──────────────────────────────────────────────────────────────────────────────────

    def request(self, r):
        """q [heads, rows, d], k and v [heads of KV, tokens, .], mask [rows, tokens] of a request.
        PyTorch multiplies masked values by 0: NaN that nobody attends to has to go."""
        first = sum(self.n_rows[:r])
        q = self.q[first:first + self.n_rows[r]].to(F64).transpose(0, 1)
        nobody = ~self.masks[r].any(0)
        k, v = (x.masked_fill(nobody[:, None, None], 0).transpose(0, 1)
                for x in (self.keys[r], self.values[r]))
        return q, k, v, self.masks[r]

    def distance(self, r):
        n, kv_len = self.masks[r].shape
        return torch.arange(kv_len)[None, :] - (kv_len - n + torch.arange(n))[:, None]

    def bias(self, r):
        return self.slopes.to(F64)[:, None, None] * self.distance(r)


class Variants(Case):
    """Some variants, the rest at random."""

    def __init__(self, splitkv, seed, variants, decode=False):
        self.variants = variants
        super().__init__(splitkv, seed, decode)

    def choose(self, pick):
        variants = self.variants
        self.n_kv = pick.choice((1, 2, 3))
        self.n_heads = self.n_kv * pick.choice((1, 2, 3, 4))
        self.d, self.dv = pick.choice(((16, 16), (40, 24), (64, 64), (72, 80)))
        self.is_special = pick.random() < 0.5 and "alibi" not in variants
        self.scale = pick.choice((-0.8, 1.25)) / math.sqrt(self.d)
        self.window = pick.randint(1, 40) if "window" in variants else 0
        self.right = pick.randint(1, 13) if "right" in variants else 0
        self.chunk = pick.randint(1, 48) if "chunk" in variants else 0
        self.tree = pick.choice((20, 70, 129)) if "tree" in variants else 0
        self.softcap = pick.choice((1.5, 20)) if "softcap" in variants else 0
        self.name = f"{'+'.join(variants) or 'none'} {'decode ' if self.decode else ''}" \
                    f"{self.dtype} policy {self.policy}"


# Words of a problem that a model says nothing of.
NO_MODEL = {"b", "page", "kv", "dtype", "layout", "split", "table", "format", "index", "data", "seed",
            "threads", "isa", "arithmetic"}


class Model(Case):
    """A model as the words that it stands for."""

    def __init__(self, splitkv, seed, name, words, dtype, is_special=False, tree=0):
        self.name, self.words, self.tree, self.is_special = name, words, tree, is_special
        self.wanted = dtype
        super().__init__(splitkv, seed)

    def choose(self, pick):
        self.dtype = self.wanted
        words = dict(word.partition("=")[::2] for word in self.words.split())
        words = {name: value for name, value in words.items() if name not in NO_MODEL}

        def take(name, kind=int):
            return kind(words.pop(name, 0))

        def has(name):
            return words.pop(name, None) is not None

        self.n_heads, self.n_kv, self.d, self.dv = map(take, ("hq", "hkv", "d", "dv"))
        self.scale, self.softcap = take("scale", float), take("softcap", float)
        self.window, self.right, self.chunk = map(take, ("window", "window_right", "chunk"))
        self.is_mla = has("mla")
        self.variants = [name for name in ("causal", "sinks", "alibi") if has(name)]
        if words:
            raise ValueError(f"{self.name}: this test does not know of {words}")
        reach = max(self.window, self.chunk)
        if reach > 0:  # the first rows reach token 0, or lie in the chunk before
            self.kv_lens.append(reach + 3)
            self.n_rows.append(7)
        self.name += f"{' with NaN' * self.is_special}{' tree' * (self.tree > 0)} {self.dtype} " \
                     f"policy {self.policy}"


def find_models(tool):
    """The words of each name that model= takes."""

    def ask(*arguments):
        return json.loads(run_tool([tool, *arguments, "--json"], check=True).stdout)

    return {name: ask("plan", f"model={name}")["problem"] for name in ask("info")["models"]}


# ── PyTorch's answers ────────────────────────────────────────────────────────────────────────────


def formula(case, r):
    """out, lse, and of each row and head the largest |score| and |v|. Each row stands alone, with
    the tokens that it attends to and no others."""
    n, heads, first = case.n_rows[r], case.n_heads, sum(case.n_rows[:r])
    out = torch.zeros(heads, n, case.dv, dtype=F64)
    sinks = torch.full((heads, ), -math.inf) if case.sinks is None else case.sinks
    lse = sinks.to(F64)[:, None].repeat(1, n)
    max_score, max_v = (torch.zeros(heads, n, dtype=F64) for _ in range(2))
    bias = torch.zeros(heads, *case.masks[r].shape, dtype=F64)
    if case.slopes is not None:
        bias = case.bias(r)
    for i, mask in enumerate(case.masks[r]):
        if not mask.any():
            continue
        q = case.q[first + i].to(F64).view(case.n_kv, -1, case.d)
        k, v = (x[mask].transpose(0, 1) for x in (case.keys[r], case.values[r]))
        scores = case.scale * (q @ k.transpose(1, 2)).flatten(0, 1)
        if case.softcap:
            scores = case.softcap * torch.tanh(scores / case.softcap)
        size = scores.abs() + bias[:, i, mask].abs()
        scores = scores + bias[:, i, mask]
        lse[:, i] = torch.logaddexp(torch.logsumexp(scores, 1), lse[:, i])
        weights = (scores - lse[:, i, None]).exp().view(case.n_kv, -1, scores.shape[1])
        out[:, i] = (weights @ v).flatten(0, 1)
        max_score[:, i] = torch.where(size.isfinite(), size, 0).amax(1)
        tops = torch.where(v.isfinite(), v.abs(), 0).flatten(1).amax(1)
        max_v[:, i] = tops.repeat_interleave(heads // case.n_kv)
    return out, lse, max_score, max_v


def sdpa(case, r):
    """None where it does not apply."""
    q, k, v, mask = case.request(r)
    if case.softcap or case.sinks is not None or case.is_special or 0 in mask.shape:
        return None
    bias = torch.zeros(mask.shape, dtype=F64).masked_fill(~mask, -math.inf)
    if case.slopes is not None:
        bias = bias + case.bias(r)
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(q[None], k[None], v[None], attn_mask=bias.expand(1, case.n_heads, -1, -1),
                  scale=case.scale, enable_gqa=True)[0]


def flex(case, r):
    """out and lse; None where it does not apply."""
    q, k, v, mask = case.request(r)
    if case.is_special or 0 in mask.shape:
        return None
    n, kv_len = mask.shape
    position = kv_len - n
    bits = torch.ones(n, kv_len, dtype=torch.bool)
    if case.tree:
        n_seen, first = min(case.tree, kv_len), sum(case.n_rows[:r])
        bits[:, kv_len - n_seen:] = case.tree_bits[first:first + n, case.tree - n_seen:]

    def attends(b, h, i, t):
        good = t >= 0
        if "causal" in case.variants:
            good = good & (i + position >= t)
        if case.right:
            good = good & (t - (i + position) < case.right)
        if case.window:
            good = good & ((i + position) - t < case.window)
        if case.chunk:
            # Positions below 0 have chunks below 0; + chunk * n keeps the division from truncating.
            good = good & (t // case.chunk == (i + position + case.chunk * n) // case.chunk - n)
        return good & bits[i, t] if case.tree else good

    def change(score, b, h, i, t):
        if case.softcap:
            score = case.softcap * torch.tanh(score / case.softcap)
        if case.slopes is not None:
            score = score + case.slopes.to(F64)[h] * (t - (i + position))
        return score

    blocks = flex_attention.create_block_mask(attends, None, None, n, kv_len, device="cpu")
    out, lse = flex_attention.flex_attention(
        q[None], k[None], v[None], score_mod=change, block_mask=blocks, scale=case.scale,
        enable_gqa=case.n_heads != case.n_kv, return_lse=True)
    out, lse = out[0], lse[0].to(F64)
    if case.sinks is not None:
        sinks = case.sinks.to(F64)[:, None]
        out = out * torch.sigmoid(lse - sinks)[..., None]
        lse = torch.logaddexp(lse, sinks)
    return out, lse


# ── judging ──────────────────────────────────────────────────────────────────────────────────────


def ulp(x, dtype):
    smallest, digits = {"f16": (-14, 10), "bf16": (-126, 7)}[dtype]
    return torch.exp2((torch.frexp(x.abs())[1] - 1).clamp(min=smallest).to(F64) - digits)


def worst_ratio(got, exact, bound):
    """Largest error / bound; inf where NaN or an infinity stands in one of them alone."""
    same = (got == exact) | (got.isnan() & exact.isnan())
    ratio = torch.where(same, 0, (got - exact).abs() / bound)
    return float(ratio.nan_to_num(nan=math.inf, posinf=math.inf).max()) if ratio.numel() else 0.0


class Judge:

    def __init__(self, failures):
        self.failures = failures
        self.worst, self.counts = 0.0, {"formula": 0, "sdpa": 0, "flex": 0}
        self.n_empty = self.n_special = 0

    def judge(self, case, who, r, got, lse, exact, exact_lse, max_score, max_v):
        eps = (2.0**-20 * (1 + max_score / 8) * max_v)[..., None]
        if case.dtype == "f32":
            ratio = worst_ratio(got, exact, 2 * eps)
        else:
            nearest = exact.to(DTYPES[case.dtype]).to(F64)
            ratio = worst_ratio(got, nearest, eps + ulp(nearest.nan_to_num(), case.dtype))
        self.report(case, who, r, "out", ratio)
        if exact_lse is not None:
            size = max_score
            if case.sinks is not None:
                size = torch.maximum(size, exact_lse.abs().nan_to_num(posinf=0))
            self.report(case, who, r, "lse", worst_ratio(lse, exact_lse, 2.0**-20 * (1 + size)))
        self.counts[who] += exact.shape[0] * exact.shape[1]

    def report(self, case, who, r, what, ratio):
        self.worst = max(self.worst, ratio)
        self.failures.check(ratio <= 1, f"{case.name}: {what} of request {r} is {ratio:.3g} of the "
                                        f"bound from {who}'s")

    def case(self, case):
        out, lse = case.run()
        first = 0
        for r, n in enumerate(case.n_rows):
            got, got_lse = (x[first:first + n].transpose(0, 1) for x in (out, lse))
            first += n
            if n == 0:
                continue
            exact, exact_lse, max_score, max_v = formula(case, r)
            self.n_empty += int((~case.masks[r].any(1)).sum())
            self.n_special += int(exact.isnan().any(2).sum())
            self.judge(case, "formula", r, got, got_lse, exact, exact_lse, max_score, max_v)
            # PyTorch has no word for rows without tokens.
            some = case.masks[r].any(1)
            rows = (got[:, some], got_lse[:, some])
            tops = (max_score[:, some], max_v[:, some])
            other = sdpa(case, r)
            if other is not None:
                self.judge(case, "sdpa", r, *rows, other[:, some], None, *tops)
            other = flex(case, r)
            if other is not None:
                self.judge(case, "flex", r, *rows, other[0][:, some], other[1][:, some], *tops)


def causal_prompt(splitkv, judge):
    """A prompt of its own: is_causal, whose triangle is the same where rows are as many as tokens."""
    case = Variants(splitkv, 5, ("causal", ))
    case.kv_lens, case.n_rows = [100, 33], [100, 33]
    case.is_special = False
    case.scale = abs(case.scale)  # PyTorch 2.15 for CPUs: is_causal and a negative scale give NaN
    case.make_masks()
    case.make_tensors()
    out, _ = case.run()
    for r, first in ((0, 0), (1, 100)):
        n = case.n_rows[r]
        q, k, v, _ = case.request(r)
        exact = torch.nn.functional.scaled_dot_product_attention(
            q[None], k[None], v[None], is_causal=True, scale=case.scale, enable_gqa=True)[0]
        max_score, max_v = formula(case, r)[2:]
        judge.judge(case, "sdpa", r, out[first:first + n].transpose(0, 1), None, exact, None,
                    max_score, max_v)


def main():
    if len(sys.argv) < 4:
        sys.exit(f"usage: {sys.argv[0]} HEADER LIBRARY SPLITKV [PYTHON...]")
    # The formula as PyTorch has it, not a kernel of minutes of compilation.
    flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    splitkv = Library(sys.argv[1], sys.argv[2])
    failures = Failures()
    judge = Judge(failures)
    chosen = [c for n in range(3) for c in itertools.combinations(VARIANTS, n)]
    chosen += [("causal", "window", "tree", "softcap", "sinks"),
               ("right", "window", "chunk", "tree", "softcap", "sinks", "alibi")]
    seed = 0
    for variants in chosen:
        if "causal" in variants and "right" in variants:  # they exclude each other
            continue
        for decode in (False, True):
            seed += 1
            judge.case(Variants(splitkv, seed, variants, decode))
    causal_prompt(splitkv, judge)
    models = find_models(sys.argv[3])
    for name, words in models.items():
        dtypes = random.Random(name).sample(list(DTYPES), 3)
        for dtype, more in zip(dtypes, ({}, {"is_special": True}, {"tree": 20})):
            seed += 1
            judge.case(Model(splitkv, seed, name, words, dtype, **more))
    print(f"PyTorch {torch.__version__}, {len(models)} models: rows of heads compared with the formula "
          f"{judge.counts['formula']}, SDPA {judge.counts['sdpa']}, FlexAttention "
          f"{judge.counts['flex']}; {judge.n_empty} rows without tokens, {judge.n_special} with NaN; "
          f"largest error {judge.worst:.3f} of the bound")
    for who, least in (("formula", 10000), ("sdpa", 2000), ("flex", 5000)):
        failures.check(judge.counts[who] >= least, f"only {judge.counts[who]} rows with {who}")
    failures.check(len(models) >= 24, f"only {len(models)} models")
    failures.check(judge.n_empty > 100 and judge.n_special > 100, "rows without tokens or with NaN")
    return failures.finish(1000)


if __name__ == "__main__":
    sys.exit(main())

"""What the adapters written in Python share: the protocol (README.md beside this file), the case's
tensors, and the environment that ./install made.

SPDX-License-Identifier: Apache-2.0
"""
import json
import mmap
import os
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT = os.path.join(FOLDER, ".venv")
DTYPE_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


def choose_pages():
    """Huge pages for what the peers allocate, as the tool's own data has, or none (--small-pages).
    True where that has to be set before the interpreter starts."""
    flag = "0" if os.environ.get("SPLITKV_SMALL_PAGES") else "1"
    others = os.environ.get("GLIBC_TUNABLES", "").split(":")
    tunables = [x for x in others if x and not x.startswith("glibc.malloc.hugetlb=")]
    wanted = {"GLIBC_TUNABLES": ":".join(tunables + ["glibc.malloc.hugetlb=" + flag]),
              "THP_MEM_ALLOC_ENABLE": flag, "NUMPY_MADVISE_HUGEPAGE": flag}
    is_set = all(os.environ.get(name) == value for name, value in wanted.items())
    os.environ.update(wanted)
    return not is_set


def use_environment():
    """Goes on in the interpreter that has the peers, where there is one, with its pages chosen."""
    python = os.path.join(ENVIRONMENT, "bin", "python")
    if os.path.realpath(sys.prefix) == os.path.realpath(ENVIRONMENT) or not os.path.exists(python):
        python = sys.executable
    is_again = os.environ.pop("SPLITKV_PEER_AGAIN", None)  # once, whatever that interpreter says
    if (choose_pages() or python != sys.executable) and not is_again:
        os.environ["SPLITKV_PEER_AGAIN"] = "1"
        os.execv(python, [python, os.path.abspath(sys.argv[0])])


class Unsupported(Exception):
    """The peer has no such case."""


class Missing(Exception):
    """The peer's library is not there."""


def not_installed(reason):
    name, text = os.path.basename(sys.argv[0]), " ".join(str(reason).split())[:100]
    return f"not installed ({text}), run bench/peers/install {name}"


class Case:
    """One problem. K and V come as [requests, KV heads, tokens, channels] from gather()."""

    def __init__(self, description):
        self.__dict__.update(description)
        import numpy
        self.numpy = numpy
        self.memory = mmap.mmap(self.fd, self.file_bytes)
        types = {"f32": numpy.float32, "f16": numpy.float16, "bf16": numpy.uint16}
        self.q = self.array(types[self.dtype_q], self.q_offset,
                            (self.rows, self.heads_q, self.head_dim))
        self.q_offsets = self.array(numpy.int64, self.q_offsets_offset, (self.requests + 1,))
        self.kv_lens = self.array(numpy.int64, self.kv_lens_offset, (self.requests,))
        self.table_offsets = self.array(numpy.int64, self.table_offsets_offset,
                                        (self.requests + 1,))
        self.table = self.array(numpy.int64, self.table_offset, (self.table_pages,))
        self.out = self.array(numpy.float32, self.out_offset,
                              (self.rows, self.heads_q, self.head_dim_v))
        self.k = self.cache(types[self.dtype_kv], self.k_offset, self.head_dim)
        self.v = self.cache(types[self.dtype_kv], self.v_offset, self.head_dim_v)
        self.group = self.heads_q // self.heads_kv

    def array(self, dtype, offset, shape):
        count = 1
        for n in shape:
            count *= n
        if count == 0:
            return self.numpy.zeros(shape, dtype)
        return self.numpy.frombuffer(self.memory, dtype, count, offset).reshape(shape)

    def cache(self, dtype, offset, channels):
        """[pages, KV heads, page tokens, channels], whatever the layout."""
        if self.layout == "hnd":
            return self.array(dtype, offset,
                              (self.pages, self.heads_kv, self.page_tokens, channels))
        paged = self.array(dtype, offset, (self.pages, self.page_tokens, self.heads_kv, channels))
        return paged.transpose(0, 2, 1, 3)

    def max_kv_len(self):
        return int(self.kv_lens.max()) if self.requests else 0

    def need_tokens(self):
        if self.requests == 0 or int(self.kv_lens.min()) == 0:
            raise Unsupported("a request without tokens")

    def need_decode(self):
        """For a peer that takes one query row of each request."""
        if (self.numpy.diff(self.q_offsets) != 1).any():
            raise Unsupported("q=: this adapter has one query row of each request")

    def equal_rows(self):
        """How many query rows each request has."""
        counts = set(self.numpy.diff(self.q_offsets).tolist())
        if len(counts) != 1 or counts == {0}:
            raise Unsupported("q=: rows that differ between requests, or none")
        return counts.pop()

    def need_equal_lengths(self):
        self.need_tokens()
        if int(self.kv_lens.min()) != int(self.kv_lens.max()):
            raise Unsupported("lengths that differ, without padding")

    def need_dtypes(self, *dtypes):
        if self.wanted_kv not in dtypes:
            raise Unsupported(f"KV of {self.wanted_kv}")

    def request(self, cache, r):
        """K or V of one request: [KV heads, tokens, channels]."""
        pages = self.table[self.table_offsets[r]:self.table_offsets[r + 1]]
        rows = cache[pages].transpose(1, 0, 2, 3)
        rows = rows.reshape(self.heads_kv, -1, cache.shape[3])
        return rows[:, :int(self.kv_lens[r])]

    def gather(self, cache, dtype):
        """All requests, filled up with zeros, as numbers of `dtype` (bf16: its bits)."""
        numpy = self.numpy
        storage = {"f32": numpy.float32, "f16": numpy.float16, "bf16": numpy.uint16}[dtype]
        whole = numpy.zeros((self.requests, self.heads_kv, self.max_kv_len(), cache.shape[3]),
                            storage)
        for r in range(self.requests):
            whole[r, :, :int(self.kv_lens[r])] = convert(numpy, self.request(cache, r),
                                                         self.dtype_kv, dtype)
        return whole

    def queries(self, dtype):
        return convert(self.numpy, self.q, self.dtype_q, dtype)

    def copies(self, kv_bytes):
        """How many copies of that size no cache holds together."""
        return max(1, -(-int(self.cold_bytes) // max(1, kv_bytes)))

    def kv_bytes(self, dtype):
        return (self.requests * self.heads_kv * self.max_kv_len()
                * (self.head_dim + self.head_dim_v) * DTYPE_BYTES[dtype])


def convert(numpy, values, source, target):
    """Between f32, f16 and the bits of bf16, to the nearest, ties to even."""
    if source == target:
        return values
    if source == "bf16":
        values = (values.astype(numpy.uint32) << 16).view(numpy.float32)
    if target == "bf16":
        bits = numpy.ascontiguousarray(values, numpy.float32).view(numpy.uint32)
        return ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)
    return values.astype({"f32": numpy.float32, "f16": numpy.float16}[target])


class Channel:
    """The tool's requests and our answers. What the libraries print goes to standard error."""

    def __init__(self):
        self.answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.requests = os.fdopen(os.dup(0), "r", encoding="utf-8")

    def receive(self):
        return self.requests.readline()

    def send(self, line):
        self.answers.write(line + "\n")
        self.answers.flush()


def serve(begin):
    """begin(case) returns an object with version, path, layout, kv_dtype, n_copies, places(), the
    addresses of the copies of K as the library has them, run(i), which returns seconds, and
    result(), f32 numbers [query rows, query heads, channels]. It raises Unsupported, Missing or
    ImportError."""
    channel = Channel()
    line = channel.receive()
    if not line:
        return
    try:
        case = Case(json.loads(line))
        peer = begin(case)
    except Unsupported as reason:
        channel.send(json.dumps({"unsupported": str(reason)}))
        return
    except Missing as reason:
        channel.send(json.dumps({"missing": str(reason)}))
        return
    except ImportError as reason:
        channel.send(json.dumps({"missing": not_installed(reason)}))
        return
    if len(set(peer.places())) != peer.n_copies:
        raise RuntimeError(f"{peer.n_copies} copies of the KV cache share memory: it stays warm")
    channel.send(json.dumps({"ready": True, "version": peer.version, "path": peer.path,
                             "layout": peer.layout, "kv_dtype": peer.kv_dtype,
                             "copies": peer.n_copies}))
    for line in iter(channel.receive, ""):
        word, *rest = line.split()
        if word == "run":
            channel.send(f"seconds {peer.run(int(rest[0])):.9f}")
        elif word == "out":
            case.out[:] = peer.result()
            channel.send("ok")
        else:
            channel.send(f"error unknown request {word}")


clock = time.perf_counter

"""What the tests of `splitkv run` share. Needs nothing but Python.

SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import struct
import subprocess
import sys

ROLES = ("q", "k", "v", "table", "kv_lens", "offsets")


def option(role):
    return "--" + role.replace("_", "-")


class Failures:
    """Counts checks; a failed one prints a line and the test goes on."""

    def __init__(self):
        self.n_checks = 0
        self.n_failed = 0

    def check(self, is_good, text):
        self.n_checks += 1
        if not is_good:
            self.n_failed += 1
            print("FAIL:", text)
        return is_good

    def finish(self, n_least):
        """Exit status: a test that checked less than it should has not passed either."""
        self.check(self.n_checks >= n_least, f"{self.n_checks} checks, at least {n_least} expected")
        print(f"{self.n_checks - self.n_failed} of {self.n_checks} checks passed")
        return 1 if self.n_failed else 0


def run_tool(arguments, **keywords):
    keywords.setdefault("timeout", 120)
    return subprocess.run([str(a) for a in arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **keywords)


def tool_from_arguments():
    if len(sys.argv) != 2 or not os.access(sys.argv[1], os.X_OK):
        sys.exit(f"usage: {sys.argv[0]} SPLITKV   (the tool's executable)")
    return os.path.abspath(sys.argv[1])


def usable_kernel_sets(tool):
    """Names of the kernel sets that this CPU can run, as `splitkv run --isa` takes them."""
    result = run_tool([tool, "info", "--json"])
    if result.returncode != 0:
        sys.exit(f"splitkv info failed: {result.stderr.decode()}")
    names = find_kernel_sets(json.loads(result.stdout))
    if "scalar" not in names:
        sys.exit(f"splitkv info names no usable scalar kernel set, only {names}")
    return names


def set_words(isa):
    """The words of a problem that name a kernel set, and allow its arithmetic class."""
    allowed = {"avx512bf16": ("arithmetic=bf16",), "avx512vnni": ("arithmetic=int8",)}
    return (f"isa={isa}",) + allowed.get(isa, ())


def set_does(isa, kv):
    """Whether a kernel set does KV of this type."""
    only = {"avx512bf16": ("bf16", "fp8_e4m3", "fp8_e5m2"), "avx512vnni": ("int8", "int4")}
    return isa not in only or kv in only[isa]


def set_dtype(isa):
    """Words with which a kernel set does the dtype of KV, where it does not do all of them."""
    return {"avx512bf16": ("dtype=bf16",),
            "avx512vnni": ("dtype_kv=int8", "scales=token")}.get(isa, ())


def find_kernel_sets(report):
    for value in report.values():
        if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
            return [entry["name"] for entry in value
                    if entry.get("usable", entry.get("is_usable"))]
    sys.exit("splitkv info --json lists no kernel sets")


def npy_bytes(descr, shape, data):
    """A version 1.0 .npy file, written without NumPy."""
    shape_text = "(" + "".join(f"{n}, " for n in shape).rstrip(" ") + ")"
    if len(shape) > 1:
        shape_text = "(" + ", ".join(str(n) for n in shape) + ")"
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape_text}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def safetensors_bytes(tensors, metadata=None, padding=b""):
    """tensors: {name: (dtype, shape, bytes)}, laid out in this order."""
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape),
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode() + padding
    return struct.pack("<Q", len(text)) + text + data


def parse_npy(content):
    """(descr, shape, data) of a version 1.0 file."""
    assert content[:8] == b"\x93NUMPY\x01\x00", content[:8]
    n_header = struct.unpack("<H", content[8:10])[0]
    header = eval(content[10:10 + n_header], {"__builtins__": {}})
    assert (10 + n_header) % 64 == 0
    return header["descr"], header["shape"], content[10 + n_header:]

"""What `splitkv` says to bad usage, and its help: exit status 2 or 3 and one line that names the
word and what would be right.

SPDX-License-Identifier: Apache-2.0
"""
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

from run_support import Failures, run_tool, tool_from_arguments, usable_kernel_sets

COMMANDS = ("info", "plan", "check", "bench", "run", "ascend")
WORDS = ("b=", "hq=", "hkv=", "d=", "dv=", "page=", "kv=", "dtype=", "dtype_q=", "dtype_kv=",
         "dtype_out=", "layout=", "split=", "table=", "seed=", "scale=", "threads=", "isa=",
         "arithmetic=", "data=", "index=", "format=", "q=", "kv_dtype=", "scales=", "scales_dtype=",
         "window_right=", "chunk=", "tree=", "prefix=", " unshared ", "model=", " causal ", " zeros ", " mla ", "sinks ", "alibi ")

# Words of a problem, and what the error line has to say.
BAD_PROBLEMS = (
    ("hqq=3", ("hqq", "'hq'")),
    ("batch=3", ("batch",)),
    ("b=1 b=2", ("'b'", "twice")),
    ("b=-1", ("b=-1", "0 ..")),
    ("b=x", ("b=x", "whole number")),
    ("b=", ("b=", "whole number")),
    ("b", ("b", "name=value")),
    ("b=3 kv=1,2", ("b=3", "2 lengths")),
    ("hq=0", ("hq=0", "1 ..")),
    ("hq=99999999999999999999", ("hq=", "1 ..")),
    ("hq=7 hkv=2", ("hq", "7", "2")),
    ("hkv=0", ("hkv=0",)),
    ("d=0", ("d=0", "576")),
    ("d=577", ("d=577", "576")),
    ("dv=1000", ("dv=1000", "576")),
    ("page=0", ("page=0",)),
    ("kv=-5", ("kv=-5",)),
    ("kv=9..3", ("kv=9..3", "range")),
    ("kv=1,,2", ("kv=1,,2", "list")),
    ("kv=1..", ("kv=1..",)),
    ("kv=5x0", ("kv=5x0",)),
    ("kv=99999999999999999999", ("kv=",)),
    ("dtype=f8", ("dtype=f8", "f32, f16 or bf16")),
    ("dtype_q=bf61", ("dtype_q=bf61", "did you mean bf16?")),
    ("dtype=int8", ("dtype=int8", "f32, f16 or bf16", "dtype_kv=int8")),
    ("sink", ("sink", "did you mean 'sinks'?")),
    ("layout=ndh", ("layout=ndh", "nhd or hnd")),
    ("split=size", ("split=size", "size:TOKENS")),
    ("split=size:0", ("split=size:0",)),
    ("split=count:-1", ("split=count:-1",)),
    ("table=random", ("table=random", "identity, shuffled or shared")),
    ("seed=-1", ("seed=-1",)),
    ("scale=0", ("scale=0", "finite")),
    ("scale=nan", ("scale=nan", "finite")),
    ("scale=inf", ("scale=inf", "finite")),
    ("scale=1e", ("scale=1e", "finite")),
    ("scale=1e39", ("scale=1e39", "32-bit float")),
    ("scale=1e-50", ("scale=1e-50", "32-bit float")),
    ("hq=2147483648", ("hq=2147483648", "1 .. 2147483647")),
    ("hkv=2147483648", ("hkv=2147483648", "1 .. 2147483647")),
    ("", ("''", "without a word")),
    (" \t", ("without a word",)),
    ("threads=0", ("threads=0", "65535")),
    ("threads=65536", ("threads=65536", "65535")),
    ("isa=sse", ("isa=sse", "avx2")),
    ("arithmetic=f16", ("arithmetic=f16", "f32, bf16 or int8")),
    ("data=evil", ("data=evil", "adversarial")),
    ("index=i16", ("index=i16", "i32 or i64")),
    ("format=coo", ("format=coo", "dense or csr")),
    ("q=-1", ("q=-1", "query rows")),
    ("q=x", ("q=x", "number", "range")),
    ("q=4..1", ("q=4..1", "range")),
    ("q=1,,2", ("q=1,,2", "list")),
    ("q=5x0", ("q=5x0", "list")),
    ("q=68719476737", ("q=68719476737", "68719476736")),
    ("q=1 q=2", ("q=2", "'q'", "twice")),
    ("q=1,2 kv=5,6,7", ("q", "2 requests", "3")),
    ("b=3 q=1,2", ("b=3", "q lists 2")),
    ("causal=1", ("causal=1", "without a value")),
    ("causal causal", ("causal", "twice")),
    ("causl", ("causl", "did you mean 'causal'?")),
    ("zero", ("zero", "did you mean 'zeros'?")),
    ("window_right=-1", ("window_right=-1", "0 ..")),
    ("window_rigt=1", ("window_rigt", "'window_right'")),
    ("causal window_right=3", ("window_right",)),
    ("chunk=-1", ("chunk=-1", "0 ..")),
    ("chunk=8k8", ("chunk=8k8", "whole number")),
    ("tree=-1", ("tree=-1", "0 ..")),
    ("tree=two", ("tree=two", "whole number")),
    ("prefix=-1", ("prefix=-1", "0 ..")),
    ("prefix=x", ("prefix=x", "whole number")),
    ("unshared=1", ("unshared=1", "without a value")),
    ("unshared", ("unshared", "prefix= is missing")),
    ("kv_dtype=f8", ("kv_dtype=f8", "int8, fp8_e4m3, fp8_e5m2 or int4")),
    ("kv_dtype=int9", ("kv_dtype=int9", "did you mean int8?")),
    ("kv_dtyp=int8", ("kv_dtyp", "'kv_dtype'")),
    ("dtype_kv=f16 kv_dtype=f16", ("kv_dtype=f16", "'kv_dtype'", "twice")),
    ("dtype=int8", ("dtype=int8", "f32, f16 or bf16")),
    ("dtype_q=fp8_e4m3", ("dtype_q=fp8_e4m3", "f32, f16 or bf16")),
    ("scales=row", ("scales=row", "tensor", "group64", "slash")),
    ("scales=token/", ("scales=token/", "slash")),
    ("scales=token/head/head", ("scales=token/head/head", "slash")),
    ("scales=/token", ("scales=/token",)),
    ("scales_dtype=bf16", ("scales_dtype=bf16", "f32 or f16")),
    ("zeros=1", ("zeros=1", "without a value")),
    ("mla=1", ("mla=1", "without a value")),
    ("mla d=64 dv=65", ("dv=65", "mla", "64")),
    ("mla kv_dtype=int8 scales=channel/token", ("scales=channel/token", "mla")),
    ("model=qwen3-8c", ("model=qwen3-8c", "did you mean qwen3-8b?")),
    ("model=gpt", ("model=gpt", "unknown model")),
    ("model=", ("model=", "unknown model")),
    ("model=gemma-2-9b/globl", ("gemma-2-9b/globl", "gemma-2-9b/global")),
    ("model=phi-3 model=phi-3", ("model=phi-3", "twice")),
    ("model", ("model", "name=value")),
    ("b=1\x1b[31m", ("b=1",)),
    ("b=4\nkv=5 x=1", ("x=1",)),
)

# Whole command lines.
BAD_LINES = (
    (["chekc"], ("chekc", "check")),
    (["frobnicate"], ("frobnicate", "help")),
    (["help", "chekc"], ("chekc",)),
    (["help", "check", "bench"], ("one command",)),
    (["plan"], ("plan", "problem")),
    (["plan", "--json"], ("plan", "problem")),
    (["plan", "b=1 kv=1", "b=2 kv=1"], ("one problem",)),
    (["plan", "--suite", "odd", "b=1"], ("--suite",)),
    (["check", "b=1 kv=1", "kv=5"], ("kv", "beside")),
    (["info", "b=1"], ("info", "b=1")),
    (["check", "--suit", "odd"], ("--suit", "--suite")),
    (["check", "--suite"], ("--suite", "value")),
    (["check", "--suite", "pr682"], ("pr682", "pr683")),
    (["check", "--suite", "none"], ("none", "odd")),
    (["check", "--plot", "x.svg"], ("--plot",)),
    (["check", "--json=yes"], ("--json", "no value")),
    (["check", "--suite", "ragged", "b=8"], ("ragged/", "b=8")),
    (["bench", "--seconds", "0", "kv=5"], ("--seconds", "above 0")),
    (["bench", "--seconds", "abc", "kv=5"], ("--seconds", "abc")),
    (["bench", "--isa", "avx2", "kv=5"], ("--isa: unknown option", "word of the problem", "isa=")),
    (["check", "--kv=4096"], ("--kv=4096", "kv=")),
    (["check", "--json-file", "/nonexistent/x.json", "b=0"],
     ("--json-file /nonexistent/x.json",)),
    (["check", "--json-file", "", "b=0"], ("--json-file: the file name is empty",)),
    (["bench", "--json-file=", "b=0"], ("--json-file: the file name is empty",)),
    (["check", "b=0", "--json-file", "a", "--json-file", "b"], ("--json-file", "twice")),
    (["bench", "b=0", "--plot=a", "--plot", "b"], ("--plot", "twice")),
    (["bench", "b=0", "--seconds", "1", "--seconds", "2"], ("--seconds", "twice")),
    (["check", "--suite", "odd", "--suite", "odd"], ("--suite odd", "twice")),
    (["check", "kv=5", "kv=7"], ("kv=7", "twice", "blank", "'kv=... '")),
    (["check", "kv=5", "kv=x"], ("kv=x", "length")),
    (["check", "b=1 kv=1", ""], ("''", "without a word")),
)


def check_error(failures, tool, arguments, status, parts, environment=None):
    result = run_tool([tool, *arguments], env=environment)
    text = result.stderr.decode(errors="replace")
    name = " ".join(arguments)
    failures.check(result.returncode == status,
                   f"{name!r}: status {result.returncode}, not {status}: {text!r}")
    failures.check(result.stdout == b"", f"{name!r}: nothing on stdout, not {result.stdout!r}")
    failures.check(text.count("\n") == 1 and text.endswith("\n"), f"{name!r}: one line, not {text!r}")
    failures.check(text.startswith("splitkv: "), f"{name!r}: {text!r} says who speaks")
    failures.check(all(ord(c) >= 32 for c in text[:-1]), f"{name!r}: control characters in {text!r}")
    for part in parts:
        failures.check(part in text, f"{name!r}: {part!r} is not in {text!r}")


def check_help(failures, tool):
    overview = run_tool([tool, "help"])
    text = overview.stdout.decode()
    failures.check(overview.returncode == 0 and overview.stderr == b"", "help succeeds")
    for command in COMMANDS:
        failures.check(f"\n  {command} " in text, f"help lists {command}")
        result = run_tool([tool, "help", command])
        page = result.stdout.decode()
        failures.check(result.returncode == 0, f"help {command} succeeds")
        failures.check(page.startswith(f"usage: splitkv {command}"), f"help {command} begins well")
        same = run_tool([tool, command, "--help"])
        failures.check(same.returncode == 0 and same.stdout.decode() == page,
                       f"{command} --help is help {command}")
        lines = page.splitlines()
        failures.check(all(len(line) <= 80 for line in lines), f"help {command} fits 80 columns")
    for command in ("plan", "check", "bench"):
        page = run_tool([tool, "help", command]).stdout.decode()
        for word in WORDS:
            failures.check(word in page, f"help {command} explains {word}")
    check_error(failures, tool, [], 2, ("try 'splitkv help'",))
    for command, options in (("check", ("--json-file",)),
                             ("bench", ("--json-file", "--plot", "--warm", "--small-pages", "--seconds"))):
        usage = run_tool([tool, "help", command]).stdout.decode().split("\n\n")[0]
        for option in ("--json", "--suite", *options):
            failures.check(f"{option}" in usage, f"the usage line of {command} names {option}")
    version = run_tool([tool, "--version"])
    failures.check(version.returncode == 0 and version.stdout.startswith(b"splitkv "), "--version")


def check_unsupported(failures, tool):
    usable = usable_kernel_sets(tool)
    missing = [isa for isa in ("avx2", "avx512", "neon") if isa not in usable]
    failures.check(bool(missing), "no machine has them all")
    for isa in missing:
        for command in ("plan", "check", "bench"):
            check_error(failures, tool, [command, f"isa={isa}", "kv=5"], 3, (isa,))
    check_error(failures, tool, ["check", "b=4096 kv=64M"], 3, ("memory",))


def check_without_gnuplot(failures, tool):
    with tempfile.TemporaryDirectory() as folder:
        # A shell, but no gnuplot.
        os.symlink("/bin/sh", os.path.join(folder, "sh"))
        check_error(failures, tool, ["bench", "--plot", os.path.join(folder, "x.svg"), "kv=5"], 3,
                    ("--plot", "gnuplot", "install"), {"PATH": folder})
        failures.check(not os.path.exists(os.path.join(folder, "x.svg")), "no plot is left behind")
    if shutil.which("gnuplot"):  # else the plot is refused before its file is looked at
        check_error(failures, tool, ["bench", "--plot", "", "kv=5"], 2,
                    ("--plot: the file name is empty",))
        check_error(failures, tool, ["bench", "--plot", "/nonexistent/x.svg", "kv=5"], 2,
                    ("--plot", "/nonexistent/x.svg"))


def check_outputs(failures, tool):
    """A rejected command leaves no file, and no file is lost that was there before."""
    other = [isa for isa in ("avx2", "neon") if isa not in usable_kernel_sets(tool)][0]
    has_gnuplot = shutil.which("gnuplot") is not None
    with tempfile.TemporaryDirectory() as folder:
        path, link = os.path.join(folder, "new.json"), os.path.join(folder, "link", "new.json")
        os.symlink(".", os.path.join(folder, "link"))
        for command in ("check", "bench"):
            check_error(failures, tool, [command, f"isa={other}", "kv=1", "--json-file", path], 3,
                        (other,))
            failures.check(os.listdir(folder) == ["link"], f"{command}: no file is left")
        if has_gnuplot:
            for same in (path, link, os.path.join(folder, ".", "new.json")):
                check_error(failures, tool, ["bench", "kv=1", "--plot", same, "--json-file", path],
                            2, ("--plot", same, "--json-file"))
            check_error(failures, tool, ["bench", f"isa={other}", "kv=1", "--plot", path], 3,
                        (other,))
            failures.check(os.listdir(folder) == ["link"], "bench: no file is left")
            check_plot_commands(failures, tool, folder)
        with open(path, "w", encoding="utf-8") as file:
            file.write("the report before")
        # A disk that is full: a limit on what the process may write.
        result = run_tool([tool, "check", "kv=1", "--json-file", path], preexec_fn=limit_files)
        text = result.stderr.decode()
        failures.check(result.returncode == 2 and f"--json-file {path}: " in text,
                       f"a report that does not fit: {text!r}")
        with open(path, encoding="utf-8") as file:
            failures.check(file.read() == "the report before", "the report before is still there")
        failures.check(sorted(os.listdir(folder)) == ["link", "new.json"], "nothing is left")


def limit_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))


def check_plot_commands(failures, tool, folder):
    """The name of a plot is a name, whatever gnuplot makes of a leading bar."""
    result = run_tool([tool, "bench", "kv=1", "--seconds", "0.001", "--plot", "|touch ran"],
                      cwd=folder)
    failures.check(result.returncode == 0 and not os.path.exists(os.path.join(folder, "ran")),
                   f"--plot '|touch ran' runs nothing: {result.stderr!r}")
    plot = os.path.join(folder, "|touch ran")
    if failures.check(os.path.exists(plot), "the plot has the name that was given"):
        os.unlink(plot)


def check_full_disk(failures, tool):
    if not os.path.exists("/dev/full"):
        return
    lines = [["check", "kv=1", "--json-file"]]
    if shutil.which("gnuplot"):
        lines.append(["bench", "kv=1", "--seconds", "0.001", "--plot"])
    for line in lines:
        result = run_tool([tool, *line, "/dev/full"])
        failures.check(result.returncode == 2 and result.stderr.count(b"\n") == 1
                       and line[-1].encode() + b" /dev/full: " in result.stderr,
                       f"{line} /dev/full: {result.returncode}, {result.stderr!r}")
    with open("/dev/full", "wb") as full:
        result = subprocess.run([tool, "help"], stdout=full, stderr=subprocess.PIPE)
    failures.check(result.returncode == 2 and b"stdout" in result.stderr,
                   "output that cannot be written is an error")


def check_progress(failures, tool):
    """Progress goes to a terminal and nowhere else, and is wiped away in the end."""
    arguments = [tool, "check", "b=1 kv=5", "b=1 kv=6"]
    master, terminal = os.openpty()
    environment = dict(os.environ, TERM="xterm")
    result = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=terminal, env=environment)
    os.close(terminal)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    failures.check(result.returncode == 0 and "[1/2]" in shown and "[2/2]" in shown,
                   f"progress on a terminal: {shown!r}")
    failures.check(shown.endswith("\r\033[K"), f"no progress is left on the line: {shown!r}")
    failures.check(b"\033" not in result.stdout, "no progress on stdout")
    failures.check(run_tool(arguments).stderr == b"", "no progress where there is no terminal")


def main():
    tool = tool_from_arguments()
    failures = Failures()
    for problem, parts in BAD_PROBLEMS:
        for command in ("plan", "check", "bench"):
            check_error(failures, tool, [command, problem], 2, parts)
    for arguments, parts in BAD_LINES:
        check_error(failures, tool, arguments, 2, parts)
    check_help(failures, tool)
    check_unsupported(failures, tool)
    check_without_gnuplot(failures, tool)
    check_outputs(failures, tool)
    check_full_disk(failures, tool)
    check_progress(failures, tool)
    return failures.finish(1000)


if __name__ == "__main__":
    sys.exit(main())

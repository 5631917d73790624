"""The manual page: it has every command, option, word, default and suite of the tool's own help,
and nothing of its Markdown is left when it has become roff.

SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import re
import subprocess
import sys

from run_support import Failures, run_tool, tool_from_arguments

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
COMMANDS = ("info", "plan", "check", "bench", "run", "ascend")


def check_roff(failures, markdown):
    """The page as `make install` makes it."""
    made = subprocess.run(["awk", "-v", "version=0", "-f", os.path.join(ROOT, "cmake", "man.awk"),
                           os.path.join(ROOT, "docs", "splitkv.1.md")],
                          stdout=subprocess.PIPE, check=True).stdout.decode()
    failures.check(made.startswith(".TH SPLITKV 1 "), "the roff begins with its title")
    for section in re.findall(r"^## (.*)$", markdown, re.M):
        failures.check(f'.SH "{section}"' in made, f"the roff has the section {section}")
    for line in made.splitlines():
        failures.check(not re.match(r"\||```|#", line) and "`" not in line,
                       f"no Markdown is left in {line!r}")


def main():
    tool = tool_from_arguments()
    failures = Failures()
    with open(os.path.join(ROOT, "docs", "splitkv.1.md"), encoding="utf-8") as file:
        markdown = file.read()
    check_roff(failures, markdown)

    pages = {command: run_tool([tool, "help", command]).stdout.decode() for command in COMMANDS}
    for command, page in pages.items():
        failures.check(f"splitkv {command}" in markdown, f"the synopsis has {command}")
        # An option at the beginning of its line, and "also --name-k, ..." in a text.
        options = set(re.findall(r"^  (--[a-z0-9-]+)|(--name-[a-z-]+)", page, re.M))
        for option in sorted(a or b for a, b in options):
            failures.check(f"`{option}`" in markdown, f"the page has {command}'s {option}")
    words = sorted(set(re.findall(r"^  ([a-z_]+)=|\b(dtype_[a-z]+)=", pages["plan"] + pages["ascend"], re.M)))
    words = [a or b for a, b in words]
    failures.check(len(words) >= 34, f"the help of plan explains words: {words}")
    for word in words:
        failures.check(f"`{word}=" in markdown, f"the page has the word {word}=")
    for flag in sorted(set(re.findall(r"^  ([a-z]+) {3,}", pages["plan"], re.M))):
        failures.check(f"\n| `{flag}` |" in markdown, f"the page has the word {flag}")
    models = re.findall(r"\b[a-z]+[0-9]*-[a-z0-9.-]+\b", pages["plan"][pages["plan"].index("  model=NAME"):])
    known = json.loads(run_tool([tool, "info", "--json"]).stdout)["models"]
    failures.check(set(models) == {name.split("/")[0] for name in known} and len(known) >= 24,
                   f"the help of plan names all models: {models}, {known}")
    for model in models:
        failures.check(re.search(rf"^\| .*`{re.escape(model)}`.* \|", markdown, re.M), f"the page has the model {model}")
    default = {line.split()[0] for line in (pages["plan"] + pages["ascend"]).splitlines() if re.match(r"  \w+=\w+ ", line)}
    for text in default:
        failures.check(f"`{text}`" in markdown, f"the page has the default {text}")
    suites = [re.search(r"--suite NAME +([\w,\s]+);", pages[command]).group(1)
              for command in ("check", "ascend")]
    for suite in re.split(r",\s+|\s+or\s+", " or ".join(suites)):
        failures.check(f"\n| `{suite}` |" in markdown, f"the page has the suite {suite}")
    return failures.finish(250)


if __name__ == "__main__":
    sys.exit(main())

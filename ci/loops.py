"""Innermost loops with multiply-adds, from objdump -d: instructions per multiply-add.

SPDX-License-Identifier: Apache-2.0

A loop is what lies between a jump backwards and its target; it is innermost when no other loop lies
inside it. Loops of one function that hold equally many multiply-adds are taken together: one line
`loop FUNCTION/MULTIPLY-ADDS INSTRUCTIONS-PER-MULTIPLY-ADD` each, FUNCTION without the suffixes that
the compiler adds to its copies.
"""
import re
import sys

FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:")
LINE = re.compile(r"^ *([0-9a-f]+):\t(\S+)(?: +([0-9a-f]+) <)?")
MULTIPLY_ADD = re.compile(r"^(\{\S+\} )?(vfn?m(add|sub)\d+[ps][sd]|vdpbf16ps)$")


def innermost_loops(code):
    """(instructions, multiply-adds) of each; code is a list of (address, mnemonic, target)."""
    index = {address: i for i, (address, _, _) in enumerate(code)}
    loops = set()
    for i, (_, mnemonic, target) in enumerate(code):
        if mnemonic.startswith("j") and target in index and index[target] <= i:
            loops.add((index[target], i))
    for first, last in loops:
        inside = [l for l in loops if l != (first, last) and first <= l[0] and l[1] <= last]
        if not inside:
            body = code[first : last + 1]
            yield len(body), sum(bool(MULTIPLY_ADD.match(m)) for _, m, _ in body)


def main():
    functions = {}
    code = []
    for line in sys.stdin:
        start = FUNCTION.match(line)
        if start:
            name = re.sub(r"\.(constprop|isra|part|cold)(\.\d+)?|\.\d+", "", start.group(1))
            code = functions.setdefault(name, []) if name in functions else []
            functions[name] = code
            continue
        found = LINE.match(line)
        if found:
            target = int(found.group(3), 16) if found.group(3) else None
            code.append((int(found.group(1), 16), found.group(2), target))
    for name in sorted(functions):
        kinds = {}
        for n_instructions, n_multiply_adds in innermost_loops(functions[name]):
            if n_multiply_adds > 0:
                kind = kinds.setdefault(n_multiply_adds, [0, 0])
                kind[0] += n_instructions
                kind[1] += n_multiply_adds
        for n_multiply_adds, kind in sorted(kinds.items()):
            print(f"loop {name}/{n_multiply_adds} {kind[0] / kind[1]:.4f}")


main()

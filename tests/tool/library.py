"""The shared library through ctypes, its structs and numbers read from the header itself.

SPDX-License-Identifier: Apache-2.0

    splitkv = Library("include/splitkv/splitkv.h", "build/src/libsplitkv.so")
    problem = splitkv.struct("splitkv_problem", n_heads_q=8, ...)
    splitkv.SPLITKV_FLAG_CAUSAL
"""
import ctypes
import re

TYPES = {
    "size_t": ctypes.c_size_t,
    "int": ctypes.c_int,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}


class Error(Exception):
    """What the library refused: .status is the enumerator's name."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


class Library:

    def __init__(self, header, path):
        with open(header, encoding="utf-8") as file:
            text = re.sub(r"/\*.*?\*/", " ", file.read(), flags=re.S)
        self.library = ctypes.CDLL(path)
        self.structs = {}
        self.enums = set()
        self.find_numbers(text)
        for match in re.finditer(r"typedef struct (\w+) \{(.*?)\} \1;", text, flags=re.S):
            self.add_struct(match[1], match[2])

    def find_numbers(self, text):
        for name, number in re.findall(r"#define (SPLITKV_\w+) (\d+)u?\s", text):
            setattr(self, name, int(number))
        self.status_names = {}
        for name, number in re.findall(r"X\((SPLITKV_\w+), (\d+),", text):
            setattr(self, name, int(number))
            self.status_names[int(number)] = name
        for match in re.finditer(r"typedef enum (\w+) \{(.*?)\} \1;", text, flags=re.S):
            self.enums.add(match[1])
            for name, number in re.findall(r"(SPLITKV_\w+)\s*=\s*(\d+)", match[2]):
                setattr(self, name, int(number))

    def add_struct(self, name, body):
        fields = []
        for declaration in filter(None, map(str.strip, body.split(";"))):
            if "(" in declaration:  # a pointer to a function
                fields.append((re.search(r"\(\*(\w+)\)", declaration)[1], ctypes.c_void_p))
                continue
            kind, rest = re.match(r"(?:const )?(\w+)\s+(.*)", declaration, flags=re.S).groups()
            for declarator in rest.split(","):
                fields.append(self.field(name, kind, declarator.strip()))
        self.structs[name] = type(name, (ctypes.Structure,), {"_fields_": fields})

    def field(self, struct, kind, declarator):
        star, name, length = re.fullmatch(r"(\*?)(\w+)(?:\[(\d+)\])?", declarator).groups()
        if star:
            return name, ctypes.c_void_p
        if kind == "char":
            return name, ctypes.c_char * int(length)
        if kind in self.enums:
            return name, ctypes.c_int
        if kind in TYPES:
            return name, TYPES[kind]
        raise TypeError(f"{struct}.{name}: {kind} is no type that this knows")

    def struct(self, name, **values):
        """A zeroed struct with its size and these fields set."""
        struct = self.structs[name]()
        if hasattr(struct, "struct_size"):
            struct.struct_size = ctypes.sizeof(struct)
        for field, value in values.items():
            if field not in dict(struct._fields_):
                raise AttributeError(f"{name} has no {field}")
            setattr(struct, field, value)
        return struct

    def call(self, function, *arguments):
        """Calls a function whose last argument is a splitkv_error."""
        error = self.struct("splitkv_error")
        arguments = [ctypes.byref(a) if isinstance(a, (ctypes.Structure, ctypes.c_void_p)) else a
                     for a in arguments]
        status = getattr(self.library, function)(*arguments, ctypes.byref(error))
        if status != self.SPLITKV_OK:
            raise Error(self.status_names.get(status, status), error.message.decode())

    def create_plan(self, problem, batch):
        plan = ctypes.c_void_p()
        self.call("splitkv_plan_create", problem, batch, None, plan)
        return plan

    def workspace_bytes(self, plan):
        size = self.library.splitkv_plan_workspace_bytes
        size.restype = ctypes.c_size_t
        return size(plan)

    def run(self, plan, problem, tensors, workspace, workspace_bytes):
        """plan and workspace: addresses."""
        self.call("splitkv_run", ctypes.cast(plan, ctypes.POINTER(ctypes.c_char)), problem, tensors,
                  ctypes.cast(workspace, ctypes.POINTER(ctypes.c_char)),
                  ctypes.c_size_t(workspace_bytes), None)

    def destroy_plan(self, plan):
        self.library.splitkv_plan_destroy.restype = None
        self.library.splitkv_plan_destroy(plan)

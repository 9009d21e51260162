"""What a kernel needs on a GPU that is not here: the compiler is asked, nothing is launched.

    job = compile_job(kernel, {"rate": "fp32"}, dtype="bf16", warps=8, DK=128, DV=128, CHUNK=64)
    (found,) = resources([job])
    found.registers, found.spilled, found.shared

Triton's wheel carries NVIDIA's assembler and its reader, so that any Linux machine can do this. A
process that interprets cannot compile: the work is done in another one, on a copy of the source.
"""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

CAPABILITY = 90  # compute capability 9.0: NVIDIA's H100 and H200
# NVIDIA, CUDA C++ Programming Guide, technical specifications of compute capability 9.0
REGISTER_LIMIT = 255  # of 32 bits, per thread
SHARED_LIMIT = 232448  # bytes, per program: 227 KB
WARP = 32  # threads

HEADER = "import triton\nimport triton.language as tl\n\n\n"
ALIGNED = [["tt.divisibility", 16]]


class Resources(NamedTuple):
    """One program's needs. `refused` is the compiler's sentence where it did not compile."""

    registers: int = 0  # per thread
    spilled: int = 0  # bytes per thread that found no register
    shared: int = 0  # bytes
    refused: str = ""

    @property
    def fits(self) -> bool:
        return not self.refused and self.spilled == 0 and self.shared <= SHARED_LIMIT


def compile_job(
    kernel, types=None, *, dtype="fp32", warps=4, stages=1, helpers=(), **constants
) -> dict:
    """What to compile: a Triton kernel, the types of its arguments, its tl.constexpr constants.

    types    Triton's names where the argument's own name does not tell: {"rate": "fp32"}. Else
             NAME_ptr points to `dtype`, NAME_strides are four whole numbers, the last of them 1,
             and all others are whole numbers.
    Pointers and whole numbers are taken to be multiples of 16, as they are for large tensors.
    """
    function = kernel.fn
    if function.__module__ == "__main__":  # a notebook
        text = HEADER + "\n\n".join(inspect.getsource(x.fn) for x in (*helpers, kernel))
    else:
        text = inspect.getsource(inspect.getmodule(function))
    return {
        "text": text,
        "kernel": function.__name__,
        "types": types or {},
        "dtype": dtype,
        "options": {"num_warps": warps, "num_stages": stages},
        "constants": constants,
    }


def resources(jobs: list[dict]) -> list[Resources]:
    """Compile each job for compute capability 9.0 and read what one program of it needs.

    Errors: RuntimeError, with the end of what it said, where the other process fails.
    """
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "jobs.json")
        path.write_text(json.dumps(jobs), encoding="utf-8")
        command = [sys.executable, "-P", __file__, str(path)]  # -P: our folder hides no module
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"compiling failed: {run.stderr.strip()[-1000:]}")
    return [Resources(**found) for found in json.loads(run.stdout)]


# ------------------------------------------------------------------- in the process that compiles


def _resources(job: dict, path: Path) -> dict:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler.errors import CompilationError

    path.write_text(job["text"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = _source(getattr(module, job["kernel"]), job)
    try:
        target = GPUTarget("cuda", CAPABILITY, WARP)
        compiled = triton.compile(source, target=target, options=job["options"])
    except CompilationError as error:
        return {"refused": str(error).strip().splitlines()[-1]}
    registers, stack, local = _usage(compiled.asm["cubin"], path.with_suffix(".cubin"))
    shared = compiled.metadata.shared
    return {"registers": registers, "spilled": stack + local, "shared": shared}


def _source(kernel, job: dict):
    """The kernel with a type for each argument: what a launch with real tensors would compile."""
    from triton.compiler import ASTSource

    types, constants, attributes = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        kind = job["types"].get(name) or _kind(name, job["dtype"])
        if name in job["constants"]:
            kind, constants[place,] = "constexpr", job["constants"][name]
        elif isinstance(kind, list):  # strides
            last = len(kind) - 1
            kind, constants[place, last] = (*kind[:last], "constexpr"), 1
            attributes |= {(place, i): ALIGNED for i in range(last)}
        elif kind.startswith("*") or kind == "i32":
            attributes[place,] = ALIGNED
        types[name] = kind
    return ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=attributes)


def _kind(name: str, dtype: str):
    if name.endswith("_ptr"):
        return "*" + dtype
    return ["i32"] * 4 if name.endswith("_strides") else "i32"


def _usage(cubin: bytes, path: Path) -> tuple[int, ...]:
    """Registers, and bytes of stack and of local memory, per thread; NVIDIA's tool reads them."""
    import triton.backends.nvidia

    path.write_bytes(cubin)
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    command = [str(tool), "-res-usage", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said)
    return tuple(map(int, found.groups()))


if __name__ == "__main__":
    list_of_jobs = Path(sys.argv[1])
    print(
        json.dumps(
            [
                _resources(job, list_of_jobs.with_name(f"kernel_{number}.py"))
                for number, job in enumerate(json.loads(list_of_jobs.read_text(encoding="utf-8")))
            ]
        )
    )

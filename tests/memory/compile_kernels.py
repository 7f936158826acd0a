"""Compiles the Triton kernels for GPUs that need not be there: ``python -m tests.memory.compile_kernels``.

Prints a line of JSON per kernel and architecture: the bytes of shared memory it takes, and whether its
products run on tensor cores.
"""

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trime_fairseq.memory import triton_kernels

TOKENS = ("query_targets", "key_tokens", "rows")
SLICES = {"fp16": 64, "bf16": 64, "fp32": 32}


def compiled(kernel, dtype, architecture, stages):
    """A kernel as ``memory.triton_lse`` launches it for 1,024 dimensions and many queries."""
    constants = {"BM": 128, "BN": 64, "BD": SLICES[dtype], "D": 1024}
    if "SPLIT" in kernel.arg_names:
        constants["SPLIT"] = 2048

    def type_of(name):
        if name in constants:
            return "constexpr"
        if name in ("queries", "keys", "out"):
            return f"*{dtype}"
        if name in TOKENS:
            return "*i32"
        is_number = name.startswith(("num_", "first_", "query_", "key_"))
        return "i32" if is_number else "fp32" if name == "scale" else "*fp32"

    signature = {name: type_of(name) for name in kernel.arg_names}
    index = {name: (number,) for number, name in enumerate(kernel.arg_names)}
    aligned = {index[name]: [["tt.divisibility", 16]] for name, kind in signature.items() if "*" in kind}
    values = {index[name]: value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    options = {"num_warps": 4, "num_stages": stages}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def main():
    for architecture, stages in ((86, 2), (90, 3)):
        for kernel in (triton_kernels.forward, triton_kernels.gradient):
            result = compiled(kernel, "bf16", architecture, stages)
            found = {"kernel": kernel.fn.__name__, "architecture": architecture}
            found["shared"] = result.metadata.shared
            found["tensor_cores"] = any(word in result.asm["ptx"] for word in ("mma.sync", "wgmma"))
            sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

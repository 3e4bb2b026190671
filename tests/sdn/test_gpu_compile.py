"""The Triton kernels compile for Hopper on a machine without a GPU, and read memory as their docstrings promise.

The interpreter runs kernels as Python and does not check what the compiler checks: types that a branch may not change,
compile-time constants, shapes. What this cannot tell is speed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
triton = pytest.importorskip("triton", minversion="3.3")

POINTERS = {
    "current": ("I", "s", "grad", "dI"),
    "real": ("seams", "assumed", "reached", "reached_now", "last", "taus", "v_ths", "u_rs", "u0", "sums", "offset",
             "slope", "mem", "v_th"),
    "weights": ("weights",),
}  # fmt: skip
SIZES = ("R", "H", "L", "chunk", "chunks", "d", "k")
LIF = {"SCALED": True, "SOFT": False, "RAGGED": False, "SEAM": 128, "PSI": "triangle", "SHARP": 1.0}
KERNELS = {
    "lif_guess": ("gpu_lif", [{"FROM_ZERO": True, "EARLY": 0}, {"FROM_ZERO": False, "EARLY": 64, "RAGGED": True}]),
    "lif_repair": ("gpu_lif", [{}]),
    "lif_settle": ("gpu_lif", [{}]),
    "lif_back_local": ("gpu_lif_grad", [{"SUMS": True}, {"SUMS": True, "PSI": "sigmoid", "SHARP": 4.0}]),
    "lif_back": (
        "gpu_lif_grad",
        [
            {"SUMS": True, "ENDS": False},
            {"SUMS": False, "ENDS": True, "SOFT": True},
            {"SUMS": True, "ENDS": False, "PSI": "atan", "SHARP": 3.1},
        ],
    ),
    "sdn_spikes": (
        "gpu_sdn",
        [
            {"KEEP": True, "LAYERS": 1, "D": 8, "K": 8, "STEPS": 1024},
            {"KEEP": True, "LAYERS": 2, "D": 8, "K": 4, "STEPS": 256},
        ],
    ),
    "sdn_back": ("gpu_sdn", [{"SUMS": True, "STEPS": 1024}, {"SUMS": True, "STEPS": 1024, "PSI": "rectangle"}]),
}


def compiled(function, dtype: str, constants: dict[str, object], warps: int, exact: bool):
    real = "fp64" if dtype == "fp64" else "fp32"
    types = dict.fromkeys(SIZES, "i32")
    for names, kind in zip(POINTERS.values(), (dtype, real, "fp32"), strict=True):
        types |= dict.fromkeys(names, f"*{kind}")
    names = function.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    aligned = [n for n in names if n in types and (types[n][0] == "*" or n in ("R", "H", "L", "chunk"))]
    aligned = [n for n in aligned if n not in constants and not (n == "L" and constants.get("RAGGED"))]
    source = triton.compiler.ASTSource(
        function,
        {n: "constexpr" if n in constants else types[n] for n in names},
        {(names.index(n),): value for n, value in constants.items()},
        {(names.index(n),): [["tt.divisibility", 16]] for n in aligned},
    )
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    return triton.compile(source, target=target, options={"num_warps": warps, "enable_fp_fusion": not exact})


def stack_bytes(cubin: bytes, folder: Path) -> int | None:
    """Bytes of local memory a thread uses, by the disassembler that comes with Triton; None if it does not."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        return None
    (folder / "kernel.cubin").write_bytes(cubin)
    text = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True).stdout
    return int(text.split("STACK:")[1].split()[0])


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("name", KERNELS)
def test_compiles_for_hopper(name, dtype, tmp_path):
    file, variants = KERNELS[name]
    module = pytest.importorskip(f"sdn.kernels.{file}")
    for variant in variants:
        lif = file != "gpu_sdn"
        kernel = compiled(getattr(module, name), dtype, LIF | variant, 1 if lif else 4, lif)
        if dtype == "fp64":
            continue
        assert stack_bytes(kernel.asm["cubin"], tmp_path) in (0, None), "registers spill"
        if lif and not variant.get("RAGGED"):
            assert ".v4.b32" in kernel.asm["ptx"], "lanes do not read 16 bytes at once"
        if lif:
            assert "fma.rn.f32" not in kernel.asm["ptx"], "contraction would change spikes"


@pytest.mark.parametrize("name", KERNELS)
def test_compiles_for_sizes_of_one(name):
    """Triton makes an argument of 1 a constant of the kernel, which then has other types."""
    file, variants = KERNELS[name]
    module = pytest.importorskip(f"sdn.kernels.{file}")
    ones = dict.fromkeys(("R", "H", "L", "chunks", "d", "k"), 1)
    compiled(getattr(module, name), "fp32", LIF | variants[0] | ones | {"RAGGED": True, "D": 1, "K": 1}, 1, False)

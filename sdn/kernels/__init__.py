"""Fast kernels of the neurons, one module per way to compute: ``cpu`` (numba), ``gpu`` (Triton), ``plain`` (PyTorch).

All modules offer the same four functions on rows: ``I`` is ``(R, L)``, contiguous, R = B * H, and row r belongs to
channel r % H. Per-channel vectors ``(H,)`` and potentials are float64 where I is float64 and float32 otherwise, so the
recurrence runs in float32 at least; spikes and dI have the dtype of I. R and L may be 0, NaN never spikes.

``lif_forward(I, tau, v_th, u_r, soft, u0) -> (s, u, seams)``
    x_t = I_t / v_th (``v_th`` None: x = I); the recurrence of :mod:`sdn.lif` from ``u0 (R,)`` (None: zero), soft reset
    if ``soft``. ``u (R,)`` is the potential after the last step and ``seams (R, ceil(L / SEAM))`` the potential
    *before* the steps 0, SEAM, 2 SEAM ...: all the backward pass needs, since from its seam every block of SEAM steps
    is recomputed without the others. ``tau``, ``v_th``, ``u_r``: ``(H,)``.

``lif_backward(grad, I, seams, tau, v_th, u_r, soft, through_time, want_sums, surrogate=TRIANGLE) -> (dI, sums)``
    With g_t the gradient at u'_t, the potential before the spike, and psi the ``surrogate`` of :mod:`sdn.surrogate`::

        g_t = grad_t psi(u'_t - 1) + through_time * (soft or not s_t) * tau * g_{t+1},      dI = g / v_th

    ``sums (3, R)``: per row the sums over t that make up the gradients of tau, v_th and u_r (``(3, 0)`` unless asked)::

        sum g_t u_{t-1},    - sum g_t I_t / v_th^2   (0 where v_th is None),
        sum s_t tau g_{t+1}   (0 unless through_time and hard)

``sdn_forward(I, v_th, weights, (d, k, layers), keep_mem) -> (s, mem)``
    A reduced SDN of one or two layers, width d and kernel k, on x = I / v_th, zero before the first step::

        a_t = relu(conv_weight (d, k) @ x[t-k .. t-1] + conv_bias (d,))
        h_t = relu(mix_weight (d, d) @ a_t + mix_bias (d,))              a skip connection is folded into mix_weight
        a_t = relu(sum_j conv_weight_2[:, j] h[t-k+1 .. t][:, j] + conv_bias_2)    of a second layer; h is zero before
        h_t = relu(mix_weight_2 @ a_t + mix_bias_2)                                the first step
        mem_t = out_weight (d,) . h_t + out_bias ()                       s_t = H(mem_t + x_t - 1)

    ``weights``: these tensors in this order (:meth:`sdn.network.ReducedSDN.flat`), in the dtype of the potentials.
    ``mem (R, L)`` has the dtype of the potentials; ``(0, L)`` unless ``keep_mem``.

``sdn_backward(grad, I, mem, v_th, want_sums, surrogate=TRIANGLE) -> (dI, sums)``
    Elementwise, mem a constant: g_t = grad_t psi(mem_t + x_t - 1), dI = g / v_th; ``sums (R,)``: -sum g_t I_t / v_th^2.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType

SEAM = 128
"""Steps between two stored potentials: 1/128 of the memory of I, and as many steps as one block recomputes."""

NAMES = ("auto", "reference", "plain", "cpu", "triton")
_PACKAGE = {"cpu": "numba", "triton": "triton>=3.3"}
_chosen = "auto"


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Within the block all neurons compute by ``name``, one of :data:`NAMES`; for tests and benchmarks.

    "reference" is the naive recurrence and the layered SDN. The choice is for the whole process, all threads.
    """
    global _chosen
    if name not in NAMES:
        raise ValueError(f"unknown kernels {name!r}; choose one of {', '.join(NAMES)}")
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


def chosen() -> str:
    """The name in force; "auto" outside of :func:`use`."""
    return _chosen


def pick(device: str) -> ModuleType:
    """The kernels for tensors on a type of device: the fastest whose package is installed, or what :func:`use` says."""
    name = {"cpu": "cpu", "cuda": "triton"}.get(device, "plain") if _chosen == "auto" else _chosen
    return (name in _PACKAGE and _compiled(name)) or importlib.import_module(".plain", __name__)


@functools.cache
def _compiled(name: str) -> ModuleType | None:
    try:
        return importlib.import_module({"cpu": ".cpu", "triton": ".gpu"}[name], __name__)
    except ImportError as error:
        cure = "unset it" if "NUMBA_DISABLE_JIT" in str(error) else f"`pip install '{_PACKAGE[name]}'`"
        warnings.warn(
            f"spiking neurons run in plain PyTorch, several times slower than they could: {error}. "
            f"To make them faster, {cure}.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None

"""Errors of the processes of a run about each other."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from sdn.errors import UserError
from src.peers import lost

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"
GONE = (
    RuntimeError(f"{GLOO}pair.cc:538] Connection closed by peer [10.77.0.2]:4000. This may indicate a failure"),
    RuntimeError(f"{GLOO}pair.cc:538] Read error [10.77.0.2]:4000: Connection reset by peer. This is typically"),
    RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 60000ms for recv operation to complete"),
    RuntimeError(f"Gloo connectFullMesh failed with {GLOO}pair.cc:144] timed out connecting"),
    RuntimeError("Application timeout caused pair closure (gloo)"),
    dist.DistStoreError("Timed out after 31 seconds waiting for clients. 1/2 clients joined."),
    dist.DistNetworkError("Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server crash?"),
    dist.DistNetworkError(
        "The client socket has timed out after 600000ms while trying to connect to (10.0.0.1, 29511)."
    ),
    dist.DistBackendError("NCCL error in: a.cpp:10, remote process exited, ncclRemoteError: A call failed"),
)


@pytest.mark.parametrize("error", GONE, ids=range(len(GONE)))
def test_a_process_that_is_gone(error: Exception):
    said = lost(error)
    assert said.startswith("another process of this run ended or does not answer any more (")
    assert "/pytorch" not in said
    assert "\n" not in said


def test_an_address_that_is_wrong():
    said = lost(RuntimeError(f"{GLOO}device.cc:84] ifa != nullptr. Unable to find address for: eth7"))
    assert said.startswith("the processes of this run cannot reach each other")
    assert lost(dist.DistNetworkError("The server socket has failed to listen on any local address. port: 29511"))


def test_the_error_behind_an_error():
    error = ValueError("while saving")
    error.__cause__ = GONE[0]
    assert "another process" in lost(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 timed out"), ValueError("gloo"), UserError("no gloo"), TimeoutError("timed out")],
)
def test_other_errors_stay_what_they_are(error: Exception):
    assert lost(error) is None

"""Norms in the layout (B, H, L): same numbers as torch's own, padding left out on request."""

import multiprocessing

import pytest
import torch
from torch import nn

from models.spike.norms import BatchNorm, LayerNorm, fold, make_norm, normed
from sdn.errors import UserError


def _spread(norm):
    torch.manual_seed(0)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.bias.data.normal_()
    return norm.double()


def test_layer_norm_is_over_channels_with_gradients():
    norm = _spread(LayerNorm(6))
    x = torch.randn(3, 6, 7, dtype=torch.float64, requires_grad=True)
    want = nn.functional.layer_norm(x.transpose(1, 2), (6,), norm.weight, norm.bias, norm.eps).transpose(1, 2)
    got = norm(x)
    torch.testing.assert_close(got, want)
    wrt, weight = (x, norm.weight, norm.bias), torch.randn_like(x)
    for a, b in zip(torch.autograd.grad(got, wrt, weight), torch.autograd.grad(want, wrt, weight), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(torch.stack([norm(x_t) for x_t in x.unbind(-1)], -1), got)


def test_batch_norm_without_a_mask_is_torchs_own_and_a_full_mask_changes_nothing():
    ours, torchs = _spread(BatchNorm(4)), _spread(nn.BatchNorm1d(4))
    x = torch.randn(3, 4, 10, dtype=torch.float64)
    want = torchs(x)
    torch.testing.assert_close(ours(x), want)
    masked = _spread(BatchNorm(4))
    torch.testing.assert_close(masked(x, torch.ones(3, 1, 10).double()), want)
    for name, buffer in torchs.named_buffers():
        torch.testing.assert_close(dict(masked.named_buffers())[name], buffer)


def test_batch_norm_statistics_leave_masked_samples_out():
    norm = _spread(BatchNorm(4))
    x = torch.randn(2, 4, 10, dtype=torch.float64)
    mask = (torch.arange(10) < torch.tensor([[10], [6]])).unsqueeze(1).double()
    flat = torch.cat((x[0], x[1, :, :6]), 1).unsqueeze(0)
    want = _spread(BatchNorm(4))(flat)
    got = norm(x, mask)
    torch.testing.assert_close(torch.cat((got[0], got[1, :, :6]), 1).unsqueeze(0), want)


def test_unknown_norm_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="batch, layer, none"):
        make_norm("instance", 4)


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_masked_statistics_follow_momentum_as_torchs_do(momentum):
    """None is the plain average over the batches; a batch without a real sample counts for nothing."""
    ours, torchs = (kind(4, momentum=momentum).double() for kind in (BatchNorm, nn.BatchNorm1d))
    for i in range(3):
        x = torch.randn(1, 4, 10, dtype=torch.float64)
        torchs(x)
        ours(torch.cat([x, torch.full_like(x, 100.0)], -1), (torch.arange(20) < 10).view(1, 1, 20).double())
        if i == 1:
            assert ours(x, torch.zeros(1, 1, 10).double()).isfinite().all()
    for name, buffer in torchs.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer)


def _sync_worker(rank, file, x, mask, queue):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    norm = nn.SyncBatchNorm.convert_sync_batchnorm(BatchNorm(4).double())
    mine = x[rank : rank + 1].clone().requires_grad_()
    y = normed(norm, mine, mask[rank : rank + 1])
    (y * mask[rank : rank + 1]).pow(3).sum().backward()
    queue.put((rank, y.detach().numpy(), mine.grad.numpy(), norm.running_var.numpy()))
    torch.distributed.destroy_process_group()


def test_synchronised_batch_norm_of_masked_batches(tmp_path):
    """Two processes with a sequence each give what one process gives with both, gradients included."""
    torch.manual_seed(0)
    x, mask = torch.randn(2, 4, 10, dtype=torch.float64), (torch.arange(10) < torch.tensor([[10], [4]])).unsqueeze(1)
    mask = mask.double()
    one, leaf = BatchNorm(4).double(), x.clone().requires_grad_()
    y = one(leaf, mask)
    (y * mask).pow(3).sum().backward()
    alone = nn.SyncBatchNorm.convert_sync_batchnorm(BatchNorm(4).double())
    torch.testing.assert_close(normed(alone, x, mask), y)
    scale, shift = fold(alone)
    torch.testing.assert_close(normed(alone.eval(), x, mask), x * scale[:, None] + shift[:, None])

    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_sync_worker, args=(r, tmp_path / "store", x, mask, queue)) for r in range(2)]
    for worker in workers:
        worker.start()
    for _ in workers:
        rank, theirs, grad, var = queue.get(timeout=240)
        torch.testing.assert_close(torch.from_numpy(theirs)[0], y[rank].detach())
        torch.testing.assert_close(torch.from_numpy(grad)[0], leaf.grad[rank])
        torch.testing.assert_close(torch.from_numpy(var), one.running_var)
    for worker in workers:
        worker.join(60)

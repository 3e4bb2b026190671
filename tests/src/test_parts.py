"""Encoders, decoders, metrics, parameter groups, schedules: each against a naive form."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sdn.errors import UserError
from src.callbacks.firing_rate import count_spikes
from src.optim import parameter_groups
from src.schedule import cosine_warmup, linear_warmup, make_scheduler, warmup_steps
from src.tasks.classification import Classification
from src.tasks.decoders import RetrievalDecoder, SequenceDecoder, summarise
from src.tasks.encoders import EmbeddingEncoder, LinearEncoder
from src.tasks.metrics import Totals

SHAPES = SimpleNamespace(d_input=3, d_output=4, n_tokens=None, l_max=7)
TOKENS = SimpleNamespace(d_input=1, d_output=4, n_tokens=11, l_max=7)


# -- encoders and decoders ----------------------------------------------------------------------------------------


def test_encoders_fit_their_data_only():
    assert LinearEncoder(SHAPES, 5)(torch.zeros(2, 7, 3)).shape == (2, 7, 5)
    assert EmbeddingEncoder(TOKENS, 5)(torch.zeros(2, 7, dtype=torch.long)).shape == (2, 7, 5)
    with pytest.raises(UserError, match="encoder=embedding"):
        LinearEncoder(TOKENS, 5)
    with pytest.raises(UserError, match="encoder=linear"):
        EmbeddingEncoder(SHAPES, 5)


@pytest.mark.parametrize("mode", ["pool", "last"])
def test_summary_is_that_of_each_sequence_alone(mode: str):
    h, lengths = torch.randn(3, 7, 5), torch.tensor([7, 1, 4])
    h[1, 1:] = float("nan")  # whatever stands in the padding does not matter
    alone = [summarise(row[:n].unsqueeze(0), mode)[0] for row, n in zip(h, lengths, strict=True)]
    torch.testing.assert_close(summarise(h, mode, lengths), torch.stack(alone))


def test_without_lengths_every_step_is_real():
    decoder, h = SequenceDecoder(SHAPES, 5, use_lengths=True), torch.randn(2, 7, 5)
    torch.testing.assert_close(decoder(h), decoder(h, torch.tensor([7, 7])))
    with pytest.raises(UserError, match="pool or last"):
        SequenceDecoder(SHAPES, 5, mode="sum")


@pytest.mark.parametrize("nli", [True, False])
def test_retrieval_pairs_first_and_second_half(nli: bool):
    decoder = RetrievalDecoder(SHAPES, 5, use_lengths=False, nli=nli)
    h = torch.randn(6, 7, 5)
    a, b = h[:3].mean(1), h[3:].mean(1)
    features = torch.cat([a, b, a - b, a * b] if nli else [a, b], 1)
    torch.testing.assert_close(decoder(h), decoder.classifier(features))
    assert decoder(h).shape == (3, 4)


# -- metrics ------------------------------------------------------------------------------------------------------


def test_totals_are_means_over_samples_not_batches():
    task, totals = Classification(SHAPES, 5), Totals()
    logits, y = torch.randn(10, 4), torch.randint(4, (10,))
    for part in (slice(0, 7), slice(7, 10)):
        totals.add(task(logits[part], y[part], {}))
    means = totals.means()
    assert means["loss"] == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-6)
    assert means["accuracy"] == pytest.approx((logits.argmax(1) == y).float().mean().item())


def test_weightless_samples_do_not_count():
    task = Classification(SHAPES, 5)
    logits, y = torch.randn(4, 4), torch.randint(4, (4,))
    weighted = task(logits, y, {"weight": torch.tensor([1.0, 1, 0, 1])})
    kept = [0, 1, 3]
    for name, pair in task(logits[kept], y[kept], {}).items():
        torch.testing.assert_close(weighted[name], pair)


def test_totals_survive_a_checkpoint():
    totals, again = Totals(), Totals()
    totals.add({"loss": (torch.tensor(3.0), torch.tensor(2.0))})
    again.load_state_dict(totals.state_dict(), torch.device("cpu"))
    assert again.means() == totals.means() == {"loss": 1.5}
    again.add({"loss": (torch.tensor(float("nan")), torch.tensor(1.0))})
    assert totals.finite()
    assert not again.finite()


def test_spike_count_leaves_out_padding_and_repeats():
    spikes = torch.ones(2, 3, 5)
    total, steps = count_spikes(spikes, {"lengths": torch.tensor([5, 2])})
    assert (total.item(), steps.item()) == (21, 21)
    total, steps = count_spikes(spikes * 0.0, {"weight": torch.tensor([1.0, 0.0])})
    assert (total.item(), steps.item()) == (0, 15)
    total, steps = count_spikes(spikes, {})
    assert (total.item(), steps.item()) == (30, 30)


# -- parameter groups ---------------------------------------------------------------------------------------------


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.norm, self.table = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Embedding(4, 2)
        self.ssm = nn.Parameter(torch.zeros(5))
        self.ssm._optim = {"lr": 1e-3, "weight_decay": 0.0}
        self.c = nn.Parameter(torch.zeros(6))
        self.c._optim = {"lr": 1e-3}
        self.free = nn.Parameter(torch.zeros(7))
        self.frozen = nn.Parameter(torch.zeros(8), requires_grad=False)


def test_groups_by_rule():
    model = nn.ModuleDict({"backbone": Backbone(), "decoder": nn.Linear(3, 2)})
    groups = parameter_groups(model.parameters(), model["backbone"], 0.01, 0.05)
    found = {(g["lr"], g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in groups}
    assert found == {
        (0.01, 0.05): 6 + 7 + 8,  # mix.weight, free, and the decoder with its bias
        (0.01, 0.0): 3 + 6 + 8,  # mix.bias, norm, embedding
        (1e-3, 0.0): 5,
        (1e-3, 0.05): 6,
    }
    assert groups[0]["name"] == "main"
    assert len({g["name"] for g in groups}) == len(groups)


# -- schedules ----------------------------------------------------------------------------------------------------


def factors(make: object, steps: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_with_warmup_never_rises_again():
    found = factors(cosine_warmup, 150, num_training_steps=100, warmup=10)
    for step in range(10):
        assert found[step] == pytest.approx(step / 10)
    for step in range(10, 100):
        assert found[step] == pytest.approx((1 + math.cos(math.pi * (step - 10) / 90)) / 2)
    assert found[100:] == [0.0] * 50


def test_the_released_cosine_rises_again():
    found = factors(cosine_warmup, 120, num_training_steps=100, warmup=10, rebound=True)
    assert found[:100] == pytest.approx(factors(cosine_warmup, 100, num_training_steps=100, warmup=10))
    for step in range(100, 120):
        assert found[step] == pytest.approx((1 + math.cos(math.pi * (step - 10) / 90)) / 2)
    mnist = (1 + math.cos(math.pi * (108_000 - 1_000) / (90_000 - 1_000))) / 2
    assert mnist == pytest.approx(0.098, abs=5e-4)  # what the docstring says of its end


def test_linear_ends_at_zero():
    found = factors(linear_warmup, 12, num_training_steps=10, warmup=0.2)
    assert found == pytest.approx([0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0])


def test_warmup_as_fraction_or_steps(caplog: pytest.LogCaptureFixture):
    assert warmup_steps(0.1, 180_000) == 18_000
    assert warmup_steps(1000, 108_000) == 1000
    assert warmup_steps(0, 10) == 0
    assert not caplog.records
    assert warmup_steps(1000, 20) == 1000
    assert "longer than the run" in caplog.text
    with pytest.raises(UserError):
        warmup_steps(-1, 10)


@pytest.mark.parametrize("name", ["cosine_warmup", "linear_warmup", "constant", "plateau", "multistep"])
def test_every_scheduler_config(name: str):
    from src.config import compose

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = make_scheduler(compose(f"scheduler={name}")["scheduler"], optimizer, lambda: 10, "val/loss", "min")
    assert made["interval"] == ("epoch" if name in ("plateau", "multistep") else "step")


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_every_optimizer_config(name: str):
    from src.config import compose
    from src.optim import make_optimizer

    model = nn.ModuleDict({"backbone": Backbone()})
    assert make_optimizer(compose(f"optimizer={name}")["optimizer"], model, model["backbone"]).param_groups


def test_an_encoder_of_windows_does_not_go_with_a_label_a_step():
    from src.config import compose
    from src.module import SequenceModule

    with pytest.raises(UserError, match="windows"):
        SequenceModule(compose("experiment=spikingssm/qtdb", "encoder=conv"), SHAPES)

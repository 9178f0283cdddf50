"""`run.watch`: which histograms are kept, when, and that the training cannot tell that it is watched."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from tests.support.cuda import Device, fake_torch
from tests.support.spools import of_kind, spooled
from torch import nn
from torch.utils.checkpoint import checkpoint

import allranks
from allranks import _device, _tensors, _watch
from allranks._run import Run
from allranks_bus.events import Kind

Histograms = dict[str, dict[str, Any]]


@pytest.fixture
def run(sdk_home: Path) -> Run:
    return allranks.init(project="p", mode="offline")


def kept(home: Path) -> list[tuple[int, Histograms]]:
    """The records that hold histograms: step, and the histograms by name."""
    return [(event[2], event[3]) for event in of_kind(spooled(home / "spool"), Kind.LOG)]


def hooks_of(model: nn.Module) -> int:
    """How many hooks the parameters of a module have."""
    hooks: list[Any] = [getattr(parameter, "_post_accumulate_grad_hooks") for parameter in model.parameters()]  # noqa: B009
    return sum(len(some or ()) for some in hooks)


def net(layers: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(4, 4) for _ in range(layers)])


def backward(model: Callable[[torch.Tensor], torch.Tensor], times: int = 1, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(times):
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()  # type: ignore[no-untyped-call]


def assert_is_of(histogram: dict[str, Any], tensor: torch.Tensor) -> None:
    """The histogram is that of this tensor."""
    assert histogram["_type"] == "histogram"
    assert histogram["count"] == sum(histogram["counts"]) == tensor.numel()
    assert histogram["min"] == pytest.approx(tensor.min().item())
    assert histogram["max"] == pytest.approx(tensor.max().item())
    assert histogram["mean"] == pytest.approx(tensor.double().mean().item(), abs=1e-9)


NAMES = {"0.weight", "0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize("log", ["gradients", "parameters", "all"])
def test_each_kind_is_kept_under_the_names_of_the_parameters(sdk_home: Path, run: Run, log: str) -> None:
    model = net()
    run.watch(model, log, log_freq=1)
    backward(model)
    ((_, found),) = kept(sdk_home)
    kinds = ["gradients", "parameters"] if log == "all" else [log]
    assert set(found) == {f"{kind}/{name}" for kind in kinds for name in NAMES}
    for name, parameter in model.named_parameters():
        for kind in kinds:
            tensor = parameter.grad if kind == "gradients" else parameter.detach()
            assert tensor is not None
            assert_is_of(found[f"{kind}/{name}"], tensor)


def test_every_so_many_passes_are_looked_at_and_no_others(sdk_home: Path, run: Run) -> None:
    model = net()
    run.watch(model, log_freq=3)
    for step in range(10):
        run.log({"i": step})
        backward(model)
        model.zero_grad()
    assert [step for step, _ in kept(sdk_home)] == [2, 5, 8]
    assert all(set(found) == {f"gradients/{name}" for name in NAMES} for _, found in kept(sdk_home))


def test_histograms_take_no_step_of_their_own(sdk_home: Path, run: Run) -> None:
    model = net()
    run.watch(model, log_freq=1)
    backward(model)
    for _ in range(2):
        run.log({"i": 1})
        backward(model)
    steps = [event[2] for event in spooled(sdk_home / "spool") if event[0] in (Kind.METRICS, Kind.LOG)]
    assert steps == [0, 0, 0, 1, 1]


def test_of_accumulated_gradients_the_sum_is_kept(sdk_home: Path, run: Run) -> None:
    model = net()
    run.watch(model, log_freq=3)
    backward(model, times=3)
    ((_, found),) = kept(sdk_home)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert_is_of(found[f"gradients/{name}"], parameter.grad)


def test_a_pass_that_is_not_looked_at_has_few_hooks(run: Run) -> None:
    model = net(layers=20)
    run.watch(model, log_freq=10)
    backward(model, times=2)
    assert 0 < hooks_of(model) <= 4
    backward(model, times=6)
    assert 0 < hooks_of(model) <= 4
    backward(model, times=2)
    assert hooks_of(model) == 40


def test_what_gets_no_gradient_has_parameters_and_no_gradients(sdk_home: Path, run: Run) -> None:
    model = net()
    model[0].requires_grad_(False)
    model.add_module("unused", nn.Linear(2, 2))
    run.watch(model, "all", log_freq=1)
    backward(nn.Sequential(model[0], model[1]), times=2)
    for _, found in kept(sdk_home):
        gradients = {name for name in found if name.startswith("gradients/")}
        assert gradients == {"gradients/1.weight", "gradients/1.bias"}
        assert len(found) - len(gradients) == 6


def test_a_parameter_that_is_thawed_under_way_comes_in(sdk_home: Path, run: Run) -> None:
    model = net()
    model[0].requires_grad_(False)
    run.watch(model, log_freq=2)
    backward(model, times=2)
    model[0].requires_grad_(True)
    backward(model, times=2)
    assert [len(found) for _, found in kept(sdk_home)] == [2, 4]


def test_a_shared_parameter_is_kept_once(sdk_home: Path, run: Run) -> None:
    model = net()
    model[1].weight = model[0].weight
    run.watch(model, log_freq=1)
    backward(model, times=2)
    assert [set(found) for _, found in kept(sdk_home)] == [
        {"gradients/0.weight", "gradients/0.bias", "gradients/1.bias"} for _ in range(2)
    ]


def test_of_a_sparse_gradient_its_values_are_kept(sdk_home: Path, run: Run) -> None:
    model = nn.Embedding(1000, 4, sparse=True)
    run.watch(model, log_freq=1)
    model(torch.tensor([3, 5])).sum().backward()
    ((_, found),) = kept(sdk_home)
    assert_is_of(found["gradients/weight"], torch.ones(8))


def test_bfloat16_is_counted_like_any_number(sdk_home: Path, run: Run) -> None:
    model = net().to(torch.bfloat16)
    run.watch(model, log_freq=1)
    model(torch.randn(8, 4, dtype=torch.bfloat16)).sum().backward()
    ((_, found),) = kept(sdk_home)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert_is_of(found[f"gradients/{name}"], parameter.grad)


def test_a_large_parameter_is_sampled(sdk_home: Path, run: Run) -> None:
    model = nn.Linear(_watch.MOST_ELEMENTS // 100, 300)
    run.watch(model, log_freq=1)
    model(torch.ones(1, model.in_features)).sum().backward()
    ((_, found),) = kept(sdk_home)
    histogram = found["gradients/weight"]
    assert histogram["sample_of"] == model.weight.numel()
    assert _watch.MOST_ELEMENTS / 2 < histogram["count"] <= _watch.MOST_ELEMENTS


def test_gradients_without_a_finite_number_give_one_warning_and_cost_no_others(
    sdk_home: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    model = net()
    bias: Any = model[1].bias
    run.watch(model, log_freq=1)
    for _ in range(3):
        (model(torch.randn(8, 4)).mean() + (bias * float("nan")).sum()).backward()
    assert [set(found) for _, found in kept(sdk_home)] == [
        {f"gradients/{name}" for name in NAMES - {"1.bias"}} for _ in range(3)
    ]
    assert capfd.readouterr().err.count("gradients/1.bias") == 1


def test_a_watched_module_is_copied_and_pickled_as_if_it_were_not(run: Run) -> None:
    plain, model = net(), net()
    run.watch(model, "all", log_freq=1)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False)):
        assert hooks_of(other) == 0
        backward(other)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert hooks_of(model) == 4


def test_a_compiled_module_is_watched_and_not_compiled_again(sdk_home: Path, run: Run) -> None:
    torch._dynamo.reset()
    model = net()
    compiled: Any = torch.compile(model, backend="aot_eager")
    run.watch(compiled, "all", log_freq=2)
    with torch._dynamo.config.patch(error_on_recompile=True):
        backward(compiled, times=9)
    assert [len(found) for _, found in kept(sdk_home)] == [8] * 4
    assert "gradients/0.weight" in kept(sdk_home)[0][1]


def test_a_module_that_is_compiled_later_stays_watched(sdk_home: Path, run: Run) -> None:
    torch._dynamo.reset()
    model = net()
    run.watch(model, log_freq=4)
    compiled: Any = torch.compile(model, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        backward(compiled, times=9)
    assert [len(found) for _, found in kept(sdk_home)] == [4, 4]


def test_reentrant_checkpoints_do_not_make_one_pass_many(sdk_home: Path, run: Run) -> None:
    model = net(layers=4)
    run.watch(model, "all", log_freq=1)
    for step in range(3):
        run.log({"i": step})
        inputs = torch.randn(8, 4, requires_grad=True)
        for layer in model:
            inputs = checkpoint(layer, inputs, use_reentrant=True)
        inputs.sum().backward()  # type: ignore[no-untyped-call]
    names = [name for _, found in kept(sdk_home) for name in found]
    assert sorted(names) == sorted(
        3 * [f"{k}/{n}" for k in ("gradients", "parameters") for n, _ in model.named_parameters()]
    )


def test_gradients_that_are_asked_for_by_hand_are_no_pass(sdk_home: Path, run: Run) -> None:
    model = net()
    run.watch(model, log_freq=2)
    backward(model)
    for _ in range(5):
        torch.autograd.grad(model(torch.ones(1, 4)).sum(), list(model.parameters()))
    assert kept(sdk_home) == []
    backward(model)
    assert len(kept(sdk_home)) == 1


def test_unwatch_ends_it_for_one_module_or_for_all(sdk_home: Path, run: Run) -> None:
    models = [net(), net(), net()]
    for model in models:
        run.watch(model, log_freq=1)
    run.unwatch(models[0])
    assert [hooks_of(model) for model in models] == [0, 4, 4]
    run.unwatch()
    assert [hooks_of(model) for model in models] == [0, 0, 0]


def test_to_watch_again_takes_the_place_of_what_was(sdk_home: Path, run: Run) -> None:
    model = net()
    run.watch(model, "gradients", log_freq=1)
    run.watch(model, "parameters", log_freq=1)
    assert hooks_of(model) == 4
    backward(model)
    ((_, found),) = kept(sdk_home)
    assert set(found) == {f"parameters/{name}" for name in NAMES}


def test_the_end_of_the_run_takes_the_hooks_away(run: Run) -> None:
    model = net()
    run.watch(model, log_freq=1)
    backward(model)
    run.finish()
    backward(model)
    assert hooks_of(model) == 0


def test_watching_keeps_nobody_alive(run: Run) -> None:
    model = net()
    run.watch(model, log_freq=1)
    backward(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_failure_within_a_hook_does_not_reach_the_training(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    model = net()
    monkeypatch.setattr(run, "note_histograms", fail)
    run.watch(model, log_freq=1)
    backward(model, times=3)
    assert model[0].weight.grad is not None
    assert capfd.readouterr().err.count("training goes on") == 1


@pytest.mark.parametrize(
    ("model", "log", "log_freq"), [("no module", "gradients", 1), (nn.Linear(1, 1), "gradient", 1), (None, None, 0)]
)
def test_what_cannot_be_meant_gives_a_warning(
    run: Run, capfd: pytest.CaptureFixture[str], model: Any, log: Any, log_freq: Any
) -> None:
    run.watch(model, log, log_freq)
    assert capfd.readouterr().err.count("allranks: watch()") == 1


def test_a_frequency_that_is_none_is_told_and_the_usual_one_is_taken(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    model = net()
    run.watch(model, log_freq=0)
    assert "log_freq is a whole number" in capfd.readouterr().err
    assert hooks_of(model) == 4


def test_none_watches_nothing(run: Run) -> None:
    model = net()
    run.watch(model, None)
    assert hooks_of(model) == 0


def test_on_a_device_histograms_are_counted_there_and_kept_when_they_have_come(
    sdk_home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_device(_: object, tensor: torch.Tensor, most: int) -> Any:
        return _device.histogram(torch, tensor.reshape(-1), tensor.numel())

    def on_host(tensor: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    device = Device()
    double = fake_torch(device)
    monkeypatch.setattr(_tensors, "tensor_histogram", on_device)
    monkeypatch.setattr(torch.cuda, "Event", double.cuda.Event)
    monkeypatch.setattr(torch.cuda, "current_stream", double.cuda.current_stream)
    monkeypatch.setattr(torch.cuda, "device", lambda _: device.made_current("cuda:0"))  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(torch, "empty_like", on_host)
    model = net()
    run.watch(model, log_freq=1)
    run.log({"i": 1}, step=41)
    backward(model)
    run.log({"i": 1}, step=42)
    assert kept(sdk_home) == []
    device.run()
    run.finish()
    ((step, found),) = kept(sdk_home)
    assert step == 41
    assert set(found) == {f"gradients/{name}" for name in NAMES}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert_is_of(found[f"gradients/{name}"], parameter.grad)

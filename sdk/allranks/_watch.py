"""`run.watch`: histograms of a module's gradients and parameters, of each rank by itself.

What is hooked is the accumulation of a parameter's gradient (`register_post_accumulate_grad_hook`): it comes once for
each parameter and backward pass, and after it `param.grad` is what this rank has reckoned so far, with the
micro-batches before. DistributedDataParallel averages only then, so these are the gradients of this rank, and nothing
of its buckets or of `no_sync` is touched. Such hooks are no part of a module: it is copied, pickled and compiled as
if there were none.

Most passes are not looked at, and pay for at most four hooks, which count them.

Of what is sharded (fully_shard) each rank keeps its shard, as it is after the ranks have shared their gradients: it
has no others. With a GradScaler gradients are as it has scaled them.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from allranks import _tensors
from allranks._device import Arrivals, OnDevice
from allranks._signals import is_from_handler
from allranks._warnings import warn_once
from allranks.histograms import Unstorable

if TYPE_CHECKING:
    from allranks._run import Run

KINDS: dict[str | None, frozenset[str]] = {
    "gradients": frozenset({"gradients"}),
    "parameters": frozenset({"parameters"}),
    "all": frozenset({"gradients", "parameters"}),
    None: frozenset(),
}
LOG_FREQ = 1000
# Of a larger tensor, so many elements at even distances: a module has hundreds of tensors, all counted in one step.
MOST_ELEMENTS = 131_072
_COUNTING_HOOKS = 4
# What wrappers put between the names of modules.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

_watches: weakref.WeakSet[_Watch] = weakref.WeakSet()


def watch(run: Run, model: Any, log: str | None, log_freq: int) -> None:
    """Keeps histograms of `model` every `log_freq` backward passes; see `Run.watch`. Never raises."""
    try:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(model, torch.nn.Module):
            warn_once("watch model", f"watch() takes a torch module, not a {type(model).__name__}")
            return
        if log not in KINDS:
            warn_once("watch log", f"watch(): log is gradients, parameters, all or None, not {log!r:.40}")
            return
        if isinstance(log_freq, bool) or not isinstance(log_freq, int) or log_freq < 1:
            warn_once("watch freq", f"watch(): log_freq is a whole number from 1, not {log_freq!r:.40}")
            log_freq = LOG_FREQ
        unwatch(run, model)
        if KINDS[log] and run.settings.mode != "disabled":
            _Watch(torch, run, _unwrapped(torch, model), KINDS[log], log_freq).start()
    except Exception as error:
        _tell(error)


def unwatch(run: Run, model: Any = None) -> None:
    """Ends what `watch` began for this module, or for all. Never raises."""
    try:
        torch = sys.modules.get("torch")
        inner = model if torch is None else _unwrapped(torch, model)
        for one in list(_watches):
            if one.is_of(run, inner):
                one.stop()
    except Exception as error:
        _tell(error)


class _Watch:
    """The hooks of one module, for one run. They hold it; it holds neither the run nor the module.

    Backward passes are numbered from 1, and those whose number `log_freq` divides are looked at. A pass begins when a
    parameter gets a gradient for the second time. All parameters have a hook in a pass that is looked at and in the
    one before, in others only a few do.
    """

    def __init__(self, torch: Any, run: Run, model: Any, kinds: frozenset[str], log_freq: int) -> None:
        self._torch = torch
        self._run = weakref.ref(run)
        self._model = weakref.ref(model)
        self._kinds = kinds
        self._log_freq = log_freq
        self._hooks: dict[str, Any] = {}
        self._pass = 1
        # The names of this pass, in order.
        self._fired: dict[str, None] = {}
        self._counted: dict[str, dict[str, Any]] = {}
        self._arrivals = Arrivals(torch)
        # Histograms wait for the end of the pass.
        self._is_noted = True
        self._has_parameters = False

    def is_of(self, run: Run, model: Any) -> bool:
        """Whether this is what `watch` began for that module; None means any."""
        return self._run() is run and (model is None or self._model() is model)

    def start(self) -> None:
        """Sets the hooks."""
        self._hook_all()
        if not self._hooks:
            warn_once("watch nothing", "watch(): no parameter of the module takes gradients")
            return
        _watches.add(self)

    def stop(self) -> None:
        """Removes the hooks."""
        hooks, self._hooks = self._hooks, {}
        for hook in hooks.values():
            hook.remove()
        _watches.discard(self)

    def _gradient(self, name: str, parameter: Any) -> None:
        """The hook: `parameter` has its gradient of this pass. It may be called in a thread of autograd's."""
        try:
            if name in self._fired:
                self._begin_pass()
            self._fired[name] = None
            if self._pass % self._log_freq == 0:
                self._look(name, parameter)
        except Exception as error:
            _tell(error)

    def _begin_pass(self) -> None:
        self._note()  # where the end of the pass was not told
        before, self._fired = self._fired, {}
        self._has_parameters = False
        self._pass += 1
        run = self._run()
        if run is None or run.is_finished:
            self.stop()
        elif self._pass % self._log_freq == 0 or (self._pass + 1) % self._log_freq == 0:
            self._hook_all()
        elif len(self._hooks) > _COUNTING_HOOKS:
            self._hook_few(list(before))

    def _hook_all(self) -> None:
        """Each parameter that takes gradients now has a hook: they may be frozen and thawed under way."""
        for name, parameter in self._parameters():
            if name not in self._hooks and parameter.requires_grad and parameter.is_leaf:
                hook = partial(self._gradient, name)
                self._hooks[name] = parameter.register_post_accumulate_grad_hook(hook)

    def _hook_few(self, fired: list[str]) -> None:
        """Only the first, the last and two between keep theirs: should one be frozen, the others go on counting."""
        last = len(fired) - 1
        kept = {fired[last * nth // (_COUNTING_HOOKS - 1)] for nth in range(_COUNTING_HOOKS)}
        for name in [name for name in self._hooks if name not in kept]:
            self._hooks.pop(name).remove()

    def _look(self, name: str, parameter: Any) -> None:
        if "gradients" in self._kinds and parameter.grad is not None:
            self._count(f"gradients/{name}", parameter.grad)
        if self._is_noted:
            self._is_noted = False
            # At the end of backward(), in its thread; DistributedDataParallel and FSDP wait for it alike.
            self._torch.autograd.Variable._execution_engine.queue_callback(self._end_of_pass)

    def _end_of_pass(self) -> None:
        try:
            self._note()
        except Exception as error:
            _tell(error)

    def _note(self) -> None:
        """Keeps what has been counted in this pass."""
        if self._is_noted:
            return
        self._is_noted = True
        if "parameters" in self._kinds and not self._has_parameters:
            self._has_parameters = True
            for name, parameter in self._parameters():
                self._count(f"parameters/{name}", parameter)
        counted, self._counted = self._counted, {}
        arrivals, self._arrivals = self._arrivals, Arrivals(self._torch)
        run = self._run()
        if run is not None and not run.is_finished and (counted or arrivals):
            run.note_histograms(counted, arrivals)

    def _count(self, name: str, tensor: Any) -> None:
        try:
            with self._torch.no_grad():
                held = _held(self._torch, tensor)
                if not held.numel():  # a shard of nothing
                    return
                found = _tensors.tensor_histogram(self._torch, held, MOST_ELEMENTS)
                if isinstance(found, OnDevice):
                    self._arrivals.add(name, found)
                else:
                    self._counted[name] = found
        except Unstorable as error:
            warn_once(f"value:{name}", f"watch(): {name!r} is not stored: {error}")

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        model = self._model()
        if model is not None:
            for name, parameter in model.named_parameters():
                yield ".".join(part for part in name.split(".") if part not in _WRAPPERS), parameter


def _held(torch: Any, tensor: Any) -> Any:
    """What this rank holds of a tensor: of a sharded one its part, of a sparse one its values."""
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    return tensor._values() if tensor.layout is torch.sparse_coo else tensor


def _unwrapped(torch: Any, model: Any) -> Any:
    """The module within DistributedDataParallel and torch.compile, whose names are the same with and without them."""
    while True:
        if isinstance(model, (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def _tell(error: Exception) -> None:
    """Says what went wrong, once; what a signal handler of the program raised goes on its way."""
    if is_from_handler(error):
        raise error
    warn_once("watch", f"watch(): {type(error).__name__}: {error}; training goes on")

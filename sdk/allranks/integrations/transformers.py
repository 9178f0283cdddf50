"""A callback for Hugging Face's Trainer, in which every rank speaks:

    from allranks.integrations.transformers import AllranksCallback

    trainer = Trainer(…, args=TrainingArguments(…, report_to="none"), callbacks=[AllranksCallback()])

What the Trainer logs is the same in all ranks and is kept once, by rank 0, under the names that people know:
`train/loss`, `train/learning_rate`, `eval/accuracy` …, at the Trainer's global step. What differs between ranks is
kept of each rank, after each step: `rank/step_s`, `rank/samples_per_s`, and `rank/loss`, which is that of the rank's
own samples, where the model itself reckons it. Evaluations and checkpoints are sections: nobody takes them for a
stall.
"""
# ruff: noqa: ARG002  (the signatures are the Trainer's)

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import allranks
from allranks._signals import is_from_handler
from allranks._warnings import warn_once
from allranks.integrations._joining import joined

try:
    from transformers.trainer_callback import TrainerCallback
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "transformers":
        raise
    raise ImportError("allranks.integrations.transformers needs transformers: pip install transformers") from None

if TYPE_CHECKING:
    from transformers.trainer_callback import TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments

    from allranks._sections import Section

# Figures of a whole training: one value each, for the summary.
_OF_THE_WHOLE = frozenset(
    {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}
)
_PREFIXES = ("eval_", "test_")


class AllranksCallback(TrainerCallback):
    """Logs a Trainer's metrics, and signals of each rank, to one run.

    Joins the current run where there is one, else the run begins with the training. It goes on when the training has
    ended, for `evaluate` may follow, and ends with the process or by `allranks.finish()`.

    Args:
        project, name: as of `allranks.init`; None for the name means `run_name` of the training arguments.
        log_model: brings each checkpoint to the collector when it has been written.
        init_kwargs: further arguments of `allranks.init`, for a run that begins here.
    """

    def __init__(
        self, project: str | None = None, *, name: str | None = None, log_model: bool = False, **init_kwargs: Any
    ) -> None:
        super().__init__()
        told = {"project": project, "name": name, **init_kwargs}
        self._told = {key: value for key, value in told.items() if value is not None}
        self._log_model = log_model
        self._run: allranks.Run | None = None
        self._own = _OwnLoss()
        self._step_began: float | None = None
        # What the Trainer does between two steps.
        self._section: Section | None = None

    def __getstate__(self) -> dict[str, Any]:
        """In another process it finds its run there."""
        return {**self.__dict__, "_run": None, "_own": _OwnLoss(), "_step_began": None, "_section": None}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if state.is_hyper_param_search and self._run is not None:
            self._run.finish()  # each trial is a run
            self._run = None
        self._started(args, state, model)
        # A compiled module must not meet what it was not compiled with.
        self._own.follow(None if args.torch_compile else model)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._enter(None)
        # With gradient accumulation it comes once for all micro-batches.
        self._own.take()
        self._step_began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if self._step_began is None:
            return
        seconds = max(time.perf_counter() - self._step_began, 1e-9)
        loss, samples = self._own.take(args.world_size if args.average_tokens_across_devices else 1)
        if not samples:
            samples = args.train_batch_size * args.gradient_accumulation_steps
        signals = {"rank/step_s": seconds, "rank/samples_per_s": samples / seconds}
        if loss is not None:
            signals["rank/loss"] = loss
        self._started(args, state, model).log(signals, state.global_step)
        self._enter(_next(control))

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._enter(_next(control))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._enter("checkpoint" if self._section is not None and control.should_save else None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        run = self._started(args, state, model)
        if not state.is_world_process_zero or not logs:
            return
        whole = {name: value for name, value in logs.items() if name in _OF_THE_WHOLE}
        if whole:
            run.summary.update(whole)
        run.log({_known(name): value for name, value in logs.items() if name not in whole}, state.global_step)

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any],
        model: Any = None,
        **_: Any,
    ) -> None:
        run = self._started(args, state, model)
        if state.is_world_process_zero:
            run.log({_known(name): value for name, value in metrics.items()}, state.global_step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        self._enter(None)
        if not self._log_model or args.output_dir is None:
            return
        folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")  # noqa: PTH118  (save takes text)
        # Each rank writes its own random state, and rank 0 all else.
        pattern = "**" if state.is_world_process_zero else f"rng_state_{args.process_index}.pth"
        self._started(args, state, model).save(f"{folder}/{pattern}", base_path=args.output_dir, policy="now")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._enter(None)
        self._own.follow(None)
        self._step_began = None

    def _enter(self, name: str | None) -> None:
        """Leaves the section that the Trainer is in between two steps, and enters this one."""
        before, self._section = self._section, None
        if before is not None:
            before.__exit__(None, None, None)
        if name is not None and self._run is not None:
            self._section = self._run.section(name)
            self._section.__enter__()

    def _started(self, args: TrainingArguments, state: TrainerState, model: Any) -> allranks.Run:
        """The run, in every rank; rank 0 tells it the configuration."""
        if self._run is not None and not self._run.is_finished:
            return self._run
        told = dict(self._told)
        if state.is_hyper_param_search:
            told |= {"name": state.trial_name, "group": args.run_name or args.output_dir}
        elif "name" not in told and args.run_name and args.run_name != args.output_dir:
            told["name"] = args.run_name
        self._run = run = joined(told)
        if state.is_world_process_zero:
            run.config.update(_configuration(args, model), allow_val_change=True)
        return run


def _next(control: TrainerControl) -> str | None:
    """What the Trainer does before its next step, as its callbacks have decided."""
    return "evaluation" if control.should_evaluate else "checkpoint" if control.should_save else None


class _OwnLoss:
    """What this rank's model reckons of its own samples: a forward hook that waits for nothing."""

    def __init__(self) -> None:
        self._hook: Any = None
        self._loss: Any = None
        self._parts = 0
        self._samples = 0
        # The loss is already divided by the number of items in the batches of all ranks.
        self._is_share = False

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model is followed by nobody."""
        return _OwnLoss().__dict__

    def follow(self, model: Any) -> None:
        """Follows this module, and no other; None follows none."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if hasattr(model, "register_forward_hook"):
            self._hook = model.register_forward_hook(self, with_kwargs=True)

    def take(self, ranks: int = 1) -> tuple[Any, int]:
        """The loss of the step since it was last taken, None where there was none, and its number of samples.

        Args:
            ranks: over how many of them a loss that is a share was divided.
        """
        loss, parts, samples, is_share = self._loss, self._parts, self._samples, self._is_share
        self._loss, self._parts, self._samples = None, 0, 0
        if loss is None:
            return None, samples
        return loss * ranks if is_share else loss / parts, samples

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        try:
            if module.training:
                self._add(args, kwargs, output)
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once("own loss", f"a rank's own loss cannot be had: {type(error).__name__}: {error}")

    def _add(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        first = next((value for value in (*args, *kwargs.values()) if getattr(value, "shape", ())), None)
        self._samples += 0 if first is None else int(first.shape[0])
        loss = output.get("loss") if isinstance(output, Mapping) else output[0] if "labels" in kwargs else None
        if loss is not None and loss.numel() == 1:
            self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
            self._parts += 1
            self._is_share = kwargs.get("num_items_in_batch") is not None


def _configuration(args: TrainingArguments, model: Any) -> dict[str, Any]:
    """The model's configuration, and over it that of the training."""
    config: Any = getattr(model, "config", None)
    known = config.to_dict() if hasattr(config, "to_dict") else config
    found = {**(known if isinstance(known, Mapping) else {}), **args.to_sanitized_dict()}
    if hasattr(model, "num_parameters"):
        found["model/num_parameters"] = model.num_parameters()
    return found


def _known(name: str) -> str:
    """A metric's name as people know it: eval_loss is eval/loss, and what has no such prefix is of the training."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return f"{prefix[:-1]}/{name.removeprefix(prefix)}"
    return f"train/{name}"

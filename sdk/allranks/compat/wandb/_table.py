"""What of wandb's interface is here: the table that the code, its messages and docs/migrating.md are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What becomes of a name of wandb's."""

    WORKS = "works"
    ACCEPTED = "accepted"  # it has no meaning here, or only part of it; nothing is lost by that
    LEFT_OUT = "left out"  # it does nothing; one line says so, and the script goes on
    REFUSED = "refused"  # the script could not go on with what it would get: it raises, and says what to do


@dataclass(frozen=True)
class Row:
    """One line of the table: names that share a fate."""

    names: tuple[str, ...]
    fate: Fate
    words: str


# Of `init`: what it does with its arguments; those of Settings that say the same are treated alike.
INIT_ARGUMENTS: tuple[Row, ...] = (
    Row(("project", "name", "notes", "tags", "group"), Fate.WORKS, "as for `allranks.init`"),
    Row(("id",), Fate.WORKS, "characters that an id of allranks cannot have become `-`"),
    Row(("config", "config_exclude_keys", "config_include_keys"), Fate.WORKS, "a dict, a Namespace, flags of absl"),
    Row(("dir",), Fate.WORKS, "`run.dir` is made in it"),
    Row(("mode",), Fate.WORKS, "online, offline, disabled; shared is what every run here is; dryrun is offline"),
    Row(
        ("reinit",),
        Fate.WORKS,
        "default, return_previous, finish_previous; create_new is that too: a process has one run at a time",
    ),
    Row(("resume",), Fate.WORKS, "the same id is a further attempt of the run; its steps are counted from 0"),
    Row(("settings",), Fate.WORKS, "what allranks has a counterpart for: see Settings"),
    Row(("job_type",), Fate.ACCEPTED, "kept as a tag"),
    Row(("allow_val_change", "force", "anonymous"), Fate.ACCEPTED, "nothing to choose here"),
    Row(("entity",), Fate.LEFT_OUT, "a collector has no teams"),
    Row(("resume_from", "fork_from"), Fate.LEFT_OUT, "runs are not cut; a run of its own begins"),
    Row(("save_code", "monitor_gym"), Fate.LEFT_OUT, "`save` what you want to keep"),
    Row(
        ("sync_tensorboard", "tensorboard"),
        Fate.LEFT_OUT,
        "`from allranks.integrations.tensorboard import SummaryWriter`",
    ),
)

FUNCTIONS: tuple[Row, ...] = (
    Row(("init", "finish", "run", "Run"), Fate.WORKS, "`wandb.run` is None before `init` and after `finish`"),
    Row(
        ("log",),
        Fate.WORKS,
        "`step` and `commit` choose the step; each call is stored at once, also at a step that has gone by",
    ),
    Row(("config", "Config"), Fate.WORKS, "item, attribute, `update`, `setdefaults`, `as_dict`"),
    Row(("summary",), Fate.WORKS, "reads what was set, else what was logged last"),
    Row(
        ("define_metric",),
        Fate.WORKS,
        "`name`, `step_metric`, `summary` (the first of last, min, max and mean; best by `goal`)",
    ),
    Row(("save",), Fate.WORKS, "glob, `base_path` and `policy`"),
    Row(("watch", "unwatch"), Fate.WORKS, "histograms of gradients and parameters; no graph"),
    Row(("alert", "AlertLevel"), Fate.WORKS, "an event of the run; `wait_duration` holds for each title"),
    Row(("Histogram",), Fate.WORKS, "of a sequence, or `np_histogram`"),
    Row(
        ("Settings", "setup"),
        Fate.WORKS,
        "mode, project, console, root_dir, resume, reinit and run_*; the others are named once and left out",
    ),
    Row(
        ("Artifact", "log_artifact", "log_model"),
        Fate.WORKS,
        "the files are saved with the run; there are no versions",
    ),
    Row(("restore",), Fate.WORKS, "a file of `run.dir`"),
    Row(("errors", "Error", "CommError", "UsageError", "util.generate_id"), Fate.WORKS, ""),
    Row(("termlog", "termwarn", "termerror"), Fate.WORKS, "a line on stderr"),
    Row(
        ("login", "require", "ensure_configured", "termsetup", "teardown", "join", "mark_preempting"),
        Fate.ACCEPTED,
        "there is nothing to log in to or to set up; `teardown` and `join` finish",
    ),
    Row(
        ("Image", "Video", "Audio", "Html", "Object3D", "Molecule", "Plotly", "Graph", "Classes"),
        Fate.LEFT_OUT,
        "what is logged beside them is stored; a file put under `run.dir` is kept with the run",
    ),
    Row(
        ("Table", "EvalTable", "JoinedTable", "plot", "plot_table", "visualize"),
        Fate.LEFT_OUT,
        "tables and custom charts are not stored; a table can be read from and added to",
    ),
    Row(
        ("log_code", "link_model", "link_artifact", "upsert_artifact", "finish_artifact"),
        Fate.LEFT_OUT,
        "`save` what you want to keep",
    ),
    Row(
        ("use_artifact", "use_model"),
        Fate.REFUSED,
        "allranks stores no artifacts: read the file where it lies, or use allranks.Client",
    ),
    Row(("Api",), Fate.REFUSED, "use allranks.Client: runs(), metrics(), history(), export()"),
    Row(
        ("sweep", "agent", "controller"),
        Fate.REFUSED,
        "start one process for each configuration, and give all of them the same group",
    ),
)

# Settings of wandb's, and the arguments of `init` that they are.
SETTINGS: Mapping[str, str] = {
    "mode": "mode",
    "project": "project",
    "root_dir": "dir",
    "console": "console",
    "resume": "resume",
    "reinit": "reinit",
    "run_id": "id",
    "run_name": "name",
    "run_group": "group",
    "run_notes": "notes",
    "run_tags": "tags",
    "run_job_type": "job_type",
    "entity": "entity",
    "save_code": "save_code",
    "sync_tensorboard": "sync_tensorboard",
}

# Arguments of `init`, and where they are taken from when nobody gives them. A variable of ALLRANKS_ comes first.
ENVIRONMENT: Mapping[str, tuple[str, str]] = {
    "mode": ("ALLRANKS_MODE", "WANDB_MODE"),
    "project": ("ALLRANKS_PROJECT", "WANDB_PROJECT"),
    "name": ("ALLRANKS_NAME", "WANDB_NAME"),
    "group": ("ALLRANKS_GROUP", "WANDB_RUN_GROUP"),
    "id": ("ALLRANKS_RUN_ID", "WANDB_RUN_ID"),
    "dir": ("ALLRANKS_DIR", "WANDB_DIR"),
    "console": ("ALLRANKS_CONSOLE", "WANDB_CONSOLE"),
    "notes": ("", "WANDB_NOTES"),
    "tags": ("", "WANDB_TAGS"),
    "job_type": ("", "WANDB_JOB_TYPE"),
    "resume": ("", "WANDB_RESUME"),
}


def names_of(rows: tuple[Row, ...], fate: Fate) -> dict[str, str]:
    """The names with this fate, and the words about each."""
    return {name: row.words for row in rows if row.fate is fate for name in row.names}

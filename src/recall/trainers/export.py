"""The weights of a run as one directory in Hugging Face's format, whichever engine trained them.

A checkpoint of the local trainer is one already, unless it is an adapter. What verl leaves is a file for every GPU,
which verl's own tool puts together.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recall.config import load
from recall.errors import ConfigError, RolloutError
from recall.store import Run, checkpoint_step
from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.command import CHECKPOINTS

ADAPTER = "adapter_config.json"
"""The file that makes a directory an adapter."""
_LEFT_OUT = ("trainer.pt",)


def export(run: Run, step: int | None = None, to: Path | None = None) -> Path:
    """Write the weights of a checkpoint.

    Args:
        run: trained by any engine.
        step: of which update; None for the last one that has a checkpoint.
        to: the directory to make; None for `checkpoints/step-000280` of the run.

    Returns:
        The directory.

    Raises:
        ConfigError: there is no such checkpoint, or the directory exists.
        RolloutError: verl's tool failed.
    """
    recipe = load(TrainRecipe, run.config_path)
    found = _of_verl(run) if recipe.engine == "verl" else {checkpoint_step(path): path for path in run.checkpoints()}
    if not found:
        raise ConfigError(f"{run.path}: no checkpoint yet")
    step = max(found) if step is None else step
    if step not in found:
        raise ConfigError(f"{run.path}: no checkpoint of step {step}; there are {', '.join(map(str, sorted(found)))}")
    source = found[step]
    target = to or run.path / "checkpoints" / f"step-{step:06d}"
    if recipe.engine != "verl" and to is None and not (source / ADAPTER).exists():
        return source
    if to is None and recipe.engine != "verl":
        raise ConfigError(f"{source}: an adapter; name a directory for the merged weights with --to")
    if target.exists():
        raise ConfigError(f"{target}: exists; remove it, or name another directory with --to")
    with _whole(target) as partial:
        if recipe.engine == "verl":
            _merge_shards(source / "actor", partial, recipe.verl.env)
            if (partial / "lora_adapter").is_dir():
                _merge_adapter(partial, partial / "lora_adapter", partial)
                shutil.rmtree(partial / "lora_adapter")
        elif (source / ADAPTER).exists():
            _merge_adapter(None, source, partial)
        else:
            shutil.copytree(source, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    return target


def _of_verl(run: Run) -> dict[int, Path]:
    """The checkpoints that verl left, by step, those that are whole."""
    folder = run.path / CHECKPOINTS
    last = folder / "latest_checkpointed_iteration.txt"
    newest = int(last.read_text()) if last.exists() else 0
    found = {int(path.name.removeprefix("global_step_")): path for path in folder.glob("global_step_*")}
    return {step: path for step, path in found.items() if step <= newest and (path / "actor").is_dir()}


def _merge_shards(actor: Path, target: Path, env: Mapping[str, str]) -> None:
    """Put the files of all GPUs together, in bfloat16."""
    arguments = ["merge", "--backend", "fsdp", "--local_dir", str(actor), "--target_dir", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "verl.model_merger", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise RolloutError(f"{actor}: verl's merger failed: {said[-1]}")


def _merge_adapter(base: Path | None, adapter: Path, target: Path) -> None:
    """Add a LoRA adapter to the weights that it was trained on, or to those that it names itself."""
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if base is None:
        model = AutoPeftModelForCausalLM.from_pretrained(adapter)
    else:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter)
    tokenizer = AutoTokenizer.from_pretrained(base or adapter)
    model.merge_and_unload().save_pretrained(target)
    tokenizer.save_pretrained(target)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A directory that becomes `target` when the block ends, and nothing if it raises."""
    partial = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

"""Score LoRA files on one grid: a run for each training and strength, with the base model as its step 0."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.interrupts import Interrupt
from finetune_monitor.base.text import counted, visible
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.grid import ELSEWHERE
from finetune_monitor.record.history import SCORE, read_run
from finetune_monitor.scoring.adapters import base_of, check_base, load_base, loaded
from finetune_monitor.scoring.folder import ScoreFolder
from finetune_monitor.scoring.lora_files import (
    LoraFile,
    NoLoraError,
    Series,
    is_complete,
    read_lora,
    series_of,
    weight_files,
)
from finetune_monitor.scoring.notes import Notes, say_metrics
from finetune_monitor.scoring.records import Subject, opened
from finetune_monitor.scoring.settings import Options, grid_in, make_config, make_metrics
from finetune_monitor.training.trainable import PRECISIONS

STRENGTH = 1.0
"""The default strength of a LoRA."""

UNFINISHED = 30.0
"""Seconds without a change after which an incomplete file is named."""


class WeightScores:
    """The scores of LoRA files, or of a base model alone.

    Args:
        sources: files and folders; empty for the base model alone.
        folder: of the scores.
    """

    has_base = True

    def __init__(self, options: Options, sources: Sequence[Path], base: str, folder: ScoreFolder) -> None:
        self._options, self._sources, self._base, self._folder = replace(options, base=base), sources, base, folder
        self._strengths = list(options.strengths or [STRENGTH])
        self._notes = Notes()
        self._kind = base_of(base)
        self._pipeline: Any = None
        self._read: dict[Path, LoraFile] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._refused: set[Path] = set()
        self._titles: dict[str, str] = {}
        self._strength_of: dict[str, float] = {}

    def prepare(self) -> None:
        """Check every file, then make the metrics, then load the base model.

        Raises:
            UserError: lists the files that cannot be scored; or the metrics or the base model are not available.
        """
        series = self._series()
        self._plan(series)
        triggers = list(dict.fromkeys(file.trigger for each in series for file in each.files.values() if file.trigger))
        trigger = triggers[0] if triggers else None
        options = self._with_recorded_prompts()
        self._config = make_config(options, trigger)
        self._grid = grid_in(self._config, options)
        if not (options.prompts or options.config) and len(triggers) != 1:
            different = f"the files have different trigger words ({', '.join(triggers)})"
            why = different if triggers else "found no trigger word"
            self._notes.say(f"{why}; the prompts say {self._grid.prompts[0]!r}; if that is wrong, set --prompts")
        device = PartialState().device
        self._measured = make_metrics(self._config, device, self._grid.prompts, of_images=False)
        say_metrics(self._measured)
        self._pipeline = load_base(self._config.base_model, PRECISIONS[self._config.train.mixed_precision], device)
        if not options.watch:
            self._check_loading(series)

    def _with_recorded_prompts(self) -> Options:
        """The options with the prompts of an earlier run, which was made when other files were there."""
        if self._options.prompts or self._options.config:
            return self._options
        grids = (read_run(place).grid for place in self._folder.runs.values())
        prompts = next((grid.prompts for grid in grids if grid.sampler != ELSEWHERE), ())
        return replace(self._options, prompts=prompts)

    @property
    def run_names(self) -> list[str]:
        return list(self._titles)

    def names(self, run: str) -> Mapping[int, str]:
        """A description of each step."""
        at = "" if self._strengths == [STRENGTH] else f" at strength {self._strength_of[run]:g}"
        return {step: self._shown(files[0]) + at for step, files in self._folder.files(run).items()}

    def score(self, interrupt: Interrupt) -> None:
        """Score the files that are complete and not recorded, at every strength."""
        series = self._series()
        self._plan(series)
        if not self._sources:
            self._score(self.run_names[0], {}, interrupt)
        for each in series:
            for strength in self._strengths:
                if not interrupt.asked():
                    self._score_series(each, strength, interrupt)

    def _plan(self, series: Sequence[Series]) -> None:
        """Plan a run for each training and strength."""
        runs = [(each, strength) for each in series for strength in self._strengths]
        self._titles = {_run_name(*run): f"{run[0].name}-{run[1]:g}" for run in runs}
        self._strength_of = {_run_name(*run): run[1] for run in runs}
        if not self._sources:
            self._titles = {self._base: Path(self._base).name}
        self._folder.plan(self._titles)

    def _series(self) -> list[Series]:
        """The trainings whose files can be scored.

        Raises:
            UserError: lists those that cannot; in a folder that is watched, they are only named.
        """
        problems = []
        for source in self._sources:
            for path in weight_files(source) if source.is_dir() else [source]:
                if path in self._refused or self._is_known(path):
                    continue
                try:
                    found = read_lora(path, source)
                    check_base(found, self._base, self._kind)
                    self._read[path] = found
                except UserError as error:
                    if isinstance(error, NoLoraError) and source.is_dir():
                        self._leave_out(path, error)
                    else:
                        problems.append(error)
                        self._refuse(path, error)
        if not self._options.watch:
            all_problems(list(map(str, problems)), f"{counted(len(problems), 'file')} cannot be scored:")
            if self._sources and not self._read:
                raise UserError(f"{self._sources[0]}: found only other weights, expected a LoRA file; check the path")
        return series_of(list(self._read.values()))

    def _is_known(self, path: Path) -> bool:
        """Whether a file was read and has not changed."""
        stamp = _stamp(path)
        is_known = path in self._read and self._stamps.get(path) == stamp
        self._stamps[path] = stamp
        return is_known

    def _refuse(self, path: Path, error: UserError) -> None:
        """Leave a file out of what is watched; a new one may still be incomplete, so it is not named yet."""
        if not self._options.watch:
            return
        if is_complete(path):
            self._leave_out(path, error)
        elif time.time() - path.stat().st_mtime > UNFINISHED:
            self._notes.say(f"left out: {error}")

    def _leave_out(self, path: Path, error: UserError) -> None:
        self._refused.add(path)
        self._notes.say(f"left out: {error}")

    def _check_loading(self, series: Sequence[Series]) -> None:
        """Load every file that will be scored once, before anything is rendered."""
        runs = [(each, strength) for each in series for strength in self._strengths]
        todo = [file for each, strength in runs for file in self._todo(each, _run_name(each, strength)).values()]
        files = {file.path: file for file in todo}
        if files:
            print(f"found:    {counted(len(files), 'LoRA file')} of {counted(len(series), 'training')}", flush=True)
        problems = []
        for file in files.values():
            try:
                with loaded(self._pipeline, file, STRENGTH) as layers:
                    if layers < file.layers and self._pipeline.components.get("unet") is not None:
                        self._notes.say(f"{file.path}: the base model has only {layers} of its {file.layers} layers")
            except UserError as error:
                problems.append(str(error))
        all_problems(problems, f"{counted(len(problems), 'file')} cannot be loaded:")

    def _score_series(self, series: Series, strength: float, interrupt: Interrupt) -> None:
        name = _run_name(series, strength)
        for file_name in series.unordered if len(series.files) > 1 else ():
            self._notes.say(f"{file_name}: no step in its name or metadata: it comes last")
        todo = self._todo(series, name)
        if todo:
            self._score(name, todo, interrupt, series, strength)

    def _todo(self, series: Series, name: str) -> dict[int, LoraFile]:
        """The files that are not recorded, by step."""
        history = self._folder.history(name)
        recorded = [each.step for each in history.evaluations] if history else []
        scored = {file for step, files in self._folder.files(name).items() if step in recorded for file in files}
        for file in self._folder.changed(name):
            if file in scored:
                self._notes.say(f"{file}: changed since it was scored; choose a new folder to score it again")
        last = max(recorded, default=0)
        todo = {step: file for step, file in series.files.items() if os.path.abspath(file.path) not in scored}
        for step in [step for step in todo if step <= last]:
            self._notes.say(f"left out {todo.pop(step).path}: it comes before step {last}, which was scored already")
        return {step: file for step, file in todo.items() if file.path not in self._refused}

    def _score(
        self,
        name: str,
        todo: Mapping[int, LoraFile],
        interrupt: Interrupt,
        series: Series | None = None,
        strength: float = STRENGTH,
    ) -> None:
        settings: dict[str, Any] = {"model": self._base, "data.instance_prompt": self._config.data.instance_prompt}
        if series is not None:
            settings |= {f"{SCORE}strength": strength}
            settings |= {f"{SCORE}step {step}": file.name for step, file in series.files.items()}
        self._folder.start()
        if todo and series is not None:
            print(
                f"scoring:  {counted(len(todo), 'file')} of {visible(series.name)} at strength {strength:g}", flush=True
            )
        subject = Subject(self._pipeline, self._grid, self._measured.metrics, self._config)
        with opened(self._folder.place(name), subject, settings, interrupt, self._floor()) as monitor:
            for step, file in todo.items():
                if interrupt.asked():
                    return
                self._evaluate(monitor, name, step, file, strength)

    def _floor(self) -> Path | None:
        """A run whose step 0 others can copy."""
        places = (self._folder.runs[name] for name in self.run_names if name in self._folder.runs)
        return next((place for place in places if read_run(place).at(0) is not None), None)

    def _evaluate(self, monitor: FinetuneMonitor, name: str, step: int, file: LoraFile, strength: float) -> None:
        self._folder.note(name, step, [file.path], with_hash=True)
        try:
            with loaded(self._pipeline, file, strength):
                monitor.evaluate(step, file.said.epoch)
        except UserError as error:
            if not self._options.watch:
                raise
            self._refuse(file.path, error)

    def _shown(self, file: str) -> str:
        """A file's shortest clear name."""
        names = (found.name for path, found in self._read.items() if os.path.abspath(path) == file)
        return next(names, Path(file).name)


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when the file does."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _run_name(series: Series, strength: float) -> str:
    """The unique name of a run, which does not change when files are added."""
    return f"{series.home / series.name} {strength:g}"

"""A folder of pictures -> a folder of crops, on all cores; it may be stopped, and goes on where it was.

Other processes cut; this one lists, has crops described, and keeps the report. A source is done when all its files are
there and the report names them. What is not done when a run ends is removed.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tincture.data.listing import Listing, PictureFile, caption_remarks, name_some, no_pictures
from tincture.data.mask_files import MaskFinder
from tincture.data.preprocessed import DEBUG, REPORT
from tincture.errors import DataError, StorageError
from tincture.events import Callback, Progressed, Stage, emitter
from tincture.preprocessing.captioning import Captioner
from tincture.preprocessing.crop_files import write_caption
from tincture.preprocessing.crop_places import check_places, list_sources, relative_name, stem_of
from tincture.preprocessing.cut_jobs import Cut, CutJob, CutRules, Probed, Skipped, Unchanged
from tincture.preprocessing.cutting import cut, probe
from tincture.preprocessing.describing import Describer, find_models, load_models
from tincture.preprocessing.duplicates import Pair, groups, near_duplicates
from tincture.preprocessing.faces import choose_detector, opencv
from tincture.preprocessing.ledger import Ledger, open_report
from tincture.preprocessing.lock import sole_use
from tincture.preprocessing.processes import Crashed, process_count, run_jobs
from tincture.preprocessing.report import SourceRecord
from tincture.preprocessing.rules import cut_rules
from tincture.preprocessing.sides import choose_sides
from tincture.preprocessing.texts import compose, listed_caption, needs_words
from tincture.settings.preprocess import PreprocessSettings

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

CRASHED = "ended the process that read it, by a fault in a decoder or for lack of memory"


@dataclass(frozen=True)
class PreprocessResult:
    """What came of it.

    Attributes:
        destination: the folder of crops.
        report: the file with all details.
        counts: sources, used, skipped, pictures, captions, training, validation, near_duplicates.
        new: sources that were cut this time; the others had their crops already.
        skipped: sources without crops (paths relative to the source folder), each with the reason.
        interrupted: it was asked to stop before all was done.
        seconds: how long it took.
    """

    destination: Path
    report: Path
    counts: dict[str, int]
    new: int
    skipped: tuple[tuple[str, str], ...]
    interrupted: bool
    seconds: float


def preprocess(
    source: str | Path,
    destination: str | Path,
    *,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
    captioners: Sequence[Captioner] | None = None,
    **options: Any,
) -> PreprocessResult:
    """Crop the pictures of a folder for training, and write captions beside the crops.

    Sources are never changed. Called again with the same settings, it does what is new or changed, and what an earlier
    call left undone.

    Args:
        source: folder of pictures.
        destination: folder for the crops, new or made by an earlier call with the same settings.
        overwrite: make everything anew, also where other settings, or other files, are in the destination.
        callbacks: told of the progress.
        stop: set from elsewhere, it ends after the pictures at hand.
        captioners: describe crops, instead of those that the settings name.
        options: the fields of `PreprocessSettings`.

    Raises:
        UsageError: a setting, the source or the destination is not allowed.
        DataError: the source folder cannot be read, or holds no picture that can be used.
        StorageError: the destination cannot be written.
        ModelError: the captioner or the tagger cannot be loaded.
    """
    places = {"source": str(source), "destination": str(destination)}
    settings = PreprocessSettings.from_dict({**places, **options})
    listing = _listing(settings)
    if captioners is None:
        find_models(settings)  # before anything is written: a mistyped name shall not bind the destination
    with sole_use(Path(settings.destination)):
        run = _open(settings, listing, overwrite)
        run.callbacks, run.captioners = tuple(callbacks), captioners
        run.stop = stop or run.stop
        return run.execute()


def _listing(settings: PreprocessSettings) -> Listing:
    """The sources, when both places are in order."""
    source, destination = Path(settings.source), Path(settings.destination)
    check_places(source, destination, recursive=settings.recursive)
    listing = list_sources(source, destination, recursive=settings.recursive)
    if not listing.files:
        raise DataError(no_pictures([source], with_repeats=False))
    return listing


def _open(settings: PreprocessSettings, listing: Listing, overwrite: bool) -> _Run:
    """Choose the detector, number the sources that are new, and tell what is odd."""
    destination = Path(settings.destination)
    faces_count = settings.focal_crop and settings.focal_face_weight > 0
    chosen = choose_detector(settings.face_detector if faces_count else "none", settings.yunet_model)
    found = {relative_name(each): each for each in listing.files}
    ledger = Ledger(open_report(settings, destination, overwrite=overwrite), destination)
    ledger.enter({name: stem_of(each.path) for name, each in found.items()})
    ledger.report.face_detector = chosen.detector
    beside = caption_remarks([listing]) if settings.existing_captions != "ignore" else []
    odd = [*listing.remarks, *beside, *chosen.remarks, *_missing_corners(settings), *_vanished(ledger, found)]
    ledger.report.remarks = odd
    for remark in ledger.report.remarks:
        warnings.warn(remark, stacklevel=3)
    ledger.report.complete = False
    ledger.save()
    return _Run(settings, cut_rules(settings, chosen.detector), ledger, found)


def _missing_corners(settings: PreprocessSettings) -> Iterator[str]:
    if settings.focal_crop and settings.focal_corner_weight > 0 and opencv() is None:
        yield "Corners do not count for the crops without OpenCV: pip install 'tincture[preprocess]'."


def _vanished(ledger: Ledger, found: dict[str, PictureFile]) -> Iterator[str]:
    gone = [record.source for record in ledger.records.values() if record.crops and record.source not in found]
    if gone:
        yield f"Sources that are no longer there keep their crops: {name_some(gone)}."


@dataclass
class _Run:
    """One call of `preprocess`. `found` has every source by its name, as the ledger has its record."""

    settings: PreprocessSettings
    rules: CutRules
    ledger: Ledger
    found: dict[str, PictureFile]
    callbacks: tuple[Callback, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)
    captioners: Sequence[Captioner] | None = None
    undescribed: dict[str, Cut] = field(default_factory=dict)
    settled: int = 0
    new: int = 0

    def execute(self) -> PreprocessResult:
        """Choose sides, cut, describe, compare; the report is written whatever happens."""
        started = time.monotonic()
        try:
            self._choose_sides()
            self._cut_all()
            self._report_duplicates()
        except BaseException:
            with contextlib.suppress(StorageError):  # what went wrong before counts for more
                self._close()
            raise
        self.ledger.report.complete = not self.stop.is_set()
        self._close()
        return self._result(time.monotonic() - started)

    def _close(self) -> None:
        for name, cut_source in self.undescribed.items():
            self.ledger.drop(self.ledger.records[name], cut_source)
        self.ledger.save()

    def _result(self, seconds: float) -> PreprocessResult:
        report = self.ledger.report
        skipped = tuple(report.skipped())
        if report.complete and not report.counts()["used"]:
            reasons = name_some([f"{source}: {reason}" for source, reason in skipped])
            raise DataError(f"None of the pictures in the folder {self.settings.source} can be used. {reasons}.")
        destination = self.ledger.destination
        return PreprocessResult(
            destination, destination / REPORT, report.counts(), self.new, skipped, not report.complete, seconds
        )

    def _choose_sides(self) -> None:
        """For validation all pictures are looked at before: one that is like a trained one must not validate."""
        if not self.settings.validation_share:
            return
        paths = {found.path: self.ledger.records[name] for name, found in self.found.items()}
        contents: dict[str, str] = {}
        for done, (path, outcome) in enumerate(self._spread(probe, list(paths)), 1):
            if isinstance(outcome, Probed):
                contents[paths[path].source], paths[path].thumbnail = outcome.digest, outcome.thumbnail
            else:
                self.ledger.skip(paths[path], _reason(outcome))
            self._report("looking", done, len(paths))
        if self.stop.is_set():
            return
        names = [name for name in self.found if name in contents]
        known = {name: side for name in names if (side := self.ledger.records[name].side)}
        share, seed = self.settings.validation_share, self.settings.seed
        sides = choose_sides(groups(names, self._pairs(names)), contents, share, seed, known)
        for name, side in sides.items():
            self.ledger.records[name].side = side

    def _cut_all(self) -> None:
        masks = MaskFinder()
        jobs = {job.path: (name, job) for name in self.found if (job := self._job(name, masks))}
        self.settled = len(self.found) - len(jobs)
        models = self.captioners
        describer: Describer[str] = Describer(
            lambda: load_models(self.settings) if models is None else models, self.settings.caption_batch_size
        )
        # Cutting is in vain if they cannot be loaded. What may be unchanged is no reason to load them.
        if any(not job.known and self._wants_words(job.existing) for _, job in jobs.values()):
            with Stage(emitter(self.callbacks), "loading the captioners"):
                describer.prepare()
        for job, outcome in self._spread(cut, [job for _, job in jobs.values()]):
            name = jobs[job.path][0]
            if isinstance(outcome, Cut) and self._wants_words(job.existing):
                self.undescribed[name] = outcome
                self._caption(describer.add(name, [file.path for file in outcome.files]), jobs)
            else:
                self._settle(self.ledger.records[name], job, outcome)
        if not self.stop.is_set():
            self._caption(describer.flush(), jobs)

    def _job(self, name: str, masks: MaskFinder) -> CutJob | None:
        """What is to be done with a source; None when it is known already that it cannot be used."""
        record, found = self.ledger.records[name], self.found[name]
        if record.skipped:
            return None
        try:
            existing = self._existing(found)
        except DataError as error:
            self.ledger.skip(record, str(error))
            return None
        prefix, stem = f"{record.index:05}", stem_of(found.path)
        debug = self.settings.focal_crop and self.settings.focal_debug
        return CutJob(
            path=found.path,
            folder=self.ledger.destination / record.side,
            prefix=prefix,
            stem=stem,
            rules=self.rules,
            mask=masks.find(found.path, found.root),
            debug=self.ledger.destination / DEBUG / f"{prefix}-{stem}.jpg" if debug else None,
            existing=existing,
            write_captions=existing is not None and not self._wants_words(existing),
            known=self.ledger.known(record),
        )

    def _existing(self, found: PictureFile) -> str | None:
        if self.settings.existing_captions == "ignore":
            return None
        return listed_caption(found, self.settings.caption_encoding)

    def _wants_words(self, existing: str | None) -> bool:
        """Whether crops are to be described whose source has this caption."""
        models = self.settings.captioner or self.settings.tagger if self.captioners is None else self.captioners
        return bool(models) and needs_words(existing, self.settings.existing_captions)

    def _settle(self, record: SourceRecord, job: CutJob, outcome: Cut | Unchanged | Skipped | Crashed) -> None:
        """Note what became of a source that is not described."""
        if isinstance(outcome, Cut):
            self.ledger.take(record, outcome, [job.existing] * len(outcome.files))
            self.new += 1
        elif not isinstance(outcome, Unchanged):
            self.ledger.skip(record, _reason(outcome))
        self._count()

    def _caption(self, described: Iterable[tuple[str, list[list[str]]]], jobs: dict[Path, tuple[str, CutJob]]) -> None:
        """Write captions for sources whose crops were described, which are done then."""
        for name, texts_of_crops in described:
            outcome, record = self.undescribed[name], self.ledger.records[name]
            existing = jobs[self.found[name].path][1].existing
            captions = [compose(existing, texts, self.settings.existing_captions) for texts in texts_of_crops]
            for file, caption in zip(outcome.files, captions, strict=True):
                if caption is not None:
                    write_caption(file.path, caption)
            self.ledger.take(record, outcome, captions)
            del self.undescribed[name]
            self.new += 1
            self._count()

    def _count(self) -> None:
        self.settled += 1
        self.ledger.save_at_times()
        self._report("cutting", self.settled, len(self.found))

    def _report_duplicates(self) -> None:
        records = sorted(self.ledger.records.values(), key=lambda record: record.index)
        self.ledger.report.near_duplicates = self._pairs([record.source for record in records if record.crops])
        sides = {record.source: record.side for record in records}
        split = [pair for pair in self.ledger.report.near_duplicates if sides[pair.first] != sides[pair.second]]
        if split:
            remark = f"Near-duplicates are on both sides, since they came later: {split[0].first}, {split[0].second}."
            self.ledger.report.remarks.append(remark)
            warnings.warn(remark, stacklevel=4)

    def _pairs(self, names: Sequence[str]) -> list[Pair]:
        if not self.settings.near_duplicates or len(names) < 2:
            return []
        thumbnails = {name: self.ledger.records[name].thumbnail for name in names}
        return near_duplicates(thumbnails, self.settings.near_duplicate_bits)

    def _spread(
        self, function: Callable[[JobT], ResultT], jobs: Sequence[JobT]
    ) -> Iterator[tuple[JobT, ResultT | Crashed]]:
        return run_jobs(function, jobs, process_count(self.settings.workers, len(jobs)), self.stop.is_set)

    def _report(self, stage: str, done: int, total: int) -> None:
        emitter(self.callbacks)(Progressed(stage, done, total))


def _reason(outcome: Skipped | Crashed) -> str:
    return outcome.reason if isinstance(outcome, Skipped) else CRASHED

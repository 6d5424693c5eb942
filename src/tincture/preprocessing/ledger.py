"""The report while it is being made, and the files that it speaks of."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tincture.errors import UsageError
from tincture.preprocessing.crop_files import caption_path, remove_crop
from tincture.preprocessing.crop_places import check_emptiness, leftovers, stem_of
from tincture.preprocessing.cut_jobs import Cut, CutFile
from tincture.preprocessing.report import CropRecord, Report, SourceRecord, read_report
from tincture.settings.preprocess import PreprocessSettings

SAVE_EVERY_SECONDS = 10.0


def open_report(settings: PreprocessSettings, destination: Path, *, overwrite: bool) -> Report:
    """The report of an earlier run with the same settings, or a new one, also where the earlier run made no crops.

    With `overwrite` an earlier run's crops are removed, whatever its settings.

    Raises:
        UsageError: other things lie in the destination.
    """
    making = {**settings.making(), "source": str(Path(settings.source).resolve())}
    earlier = _earlier_report(destination, overwrite)
    if earlier is None:
        if not overwrite:
            check_emptiness(destination)
        return Report(making)
    changed = [name for name in making if earlier.settings.get(name) != json.loads(json.dumps(making[name]))]
    if not changed and not overwrite:
        return earlier
    if not overwrite and any(record.crops for record in earlier.records.values()):
        raise UsageError(
            f"The destination {destination} holds crops made with other settings (another {', '.join(changed)}); "
            "choose another folder, or give the setting overwrite to make them anew."
        )
    _clear(earlier, destination)
    return Report(making)


def _clear(report: Report, destination: Path) -> None:
    for crop in leftovers(destination, {record.index: stem_of(Path(name)) for name, record in report.records.items()}):
        remove_crop(crop)
    for record in report.records.values():
        record.forget(destination)


def _earlier_report(destination: Path, overwrite: bool) -> Report | None:
    try:
        return read_report(destination)
    except UsageError:
        if overwrite:
            return None
        raise


class Ledger:
    """What is known of each source; `records` by its name, the path relative to the source folder."""

    def __init__(self, report: Report, destination: Path) -> None:
        self.report = report
        self.records = report.records
        self.destination = destination
        self._started = self._saved = time.monotonic()

    def enter(self, stems: Mapping[str, str]) -> None:
        """Give numbers to new sources, and remove what a killed run left of sources that are not done.

        Args:
            stems: what the names of crops end with, by the source's name.
        """
        following = max((record.index for record in self.records.values()), default=-1) + 1
        fresh = [name for name in stems if name not in self.records]
        self.records.update({name: SourceRecord(name, index) for index, name in enumerate(fresh, following)})
        waiting = [self.records[name] for name in stems if not self.records[name].crops]
        for crop in leftovers(self.destination, {record.index: stems[record.source] for record in waiting}):
            remove_crop(crop)
        for name in stems:
            self.records[name].skipped = ""  # it may be better now

    def known(self, record: SourceRecord) -> str:
        """The fingerprint of a source whose crops are all there; "" for one that is to be cut."""
        return record.fingerprint if record.is_complete(self.destination) else ""

    def take(self, record: SourceRecord, cut: Cut, captions: Iterable[str | None]) -> None:
        """Note the crops of a source, which are all there, each with its caption or None."""
        before = record.crops
        record.crops = tuple(self._crop(file, caption) for file, caption in zip(cut.files, captions, strict=True))
        record.fingerprint, record.size = cut.fingerprint, cut.size
        record.thumbnail, record.notes = cut.thumbnail, cut.notes
        now = {crop.path: crop for crop in record.crops}
        for crop in before:
            if crop.path not in now:
                remove_crop(self.destination / crop.path)
            elif crop.caption is not None and now[crop.path].caption is None:
                caption_path(self.destination / crop.path).unlink(missing_ok=True)

    def skip(self, record: SourceRecord, reason: str) -> None:
        """Note why a source has no crops; those that it had before are removed."""
        record.forget(self.destination)
        record.skipped = reason

    def drop(self, record: SourceRecord, cut: Cut) -> None:
        """Remove the crops of a source that will not be finished in this run, and what they took the place of."""
        for file in cut.files:
            remove_crop(file.path)
        record.forget(self.destination)

    def save(self) -> None:
        """Write the report; StorageError when the system refuses."""
        now = time.monotonic()
        self.report.seconds = now - self._started
        self.report.write(self.destination)
        # a large report takes its time; at most a twentieth of all
        self._saved = max(now, time.monotonic() + 20 * (time.monotonic() - now) - SAVE_EVERY_SECONDS)

    def save_at_times(self) -> None:
        """Write the report if it was not written for a while, so that a killed run loses little."""
        if time.monotonic() - self._saved > SAVE_EVERY_SECONDS:
            self.save()

    def _crop(self, file: CutFile, caption: str | None) -> CropRecord:
        path = file.path.relative_to(self.destination).as_posix()
        return CropRecord(path, file.size, file.crop.method, file.crop.box, file.mirrored, caption)

"""Which weights of a run to keep, and when to stop: by the accuracy on the validation examples, never by the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass
class Selection:
    """The best validation accuracy so far, the first of equals, and the step at which it was measured. ``patience`` is
    the number of steps without a better one after which a training stops (None: it does not)."""

    patience: int | None = None
    accuracy: float | None = None
    step: int = 0

    def see(self, row: Mapping[str, float], step: int) -> None:
        """Takes note of an evaluation; one without validation examples says nothing."""
        accuracy = row.get("val/accuracy")
        if accuracy is not None and (self.accuracy is None or accuracy > self.accuracy):
            self.accuracy, self.step = accuracy, step

    def exhausted(self, step: int) -> bool:
        """Whether there was nothing better for as long as the patience lasts."""
        return self.patience is not None and self.accuracy is not None and step - self.step >= self.patience

    def state(self) -> dict[str, float | int | None]:
        """What a checkpoint keeps."""
        return {key: value for key, value in asdict(self).items() if key != "patience"}

    def restore(self, state: Mapping[str, float | int | None]) -> None:
        """Goes on from what a checkpoint kept. Raises KeyError for what ``state`` did not make."""
        self.accuracy, self.step = state["accuracy"], int(state["step"] or 0)

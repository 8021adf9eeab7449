"""What a person was told of a model's days, ``<model>/told.json``, so that nothing is said twice."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from windsock.errors import DamagedRecord
from windsock.format_numbers import numbered
from windsock.store import Store

_FILE = "told.json"


@dataclass
class Told:
    """Kind of message to what each was about; kept only for as long as it is so."""

    store: Store
    model: str
    said: dict[str, list[str]] = field(default_factory=dict)
    _before: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, model: str) -> "Told":
        """Read it; what cannot be read is said once more."""
        try:
            raw = store.as_record("told", dict[str, list[str]], store.read_json(model, _FILE), model, _FILE)
        except (FileNotFoundError, DamagedRecord):
            raw = {}
        return cls(store, model, {}, raw)

    def untold(self, kind: str, about: Iterable[str]) -> list[str]:
        """Return what of this was not told yet; the rest of it stays known."""
        known = {*self._before.get(kind, ()), *self.said.get(kind, ())}
        self.mark(kind, known.intersection(about := list(about)))
        return [each for each in about if each not in known]

    def mark(self, kind: str, about: Iterable[str]) -> None:
        """Count this as told."""
        self.said[kind] = sorted({*self.said.get(kind, ()), *about})

    def keep_the_rest(self) -> None:
        """Go on knowing what was told of kinds that this look does not come to."""
        self.said = self._before | self.said

    def save(self) -> None:
        """Write it, if it is another than before."""
        said = {kind: about for kind, about in self.said.items() if about}
        if said != self._before:
            self.store.write_json(numbered("told", said), self.model, _FILE)

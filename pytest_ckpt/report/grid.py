"""The columns of a table whose rows are tests and whose columns are contracts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.report.items import word
from pytest_ckpt.report.wrapping import columns, cut_middle, flow, padded, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_ckpt.report.items import Row

#: A test's name in fewer columns can't be told from others.
_NAME: Final = 24
_GAP: Final = "  "


@dataclass(frozen=True, slots=True)
class Grid:
    """The table of one file; where the columns do not fit beside the names, each cell names its contract.

    Attributes:
        file: the heading.
        contracts: how wide the column of each contract is.
        absent: contracts without a column, as they apply to no test of the file.
        name: how wide the first column is; 0 where the names stand alone.
        width: of the terminal.
    """

    file: str
    contracts: Mapping[str, int]
    absent: tuple[str, ...]
    name: int
    width: int

    @classmethod
    def of(cls, file: str, rows: Sequence[Row], width: int) -> Grid:
        """Choose the columns; contracts come in the order of the test that has the most of them."""
        sizes: dict[str, int] = {}
        for row in sorted(rows, key=lambda row: -len(row.items)):
            for item in row.items:
                sizes[item.contract] = max(sizes.get(item.contract, 0), columns(item.contract), len(word(item)))
        applying = {item.contract for row in rows for item in row.items if word(item) != "n/a"}
        absent = tuple(contract for contract in sizes if contract not in applying) if applying else ()
        sizes = {contract: size for contract, size in sizes.items() if contract not in absent}
        left = width - sum(len(_GAP) + size for size in sizes.values())
        longest = max(columns(_GAP + row.name) for row in rows)
        if left < min(longest, _NAME):
            return cls(file, sizes, absent, 0, width)
        return cls(file, sizes, absent, max(min(longest, left), columns(file) if columns(file) <= left else 0), width)

    def heading(self) -> Iterator[str]:
        """Yield the file's name, and the contracts' where cells do not bear them."""
        if columns(self.file) > self.name:
            yield cut_middle(self.file, self.width)
        if self.name:
            yield self._line(
                self.file if columns(self.file) <= self.name else "", {name: name for name in self.contracts}
            )

    def row(self, row: Row) -> Iterator[str]:
        """Yield the lines of a test."""
        cells = {item.contract: word(item) for item in row.items if item.contract not in self.absent}
        if self.name:
            yield self._line(_GAP + cut_middle(row.name, self.name - len(_GAP)), cells)
            return
        yield _GAP + cut_middle(row.name, self.width - len(_GAP))
        pieces = (f"{contract} {result}" for contract, result in cells.items())
        yield from flow(pieces, self.width, first=_GAP * 2, rest=_GAP * 2)

    def footing(self) -> Iterator[str]:
        """Yield which contracts apply to no test of the file."""
        if self.absent:
            yield from wrap(f"not applicable: {', '.join(self.absent)}", self.width, rest=_GAP)

    def _line(self, name: str, cells: Mapping[str, str]) -> str:
        texts = (padded(cells.get(contract, ""), size) for contract, size in self.contracts.items())
        return _GAP.join((padded(name, self.name), *texts)).rstrip()

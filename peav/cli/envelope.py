"""A signal of any length in a bounded number of columns, for the eye."""

from __future__ import annotations

import numpy as np


class Envelope:
    """The greatest and the mean value of rows in columns of equal width; when there are too many, neighbours become one.

    Args:
        num_rows: K.
        num_columns: at most so many, an even number.

    Attributes:
        width: values a column.
    """

    def __init__(self, num_rows: int, num_columns: int = 2048) -> None:
        self.width, self.count = 1, 0
        self._most = num_columns
        self._sums = np.zeros((num_rows, num_columns + 1))
        self._peaks = np.full((num_rows, num_columns + 1), -np.inf)

    def add(self, values: np.ndarray) -> None:
        """Takes the next values (K, t)."""
        while values.shape[1]:
            if self.count == self._most * self.width:
                self._halve()
            column, into = divmod(self.count, self.width)
            # What fills the open column, or as many whole columns as there are values and room for.
            if into or values.shape[1] < self.width:
                size = min(self.width - into, values.shape[1])
                columns = 1
            else:
                columns = min(values.shape[1] // self.width, self._most - column)
                size = columns * self.width
            some = values[:, :size].reshape(len(values), columns, -1)
            self._sums[:, column : column + columns] += some.sum(2)
            np.maximum(
                self._peaks[:, column : column + columns], some.max(2), out=self._peaks[:, column : column + columns]
            )
            self.count += size
            values = values[:, size:]

    @property
    def peaks(self) -> np.ndarray:
        """The greatest value (K, columns) of each column."""
        return self._peaks[:, : -(-self.count // self.width)]

    @property
    def means(self) -> np.ndarray:
        """The mean value (K, columns) of each column."""
        columns = -(-self.count // self.width)
        sizes = np.full(columns, self.width)
        if columns:
            sizes[-1] = self.count - (columns - 1) * self.width
        return self._sums[:, :columns] / sizes

    def _halve(self) -> None:
        half = self._most // 2
        for table, join, empty in ((self._sums, np.add, 0.0), (self._peaks, np.maximum, -np.inf)):
            table[:, :half] = join(table[:, : self._most : 2], table[:, 1 : self._most : 2])
            table[:, half:] = empty
        self.width *= 2

"""A progress bar that tells the time left by those steps alone that will be made again like it."""

from __future__ import annotations

from tqdm import tqdm


class Progress(tqdm):
    """A bar whose clock can leave out what says nothing of the steps to come, as compiling."""

    def leave_out(self, seconds: float, steps: int = 0) -> None:
        """The last `seconds`, with the steps that were made in them, count for no rate."""
        self.n += steps
        if not self.disable:
            self.initial += steps
            self.last_print_n += steps
            self.start_t += seconds
            self.last_print_t += seconds
            self.refresh()

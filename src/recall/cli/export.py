"""`recall export`: the weights of a run in Hugging Face's format."""

from pathlib import Path

from recall.config import Positional, Settings


class Export(Settings):
    """Write the weights of a run in Hugging Face's format, and print the directory that holds them.

    What verl trained is put together from the files of all GPUs, in bfloat16, and adapters are merged. A checkpoint of
    the local trainer is in that format already, so without --to its directory is printed.
    """

    run: Positional[Path]
    """A run directory."""
    step: int | None = None
    """The checkpoint's step; by default the last one's."""
    to: Path | None = None
    """The directory to make; by default checkpoints/step-N in the run."""

    def main(self) -> None:
        """Export."""
        from recall.store import Run
        from recall.trainers.export import export

        print(export(Run.open(self.run), self.step, self.to))

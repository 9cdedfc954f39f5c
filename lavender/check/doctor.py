"""Complete check of a configuration's data."""

from pathlib import Path

from lavender.check.cost import costs
from lavender.check.findings import ERROR, find_all
from lavender.check.fix import write_repaired
from lavender.check.report import content, draw, lines, write_json
from lavender.check.splits import open_splits
from lavender.check.videos import Videos
from lavender.config.schema import Config
from lavender.runtime.errors import DataError


def examine(config: Config, output: Path, decode: int, fix: Path | None, tflops: float, workers: int) -> int:
    """Prints all findings, writes `check.json` and `check.png` and, if `fix` is given, repaired copies.

    Args:
        decode: number of videos to decode, 0 for all; tflops: TFLOP/s of a GPU, for the estimate.

    Returns:
        the exit code: 1 if a finding would stop a run or spoil its metrics

    Raises:
        LavenderError: a file is missing or malformed.
    """
    output.mkdir(parents=True, exist_ok=True)
    splits = open_splits(config)
    if not splits:
        raise DataError("no split has samples")
    videos = Videos(splits)
    marks = videos.alike()
    decoded = videos.decode(decode, workers)
    findings = find_all(splits, videos, decoded, marks)
    estimates = costs(config, splits)
    print("\n".join(lines(splits, findings, estimates, tflops)))
    print(
        f"\n{len(decoded):,} of {len(videos.all):,} videos were decoded"
        + "; --decode all" * (len(decoded) < len(videos.all))
    )
    values = content(splits, findings, estimates, len(decoded), tflops)
    write_json(output / "check.json", values)
    drawn = draw(output / "check.png", splits, videos, decoded)
    print(
        f"{output / 'check.json'}"
        + (f", {output / 'check.png'}" if drawn else "; for a picture: pip install matplotlib")
    )
    if fix is not None:
        for copy in write_repaired(config, splits, videos, decoded, fix):
            print(f"{copy.path}: {copy.removed:,} {copy.unit} left out; {copy.option} reads it")
    return 1 if any(finding.level == ERROR for finding in findings) else 0

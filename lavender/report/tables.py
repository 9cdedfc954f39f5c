"""Metrics of several runs side by side: as a table, Markdown and LaTeX."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavender.report.runs import Key, Run

PERCENT = ("acc", "r@", "v2t_r@")  # metrics that are fractions
MEANINGS = {  # pattern of a metric → explanation
    r"acc|acc_1": "accuracy: percent of the questions (or pairs) whose best answer is right",
    r"acc_5": "percent of the questions whose right answer is among the five best",
    r"acc_\w*_?adjusted": "accuracy over the size of the public test split (size_test)",
    r"acc_mtm": "percent of the masked words that are predicted right",
    r"acc_vtm": "percent of the videos whose own text is the best match among the texts it is paired with",
    r"loss\w*": "mean loss",
    r"r@\d+": "text-to-video recall: percent of the texts whose own video is among the k best",
    r"v2t_r@\d+": "video-to-text recall: percent of the videos one of whose texts is among the k best",
    r"(v2t_)?(median|mean)_rank": "rank of the right one, from 1; v2t: of texts for a video",
    r"ties": "number of texts whose own video has the same score as another video",
    r"texts|videos": "size of the gallery",
    r"Bleu_\d|METEOR|ROUGE_L|CIDEr|SPICE": "caption metrics of the COCO toolkit, as fractions (× 100 in papers)",
    r"no_answer|no_reference|missing|bad_samples": "number of items left out, or replaced by zeros",
    r"best epoch": "the epoch whose metrics these are, chosen on validation",
}


@dataclass(frozen=True)
class Table:
    """Rows of metrics: `rows` name → one cell per column, "" if a run lacks it."""

    columns: list[str]
    rows: dict[str, list[str]]

    def meanings(self) -> dict[str, str]:
        """Explanations of the table's metrics: names → text."""
        found: dict[str, list[str]] = {}
        for name in self.rows:
            metric = "best epoch" if name.endswith("best epoch") else name.rsplit(" ", 1)[-1]
            words = next((words for pattern, words in MEANINGS.items() if re.fullmatch(pattern, metric)), "")
            if words and metric not in found.setdefault(words, []):
                found[words].append(metric)
        return {", ".join(metrics): words for words, metrics in found.items()}

    def markdown(self) -> str:
        """The table in Markdown, for a README."""
        lines = [["metric", *self.columns], ["---"] * (1 + len(self.columns))]
        lines += [[name, *cells] for name, cells in self.rows.items()]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def latex(self) -> str:
        """The table in LaTeX, for a paper: a `tabular` with booktabs rules, one run per row."""
        head = " & ".join(["run", *map(_tex, self.rows)])
        lines = [
            " & ".join([_tex(column), *(_tex(cells[n]) or "--" for cells in self.rows.values())]) + r" \\"
            for n, column in enumerate(self.columns)
        ]
        rules = [rf"\begin{{tabular}}{{l{'r' * len(self.rows)}}}", r"\toprule", head + r" \\", r"\midrule"]
        return "\n".join([*rules, *lines, r"\bottomrule", r"\end{tabular}"])


def compare(groups: Mapping[str, Sequence[Run]]) -> Table:
    """Metrics of each group at the best epochs; over several seeds as mean ± standard deviation."""
    values = {name: [run.best() for run in runs] for name, runs in groups.items()}
    keys: dict[Key, None] = {key: None for runs in values.values() for best in runs for key in best}
    rows = {}
    for key in keys:
        name = " ".join(filter(None, key))
        rows[name] = [_cell(key[2], [best[key] for best in runs if key in best]) for runs in values.values()]
    epochs = {name: [run.best_epochs() for run in runs] for name, runs in groups.items()}
    for task in dict.fromkeys(task for runs in epochs.values() for found in runs for task in found):
        name = " ".join(filter(None, (task, "best epoch")))
        rows[name] = [", ".join(str(found[task]) for found in runs if task in found) for runs in epochs.values()]
    return Table(list(groups), rows)


def number(metric: str, value: float) -> str:
    """Formatted value: fractions in percent, integers without decimals, others with four digits."""
    if not math.isfinite(value):
        return str(value)
    if metric.startswith(PERCENT) and 0 <= value <= 1:
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def _cell(metric: str, values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = number(metric, statistics.fmean(values))
    if len(values) == 1:
        return mean
    scale = 100 if metric.startswith(PERCENT) else 1
    return f"{mean} ± {scale * statistics.stdev(values):.2g} (n = {len(values)})"


def _tex(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, rf"\{sign}")
    return text.replace("±", r"$\pm$")

"""The command ``impute``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subo.cli.arguments import DataSource, ReadOptions, RunPath, check_apart, check_ending
from subo.cli.beside_data import say_beside_data
from subo.cli.messages import say
from subo.cli.rows import of_rows, run_and_rows, say_quoted
from subo.errors import InputError
from subo.runtime.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from subo.data.splits import Split
    from subo.data.tables.parsing import Written
    from subo.data.tables.schema import Schema

__all__ = ["impute"]

_FEW = 10  # effective samples, below which draws repeat each other
_NAMED = 5  # rows


def impute(
    run: RunPath,
    data: DataSource,
    /,
    *,
    out: Path,
    draws: int | None = None,
    refits: int | None = None,
    num_samples: int = 1000,
    how: ReadOptions = ReadOptions(),  # noqa: B008 (a frozen record)
    seed: int = 0,
) -> None:
    """Fills the missing cells of a table.

    Without --draws each cell gets its best guess, which makes all numbers near their means and tables too regular: of
    draws the mean, of ordered levels the median, of others the most frequent one. With --draws N, N tables are filled
    with draws from p(missing cells | observed cells); what is computed from each of them varies as the missing cells
    may, and subo.pooled joins it.

    Columns that the model is conditioned on (fit --condition) help to fill the others, and stay as they are.

    Args:
        run: Run folder, of a table of mixed columns.
        data: The table; its columns in any order.
        out: Output file, .csv, .tsv, .parquet or .feather, with the columns, rows and observed cells as they are. With
            several draws each table's rows follow the others', and the first column, draw, numbers the tables.
        draws: Number of filled tables; by default one, of best guesses.
        refits: Number of models among which the draws are divided: each is fitted as the run was, to rows drawn from
            its training rows with replacement, and takes as long. By default all draws are from the run's own model, as
            if its parameters were known, and intervals from the tables are too narrow; subo.pooled(..., refits=N) joins
            those of refits.
        num_samples: Posterior samples for each row, from which its draws are taken by their weights.
        how: How the data are read.
        seed: Seed for the draws.
    """
    from subo.data.annotated import ANNOTATED
    from subo.data.tables.filling import filled, most_likely, observed_texts
    from subo.data.tables.options import TEXTS
    from subo.data.tables.writing import WRITTEN, counts_rows, save_frame
    from subo.evaluation.imputation import check_refits
    from subo.evaluation.imputation import impute as imputed
    from subo.experiments.experiment import model_for
    from subo.experiments.refits import impute_by_refits
    from subo.runtime.progress import bar

    check_ending(out, *WRITTEN)
    check_apart(out, run, data)
    frames: list[Any] = []
    experiment, split = run_and_rows(run, data, how, on_frame=frames.append)
    schema = experiment.config.data.meaning.table
    if schema is None:
        raise InputError(f"{run} was not fitted to a table of mixed columns, whose missing cells can be filled")
    if not frames or data.lower().endswith(ANNOTATED):  # whose frame is beside the rows
        raise InputError(f"{data} is not a table, and the run was fitted to one: give a file such as .csv")
    (frame,) = frames
    if split.rows is not None:
        some = frame.iloc[(split.rows - 1).tolist()]
        frame = some.reset_index(drop=True) if counts_rows(frame) else some
    options: dict[str, Any] = {"num_draws": draws or 100, "num_samples": num_samples, "seed": seed}
    if refits is not None:
        check_refits(draws, refits)
        with bar("refits", refits, show=True) as advance:
            result = impute_by_refits(experiment, split, refits=refits, **options, advance=advance)
    else:
        model = model_for(experiment, split, progress=True)
        with bar("missing cells", len(split), show=True) as advance:
            result = imputed(model, split, **options, advance=advance)
    tables = [most_likely(result.draws, schema)] if draws is None else list(result.draws)
    whole = filled(frame, tables, schema, numbered=draws is not None and draws > 1)
    of_text = data.lower().endswith(TEXTS) and out.suffix.lower() in TEXTS
    written = _written(Path(data), how, split, schema) if of_text else None
    kept = None if written is None else observed_texts(written, frame, schema)
    quoted = save_frame(out, whole, schema, written=kept)
    by = f" by {counted(refits, 'refit')}" if refits else ""
    rows = counted(int(split.x.isnan().any(1).sum()), "row")
    say(f"{counted(int(split.x.isnan().sum()), 'missing cell')} of {rows} filled{by}, {out} written")
    say_quoted(quoted, out)
    say_beside_data(experiment, _only_filled(tables, split), schema, what="filled cells")
    _say_what_stays(frame, schema)
    _say_what_to_know(split, result.effective_sample_size, experiment.config.given, num_samples)


def _only_filled(tables: "list[Tensor]", split: "Split") -> "Tensor":
    """Filled tables, one below the other, with NaN for observed cells."""
    import torch

    return torch.cat(tables).masked_fill(~split.x.isnan().repeat(len(tables), 1), torch.nan)


def _written(path: Path, how: ReadOptions, split: "Split", schema: "Schema") -> "Written":
    """The cells of a file of text as they are written, in the rows of the split."""
    from subo.data.tables.reading import read_texts

    marks = {"separator": how.separator or schema.separator, "decimal": how.decimal or schema.decimal}
    written = read_texts(path, **marks)
    if path.name.lower().endswith((".tsv", ".tsv.gz")):  # tabs are for such files alone
        written = replace(written, separator=";" if written.decimal == "," else ",")
    return written if split.rows is None else replace(written, cells=written.cells.iloc[(split.rows - 1).tolist()])


def _say_what_stays(frame: Any, schema: "Schema") -> None:
    """Names columns that are left out and keep their missing cells."""
    left = frame[[column.name for column in schema.dropped if column.name in frame.columns]].isna().sum()
    if gone := int(left.sum()):
        names = ", ".join(map(str, left.index[left > 0][:_NAMED]))
        say(f"{counted(gone, 'missing cell')} of columns that are left out {'stays' if gone == 1 else 'stay'}: {names}")


def _say_what_to_know(split: "Split", effective: "Tensor", given: str | None, num_samples: int) -> None:
    """Names cells that stay missing, and rows whose draws repeat each other."""
    cells = split.context.get("given")
    if cells is not None and (gone := int(cells.isnan().sum())):
        say(
            f"{counted(gone, 'missing cell')} of the condition ({given}) {'stays' if gone == 1 else 'stay'} missing: "
            "the model describes the other columns given these"
        )
    missing = split.x.isnan()
    few = (missing.any(1) & ~missing.all(1) & (effective < _FEW)).nonzero()[:, 0]
    if len(few):
        rows, poorest = of_rows(split)["row"], few[effective[few].argsort()[:_NAMED]].tolist()
        named = f"row{'s' * (len(poorest) > 1)} {', '.join(str(rows[i]) for i in poorest)}"
        say(
            f"Careful: the weights of {counted(len(few), 'row')} are worth fewer than {_FEW} samples, fewest in "
            f"{named}: their draws repeat each other. More samples: --num-samples {10 * num_samples}"
        )

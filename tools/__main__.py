"""The command `regbundles`: every command's flags are checked before any work; a bad request costs one sentence.

Exit status: 0 done, 1 a check failed, 2 bad input or usage, 3 the machine cannot, 4 not finite numbers.
"""

from typing import Annotated

import typer

from .arguments import Out, command_line, ranges, run
from .benchmark.commands import benchmark
from .bundle_commands import COMMANDS as BUNDLE_COMMANDS
from .data_commands import data
from .extract_command import extract_command
from .fetch_command import fetch_command
from .new_command import new_command
from .register_command import register_command
from .report_command import report_command
from .transform_commands import COMMANDS
from .weights_command import weights_command

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Tools around the registration bundles.")
app.command("register")(register_command)
app.command("extract")(extract_command)
app.command("report")(report_command)
app.command("fetch")(fetch_command)
app.command("new")(new_command)
app.command("weights")(weights_command)
for command in (*COMMANDS, *BUNDLE_COMMANDS):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(benchmark, name="benchmark")


@app.command()
def evaluate(
    dataset_dir: Annotated[str, typer.Option(help="prepared data set, with labels or keypoints")],
    method: Annotated[
        list[str],
        typer.Option(
            help="NAME=SOURCE: none (headers alone), syn, elastix, a bundle's folder, or a folder of predictions"
        ),
    ],
    out: Out,
    section: Annotated[str, typer.Option(help="validation or testing")] = "validation",
    labels: Annotated[str | None, typer.Option(help="values, as 1,2,5-9; default the datalist's")] = None,
    layout: Annotated[str, typer.Option("--format", help="own, or learn2reg: writes a submission too")] = "own",
    overlay: Annotated[list[str] | None, typer.Option(help="NAME=FILE over a bundle's inference.json")] = None,
    override: Annotated[list[str] | None, typer.Option(help="NAME:ID=VALUE in a bundle's config")] = None,
    ndv_in_moving: Annotated[bool, typer.Option(help="NDV where the moving image is above 0, as LUMIR")] = False,
    sdlogj_in_mask: Annotated[bool, typer.Option(help="SDlogJ in the fixed mask, as Learn2Reg's lung tasks")] = False,
    reports: Annotated[int, typer.Option(help="pages of so many of each method's worst pairs; -1: all")] = 3,
) -> None:
    """Score methods over a data set's pairs: Dice, HD95, TRE, SDlogJ, NDV, folds; csv files, a table, a box plot."""
    from .evaluate import evaluate

    evaluate(
        dataset_dir,
        section,
        method,
        out,
        labels=None if labels is None else ranges(labels, "--labels"),
        layout=layout,
        overlays=overlay or (),
        overrides=override or (),
        ndv_in_moving=ndv_in_moving,
        sdlogj_in_mask=sdlogj_in_mask,
        reports=reports,
        command=command_line(),
    )


def main() -> None:
    """Run the command; a RegError ends it with its sentence alone."""
    run(app)


if __name__ == "__main__":
    main()

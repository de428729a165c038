"""`regbundles data`: it parses; the modules of ``tools/data`` work."""

from pathlib import Path
from typing import Annotated

import typer

from .arguments import Force, Out, Timeout, Tries, Workers
from .own_data_commands import folder, pairs

__all__ = ["data"]

data = typer.Typer(no_args_is_help=True, help="Raw scans in, a model-ready data set out.")
prepare = typer.Typer(no_args_is_help=True, help="Prepare one data set from a folder of its raw files.")
data.add_typer(prepare, name="prepare")
prepare.command()(folder)
prepare.command()(pairs)
Name = Annotated[str, typer.Argument(help="of `regbundles data list`")]
Partial = Annotated[bool, typer.Option(help="accept fewer scans than the release or the split has")]
TemplateHead = Annotated[str | None, typer.Option(help="whole head of a like contrast, to strip whole heads by")]
TemplateMask = Annotated[str | None, typer.Option(help="its brain, on its grid")]


@data.command("list")
def list_sources() -> None:
    """Name the data sets: size, license, and whether a person has to accept terms or log in."""
    from .data.catalog import sources
    from .data.describe import table

    print(table(sources()))


@data.command()
def info(name: Name) -> None:
    """Tell a data set's source, terms, license, citation, files with their hashes, and splits."""
    from .data.catalog import find_source
    from .data.describe import describe

    print(describe(find_source(name)))


@data.command()
def download(
    name: Name,
    raw: Annotated[str, typer.Option(help="folder for the files as they are published")],
    out: Annotated[str | None, typer.Option(help="folder of the prepared data set; without it none is made")] = None,
    accept: Annotated[bool, typer.Option(help="you have read and accept the terms that `data info` names")] = False,
    force: Annotated[bool, typer.Option(help="replace files that are there with another hash")] = False,
    quiet: Annotated[bool, typer.Option(help="draw no bar")] = False,
    timeout: Timeout = 60.0,
    tries: Tries = 5,
) -> None:
    """Fetch a data set, unpack it and, with --out, prepare it; what is there already is not fetched again."""
    from .data.acquire import acquire
    from .data.catalog import find_source
    from .data.fetch.web import patience_of

    prepared, patience = None if out is None else Path(out), patience_of(timeout, tries)
    options = {"accept": accept, "force": force, "quiet": quiet, "patience": patience}
    print(acquire(find_source(name), Path(raw), prepared, **options))


@data.command()
def check(
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="prepared data sets")],
    quiet: Annotated[bool, typer.Option(help="draw no bar")] = False,
) -> None:
    """Read prepared data sets to the last byte and tell every finding, and persons whom several of them show.

    Exit status 1 if there is a finding, or if somebody is trained on and tested.
    """
    from .data.check import check_datasets, leaks, summary
    from .data.leakage import untold

    checked = check_datasets(folders, quiet)
    overlaps = leaks(checked)
    for one in checked:
        print("\n".join([summary(one), *(f"  {text}" for text in one.findings)]))
    notes = [untold(one.name, [scan for scans in one.scans.values() for scan in scans]) for one in checked]
    for note in filter(None, notes if len(checked) > 1 else ()):
        print(note)
    for overlap, leak in overlaps:
        print(f"{'LEAK: ' * leak}{overlap.text()}")
    if any(one.findings for one in checked) or any(leak for _, leak in overlaps):
        raise typer.Exit(1)


@data.command()
def links(name: Annotated[str | None, typer.Argument(help="of `regbundles data list`; all without it")] = None) -> None:
    """Ask the servers whether each file is still there, of the published size; nothing is downloaded.

    Exit status 1 if one is not.
    """
    from .data.catalog import find_source, sources
    from .data.describe import link_line
    from .data.fetch.links import check_links

    files = [file for source in ([find_source(name)] if name else sources()) for file in source.files]
    answers = check_links(files)
    print("\n".join(map(link_line, answers)))
    if any(answer.finding for answer in answers):
        raise typer.Exit(1)


@prepare.command()
def malc(
    raw: Annotated[str, typer.Option(help="folder of the official files or of <id>_SS.nii.gz and <id>_glm.nii.gz")],
    out: Out,
    mask: Annotated[str, typer.Option(help="none (skull-stripped scans), labels, or a path with {id} in it")] = "none",
    template: Annotated[str | None, typer.Option(help="scan to align to; default the first training subject")] = None,
    spacing: Annotated[float, typer.Option(help="voxel size in mm, 1 or 2")] = 1.0,
    split: Annotated[str, typer.Option(help="collection (12, 3, 20), official (15, 20), one-fixed")] = "collection",
    template_head: TemplateHead = None,
    template_mask: TemplateMask = None,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """MICCAI 2012 Multi-Atlas Labelling Challenge: 35 brains, 134 structures. License: CC BY-NC, yours to accept."""
    from .data.brain_masks import head_template
    from .data.malc import prepare
    from .data.malc_layout import find_split

    heads = head_template(template_head, template_mask)
    print(prepare(raw, out, mask, template, spacing, workers, force, find_split(split), heads))


@prepare.command()
def lung_ct(
    raw: Annotated[str, typer.Option(help="folder of the unpacked archive, Learn2Reg's or Zenodo's")],
    out: Out,
    intensity: Annotated[str, typer.Option(help="hounsfield, or stored for files that are not in HU")] = "hounsfield",
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Learn2Reg LungCT, for evaluation: 8 pairs of a patient, 56 of two. License: CC BY 4.0, yours to accept."""
    from .data.lung_ct import prepare

    print(prepare(raw, out, intensity, workers, force))


@prepare.command()
def learn2reg(
    raw: Annotated[str, typer.Option(help="folder of an unpacked release with its <NAME>_dataset.json")],
    out: Out,
    name: Annotated[str | None, typer.Option(help="of the data set, where the folder holds several")] = None,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Any Learn2Reg release (LungCT, OASIS, NLST) as its own json pairs it. License: the json's, yours to accept."""
    from .data.challenge import prepare

    print(prepare(raw, out, name, workers, force))


for release in ("lung-ct", "oasis", "nlst"):
    prepare.command(f"learn2reg-{release}", hidden=True)(learn2reg)  # by the names of their sources


@prepare.command()
def abdomen_ct(
    raw: Annotated[str, typer.Option(help="folder of the unpacked AbdomenCTCT")],
    out: Out,
    protocol: Annotated[
        str, typer.Option(help="eoir (20 / 3 / 7 scans at 4 mm) or challenge (its pairs at 2 mm)")
    ] = "eoir",
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Learn2Reg AbdomenCTCT: 30 labelled abdomens, 13 organs. License: the challenge's, yours to accept."""
    from .data.abdomen_ct import prepare

    print(prepare(raw, out, protocol, workers, force))


@prepare.command()
def lumir(
    raw: Annotated[str, typer.Option(help="folder of the unpacked archive and LUMIR_dataset.json")],
    out: Out,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """LUMIR 2024: 3374 unlabelled brains, 10 labelled ones to validate on. License: CC BY 4.0, yours to accept."""
    from .data.lumir import prepare

    print(prepare(raw, out, workers, force))


@prepare.command()
def ixi(
    raw: Annotated[str, typer.Option(help="folder of TransMorph's release: atlas.pkl, Train, Val, Test")],
    out: Out,
    partial: Partial = False,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """IXI, TransMorph's release: an atlas onto 403 / 58 / 115 brains, 30 structures. License: CC BY-SA 3.0."""
    from .data.ixi import prepare

    print(prepare(raw, out, partial, workers, force))


@prepare.command()
def acdc(
    raw: Annotated[str, typer.Option(help="folder of the unpacked archive, patientNNN/ at any depth")],
    out: Out,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """ACDC: 150 hearts at end-diastole and end-systole. License: CC BY-NC-SA, yours to accept."""
    from .data.acdc import prepare

    print(prepare(raw, out, workers, force))


@prepare.command()
def mindboggle(
    raw: Annotated[str, typer.Option(help="folder of the unpacked archive, <COHORT>_volumes/ at any depth")],
    out: Out,
    labels: Annotated[str, typer.Option(help="dkt31 (62 structures), or dkt25 (50, merged)")] = "dkt25",
    fixed: Annotated[str | None, typer.Option(help="the fixed scan of all pairs; see the documentation")] = None,
    flipped: Annotated[str, typer.Option(help="keep or drop scans that lie the wrong way round")] = "keep",
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Mindboggle-101: 101 labelled brains, for evaluation. License: CC BY and the cohorts' own, yours to accept."""
    from .data.mindboggle import prepare

    print(prepare(raw, out, labels, fixed, flipped, workers, force))


@prepare.command()
def ixi_raw(
    raw: Annotated[str, typer.Option(help="folder of IXI<number>-<site>-<number>-T1.nii.gz, or FreeSurfer's subjects")],
    out: Out,
    mask: Annotated[str, typer.Option(help="none (FreeSurfer, stripped scans) or a path with {id} in it")] = "none",
    template: Annotated[str | None, typer.Option(help="scan to align to; default the first training subject")] = None,
    spacing: Annotated[float, typer.Option(help="voxel size in mm, 1 or 2")] = 1.0,
    template_head: TemplateHead = None,
    template_mask: TemplateMask = None,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """IXI's own T1 scans, or FreeSurfer's output of them. License: CC BY-SA 3.0."""
    from .data.brain_masks import head_template
    from .data.ixi_raw import prepare

    heads = head_template(template_head, template_mask)
    print(prepare(raw, out, mask, template, spacing, workers, force, heads))


@prepare.command()
def oasis(
    raw: Annotated[str, typer.Option(help="folder of neurite's OASIS_OAS1_<number>_MR1")],
    out: Out,
    labels: Annotated[str, typer.Option(help="seg35 (structures) or seg4 (tissues)")] = "seg35",
    split: Annotated[str, typer.Option(help="learn2reg (394 / 19 pairs) or patch (182 pairs / 5 pairs)")] = "learn2reg",
    partial: Partial = False,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """neurite-OASIS: 414 stripped, aligned brains. License: OASIS Data Use Agreement, yours to accept."""
    from .data.oasis import prepare

    print(prepare(raw, out, labels, split, partial, workers, force))


@prepare.command()
def oasis_transmorph(
    raw: Annotated[str, typer.Option(help="folder of TransMorph's pickles: All and Test")],
    out: Out,
    partial: Partial = False,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """OASIS as TransMorph's pickles: 394 brains, 19 pairs. License: OASIS Data Use Agreement, yours to accept."""
    from .data.oasis_pickles import prepare

    print(prepare(raw, out, partial, workers, force))

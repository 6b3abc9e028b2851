"""`intentbench pack`: a benchmark as one file, for a machine with torch and Lightning alone."""

import argparse
import sys
from pathlib import Path

from intentbench.commands.outputs import check_file
from intentbench.commands.shared import add_choice, add_data_root, chosen_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to pack, as `run` takes it, and where it goes."""
    parser.epilog = "What the other machine does with it: docs/moving.md."
    parser.add_argument("spec", type=Path, help="a YAML file, see benchmarks/")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE.tar")
    add_choice(parser, "rows to run: a,b; default: all")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder of all runs: what is done is packed"
    )
    parser.add_argument(
        "--wheels",
        metavar="auto|DIR",
        help="carry what else must be installed: downloaded, or from a folder of wheels",
    )
    parser.add_argument("--python", default="", metavar="3.12", help="the other machine's version")
    add_data_root(parser)


def run(options: argparse.Namespace) -> int:
    """Check, prepare, write the file, and say what is in it."""
    check_file("--output", options.output)
    from tempfile import TemporaryDirectory

    from intentbench.runner.bundle import collect, write_bundle
    from intentbench.runner.grid import RunOptions
    from intentbench.runner.wheels import gather_wheels, needed_wheels

    spec = chosen_spec(options, options.seeds)
    chosen = {name: getattr(options, name) for name in ("models", "datasets", "seeds")}
    words = [f"--set={override}" for override in options.overrides]
    words += [f"--{name}={','.join(map(str, parts))}" for name, parts in chosen.items() if parts]
    settings = RunOptions(out=options.out, data_root=options.data_root)
    bundle = collect(spec, options.spec, settings, words)
    with TemporaryDirectory(prefix="intentbench-wheels-") as temporary:
        if options.wheels:
            needed = needed_wheels(options.python)
            bundle = bundle.with_wheels(
                gather_wheels(options.wheels, needed, Path(temporary), options.python)
            )
        size = write_bundle(bundle, options.output)
    trials = bundle.manifest["trials"]
    wheels = sum(name.startswith("wheels/") for name in bundle.files)
    sys.stdout.write(
        f"wrote {options.output}: {size / 2**20:.1f} MiB, {trials['all']} trials "
        f"({trials['done']} done), {len(bundle.manifest['datasets'])} datasets, {wheels} wheels\n"
    )
    return 0

"""What is refused before a grid starts: no trial is to fail on it hours later."""

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from intentbench.models.takes import TakesDataset
from intentbench.runner.arguments import construct
from intentbench.runner.config import Trial
from intentbench.runner.entrants import Entrant

ADVICE = "leave one of them out with --models or --datasets"


def check_needs(entrant: Entrant, name: str, dataset: PreparedDataset) -> None:
    """Whether a dataset has what a row's method asks for.

    Raises:
        RequestError: it lacks something.
    """
    present = dataset.tensors().keys()
    for need in entrant.cls.CARD.needs:
        if need not in present and f"{need}.values" not in present:
            raise RequestError(
                f"{entrant.label}: needs {need}, which dataset {name!r} does not have; {ADVICE}"
            )
    if issubclass(entrant.cls, TakesDataset):
        entrant.cls.check(dataset, entrant.arguments_on(name))


def check_builds(entrant: Entrant, trial: Trial) -> None:
    """Build a row's method as the trial will: a width that its heads do not divide ends here.

    Not where nothing is trained: what takes seconds may say itself that it is too large.

    Raises:
        RequestError: it cannot be built; `--debug` shows where.
    """
    if not entrant.cls.CARD.gradient:
        return
    try:
        construct(entrant.cls, trial.arguments)
    except Exception as error:  # a method may raise anything
        said = " ".join(str(error).split())
        kind = "" if isinstance(error, RequestError) else f"{type(error).__name__}: "
        where = f"{trial.label} on {trial.dataset}"
        raise RequestError(f"{where} cannot be built: {kind}{said}; {ADVICE}") from error

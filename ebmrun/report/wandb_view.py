"""The command `ebmrun-view`: a saved view of a project in Weights & Biases, whose runs stand beside each other by
algorithm: what was learned, how far its gradients were from the reference, how the relaxation went.

The view is made here; an account is needed for saving it alone.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ebmrun.report.cli import Parser
from ebmrun.training.wandb_client import STEP, axes

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

SECTIONS = {
    "Learning": ["test/accuracy", "val/accuracy", "test/loss", "train/loss"],
    "Alignment": ["alignment/angle", "alignment/relative_error", "alignment/relative_error/worst",
                  "alignment/norm_ratio"],
    "Relaxation": ["relax/steps", "relax/residual", "relax/converged", "relax/free_converged"],
    "Time": ["time/step_ms", "optim/lr"],
}
LOGARITHMIC = ("alignment/angle", "alignment/relative_error", "alignment/relative_error/worst", "relax/residual")


def main() -> None:
    """Saves the view to the project that `sys.argv` names, and prints its address. Raises SystemExit with 2 where that
    cannot be."""
    parser = Parser(prog="ebmrun-view", description=" ".join((__doc__ or "").partition(": ")[2].split()))
    parser.add_argument("project", type=_project, metavar="ENTITY/PROJECT", help="where runs were logged or synced to")
    entity, project = parser.parse_args().project
    try:
        view = workspace(entity, project)
    except ModuleNotFoundError as error:
        parser.error(f"{error.name} is not installed: pip install '.[view]' in the folder of ebmrun")
    try:
        view.save()  # which prints its address
    except Exception as error:  # noqa: BLE001 - whatever the client raises, of its many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        parser.error(f"cannot save to {entity}/{project} ({reason}): log in with wandb login, and see that the project "
                     "is there")


def workspace(entity: str, project: str) -> Workspace:
    """The view, on no server yet."""
    from wandb_workspaces import workspaces
    from wandb_workspaces.reports.v2 import LinePlot

    every = [metric for metrics in SECTIONS.values() for metric in metrics]
    across = axes(["epoch", *every], STEP)

    def plot(metric: str) -> LinePlot:
        return LinePlot(title=metric, x=across[f"{metric.partition('/')[0]}/*"], y=[metric],
                        log_y=metric in LOGARITHMIC)

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="ebmrun: learning, alignment, relaxation",
        sections=[workspaces.Section(name=name, panels=[plot(metric) for metric in metrics], is_open=True)
                  for name, metrics in SECTIONS.items()],
        settings=workspaces.WorkspaceSettings(group_by_prefix="first"),
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Config("algo.name")]),
    )


def _project(text: str) -> tuple[str, str]:
    entity, slash, project = text.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise argparse.ArgumentTypeError(f"{text} is no project: write ENTITY/PROJECT, such as mylab/ebmrun")
    return entity, project

"""The base model of a command that names none."""

from __future__ import annotations

from tincture.cli.session import Session
from tincture.workspace import Workspace


def named_model(session: Session, model: str, workspace: Workspace) -> str:
    """``model``, or the default one of the workspace, which is told on stderr where the workspace has models.

    Raises:
        UsageError: there are several, and none was used yet.
    """
    if model:
        return model
    from tincture.models.loading.default_model import default_model

    found = default_model(workspace)
    if workspace.list_models():
        session.say(f"model: {found.name} ({found.reason})")
    return str(found)

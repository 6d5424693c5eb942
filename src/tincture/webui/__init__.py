"""The training calls of stable-diffusion-webui, by its own names: existing scripts need another import only.

    from tincture.webui import create_hypernetwork, train_hypernetwork

    create_hypernetwork("ink", ["768", "320", "640", "1280"], False)
    hypernetwork, filename = train_hypernetwork("task", "ink", "0.00001", 1, 1, "pictures", "textual_inversion", ...)

They are thin translations: every argument is checked here, and what they do is done by ``tincture.recipe``. Nothing
heavy is imported before a call runs. docs/api-webui.md says what differs from the webui on purpose.
"""

from tincture.webui.calls import create_embedding, create_hypernetwork, preprocess, train_embedding, train_hypernetwork

__all__ = ["create_embedding", "create_hypernetwork", "preprocess", "train_embedding", "train_hypernetwork"]

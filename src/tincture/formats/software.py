"""What this software calls itself in files and answers."""

VERSION = "0.1.0"


def software() -> dict[str, str]:
    """What made a file, as provenance says it."""
    return {"software": f"tincture {VERSION}"}

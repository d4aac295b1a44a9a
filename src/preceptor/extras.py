"""Optional libraries: present, or an error that says which extra brings them."""

from importlib.util import find_spec

from preceptor.errors import UserError


def require_extra(module: str, extra: str, purpose: str) -> None:
    """Raise UserError where `module` is not installed; nothing is imported."""
    if find_spec(module) is None:
        raise UserError(
            f"{purpose} needs the library {module}, which is not installed",
            remedy=f"pip install 'preceptor[{extra}]'",
        )

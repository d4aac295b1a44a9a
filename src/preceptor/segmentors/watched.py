"""One run of a module whose submodules are watched: what it answers, and what they answered on the way."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling


def run_watched(
    module: nn.Module, image: Tensor, paths: Mapping[str, str], keep: Callable[[str, Any], Any]
) -> tuple[Any, dict[str, Any]]:
    """(the module's answer, name to `keep(name, answer)` of the submodule at `paths[name]`, called as it answers).

    The last answer counts where a submodule is called several times; a name is missing where it is not called. The
    hooks live for this call and for this thread: nothing is left in the module, so that it can be copied, pickled and
    exported, and used by several threads at once.
    """
    found: dict[str, Any] = {}
    thread = 0 if is_compiling() else threading.get_ident()

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _given: Any, answer: Any) -> None:
            if is_compiling() or threading.get_ident() == thread:
                found[name] = keep(name, answer)

        return hook

    hooks = []
    try:
        for name, path in paths.items():
            hooks.append(module.get_submodule(path).register_forward_hook(hook_of(name)))
        return module(image), found
    finally:
        for hook in hooks:
            hook.remove()

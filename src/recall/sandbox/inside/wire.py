"""What the trainer, the zygote and a child must agree on: the shapes of their messages. It sends none itself."""

from struct import Struct

HEADER = Struct(">II")
"""Before each frame of a session: the length of its body, the number of the request that it belongs to."""

CHANNEL = 3
"""The descriptor of the child's end of its session."""

ASK = 1 << 31
"""Set in the number of a frame in which a child asks for a web request, and in that of the answer."""

LAST_REQUEST = ASK - 1
"""The largest number of a request; the next one is 1 again."""

CODE = b"C"
"""Begins the body in which a child says what its source compiled to; no reply begins so."""

CODE_BYTES = 1 << 16
"""Longer codes are not handed on; an empty one is said in their place."""

MESSAGE = Struct(">cIi")
"""Kind, session, value. To the zygote: `F` fork, the value being the sum of `FORKS` and `WARM`; `K` kill; `I` interrupt
the call; `S` stop; `C` go on. From it: `R` ready, with the mask of layers; `X` ended, with the exit status, negative
for a signal; `E` could not be forked."""

FORKS, WARM = 1, 2
"""What a child is to be: able to copy itself; made ahead of need, so that it has time to touch its pages."""

_BOOTSTRAP = """
import sys
box = type(sys)("box")
box.__path__ = [sys.argv[1]]
sys.modules["box"] = box
from box.{module} import main
main(sys.argv[2])
"""


def interpreter_arguments(module: str, settings: str) -> list[str]:
    """What the interpreter is given to run `main` of a module of this directory with the JSON `settings`.

    The directory is a package of its own there, so that the one that it lies in, and whatever that imports, stays out.
    Not `-I`, which would ignore the fixed hash seed: with an environment that holds nothing else, these are as strict.
    """
    flags = ["-P", "-s", "-S", "-B", "-X", "utf8"]
    return [*flags, "-c", _BOOTSTRAP.format(module=module), __file__.rpartition("/")[0], settings]

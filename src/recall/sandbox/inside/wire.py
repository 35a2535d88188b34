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

MESSAGE = Struct(">cIi")
"""Kind, session, value. To the zygote: `F` fork, the value being the sum of `FORKS` and `WARM`; `K` kill; `I` interrupt
the call; `S` stop; `C` go on. From it: `R` ready, with the mask of layers; `X` ended, with the exit status, negative
for a signal; `E` could not be forked."""

FORKS, WARM = 1, 2
"""What a child is to be: able to copy itself; made ahead of need, so that it has time to touch its pages."""

BOOTSTRAP = """
import sys
box = type(sys)("box")
box.__path__ = [sys.argv[1]]
sys.modules["box"] = box
from box.zygote import main
main(sys.argv[2])
"""
"""What the zygote's interpreter runs, with this directory and the settings as arguments. The directory is a package of
its own there, so that the one that it lies in, and whatever that imports, stays out."""

"""What the trainer, the zygote and a child must agree on: the shapes of their messages. It sends none itself."""

from struct import Struct

HEADER = Struct(">II")
"""Before each frame of a session: the length of its body, the number of the request that it belongs to."""

CHANNEL = 3
"""The descriptor of the child's end of its session."""

LAYERS = ("processes", "uid", "network", "landlock:fs", "landlock:tcp", "landlock:scope")
"""The layers of isolation that a host may lack, in the order of the bits of the mask that the zygote reports."""

MESSAGE = Struct(">cIi")
"""Kind, session, value. To the zygote: `F` fork, `K` kill. From it: `R` ready, with the mask of layers; `X` ended, with
the exit status, negative for a signal; `E` could not be forked."""

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

"""The attacks on the sandbox, as data: 85 items of the design's list and what was thought of since."""

from attacks.channel import CHANNEL
from attacks.elsewhere import ELSEWHERE
from attacks.files import FILES
from attacks.interpreter import RUNNER
from attacks.kernel import KERNEL
from attacks.model import Attack
from attacks.network import NETWORK
from attacks.processes import NEW, OTHERS
from attacks.resources import SPACE, TIME
from attacks.values import TEXT, VALUES

__all__ = ["ATTACKS", "ELSEWHERE", "Attack"]

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (*FILES, *OTHERS, *NEW, *KERNEL, *NETWORK, *TIME, *SPACE, *CHANNEL, *RUNNER, *VALUES, *TEXT)
}
"""By name, in the order in which they are run."""

"""The items of the design's list that are no single tool, and the tests that hold them."""

ELSEWHERE: dict[int, tuple[str, ...]] = {
    37: ("test_egress.py",),
    57: ("test_attacks.py::test_sessions_that_all_fill_their_memory_leave_the_sandbox_standing",),
    62: ("test_renderer.py",),
    79: ("test_sandbox.py::test_sessions_share_nothing",),
    80: ("test_sandbox.py",),
    81: ("test_sandbox_server.py",),
    82: ("test_sandbox_server.py",),
    83: ("test_sandbox_soak.py", "test_sandbox.py::test_a_dead_zygote_fails_its_sessions_and_is_replaced"),
    84: ("test_sandbox.py::test_nothing_survives_the_death_of_the_parent", "test_sandbox_server.py"),
    85: ("test_sandbox_soak.py",),
}
"""By item: the file, or file and test."""

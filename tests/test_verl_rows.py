"""What verl trains on is the trajectory itself, and what verl logs comes out under our names."""

import json
from pathlib import Path

import pytest

from recall.trainers.verl.policy import Versions
from recall.trainers.verl.progress import LogReader
from recall.trainers.verl.rows import batch_metrics, output_fields, report_of, row_of
from recall.types import RewardResult, Segment, StopReason, Trajectory

GOOD = RewardResult(1.0, correct=True, parts={})
BAD = RewardResult(0.0, correct=False, parts={})


def trajectory(*segments: Segment, fault: str | None = None) -> Trajectory:
    stop = StopReason.FAULT if fault is not None else StopReason.DONE
    return Trajectory("t", segments, stop, fault=fault)


def asked(*ids: int) -> Segment:
    return Segment(ids)


def sampled(*ids: int) -> Segment:
    return Segment(ids, tuple(-0.5 * number for number in range(1, len(ids) + 1)))


def test_a_row_is_the_trajectory_up_to_the_last_sampled_token() -> None:
    row = row_of(trajectory(asked(1, 2), sampled(3, 4), asked(5), sampled(6), asked(7, 8)), GOOD)
    assert row is not None
    assert row.prompt_ids == [1, 2]
    assert row.response_ids == [3, 4, 5, 6]
    assert row.response_mask == [1, 1, 0, 1]
    assert row.response_logprobs == [-0.5, -1.0, 0.0, -0.5]
    assert row.score == 1.0


def test_after_a_fault_of_ours_there_is_no_row() -> None:
    assert row_of(trajectory(asked(1), sampled(2), fault="SandboxError: gone"), BAD) is None


def test_where_the_policy_wrote_nothing_there_is_no_row() -> None:
    assert row_of(trajectory(asked(1, 2)), BAD) is None


def test_every_output_has_the_same_fields_and_says_which_weights_sampled_it() -> None:
    outputs = []
    for played, reward in ((trajectory(asked(1), sampled(2)), GOOD), (trajectory(asked(1), sampled(2, 3)), BAD)):
        row = row_of(played, reward)
        assert row is not None
        outputs.append(output_fields(row, report_of(played, reward), Versions(3, 4), 0.1))
    assert outputs[0].keys() == outputs[1].keys()
    extra = outputs[0]["extra_fields"]
    assert (extra["min_global_steps"], extra["max_global_steps"]) == (3, 4)
    assert extra["reward_extra_info"].keys() == outputs[1]["extra_fields"]["reward_extra_info"].keys()


def test_what_is_missing_of_a_batch_failed_through_a_fault_of_ours() -> None:
    reports = [report_of(trajectory(asked(1), sampled(2)), GOOD), report_of(trajectory(asked(1), sampled(2, 3)), BAD)]
    found = batch_metrics(reports, [1.0, 0.0], wanted=4)
    assert found["rollout/faults"] == 0.5
    assert found["success/mean"] == found["reward/mean"] == 0.5
    assert found["rollout/sampled_tokens_mean"] == 1.5


def test_lines_of_verls_log_are_taken_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = LogReader(path)
    assert list(reader.new()) == []
    first = json.dumps({"step": 1, "data": {"actor/pg_loss": 0.25, "timing_s/step": 2.0, "of/no/name": 1, "text": "x"}})
    second = json.dumps({"step": 2, "data": {"val-core/held_out/join/acc/mean@1": 0.75}})
    path.write_text(first + "\n" + second[:10])
    (logged,) = reader.new()
    assert logged.trained
    assert logged.metrics == {"policy/loss": 0.25, "time/step_s": 2.0}
    path.write_text(first + "\n" + second + "\n")
    (logged,) = reader.new()
    assert not logged.trained
    assert logged.step == 2
    assert list(logged.metrics.values()) == [pytest.approx(0.75)]

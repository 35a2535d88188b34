"""The learner's gradient is that of the padless, unshared, token-by-token computation, however it is cut up."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from recall.errors import ConfigError  # noqa: E402
from recall.policy.torch import TorchPolicy  # noqa: E402
from recall.trainers.algorithms import ALGORITHMS  # noqa: E402
from recall.trainers.learner import Learner, LearnerSettings, batch_credits, varies  # noqa: E402
from recall.types import Group, RewardResult, Sampling, Segment, StopReason, Task, Trajectory  # noqa: E402
from test_algorithms import slow_objective  # noqa: E402

VOCABULARY = 61
TASK = Task("t", "?", ("1",))
PLAIN: dict[str, Any] = {
    "minibatches": 1,
    "max_grad_norm": 1e9,
    "warmup_steps": 0,
    "constant_length": 7,
    "entropy_coefficient": 0.0,
}
"""One optimizer step whose gradient is not scaled down."""


def model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=128,
        initializer_range=0.3,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=1,
    )
    return transformers.Qwen3ForCausalLM(config).eval()


def logprobs_of(policy: Any, trajectory: Trajectory, temperature: float = 1.0) -> tuple[Any, Any]:
    """[sampled] log-probabilities and entropies of a trajectory, by one pass of the library over it alone."""
    logits = policy(torch.tensor([trajectory.token_ids])).logits[0, :-1] / temperature
    normal = torch.log_softmax(logits, -1)
    own = torch.tensor(trajectory.mask[1:])
    targets = torch.tensor(trajectory.token_ids[1:])
    entropy = -(normal.exp() * normal).sum(-1)
    return normal.gather(-1, targets[:, None])[:, 0][own], entropy[own]


def trajectory(rng: random.Random, prompt: Sequence[int], policy: Any, noise: float) -> Trajectory:
    """One to three turns with replies between them; the sampler's numbers are off by `noise`."""
    segments = [Segment(tuple(prompt))]
    for turn in range(rng.randint(1, 3)):
        if turn:
            segments.append(Segment(tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 6)))))
        ids = tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 7)))
        segments.append(Segment(ids, (0.0,) * len(ids)))
    drawn = Trajectory("t", tuple(segments), StopReason.DONE)
    with torch.no_grad():
        right = iter(logprobs_of(policy, drawn)[0].tolist())
    known = [
        replace(segment, logprobs=tuple(next(right) + rng.gauss(0, noise) for _ in segment.token_ids))
        if segment.sampled
        else segment
        for segment in segments
    ]
    return replace(drawn, segments=tuple(known))


def group(rng: random.Random, scores: Sequence[float], policy: Any, *, noise: float = 0.0) -> Group:
    prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randint(3, 9))]
    return Group(
        TASK,
        [trajectory(rng, prompt, policy, noise) for _ in scores],
        [RewardResult(score, score > 0.5) for score in scores],
    )


def groups(policy: Any, *, noise: float = 0.0) -> list[Group]:
    """Three groups, one of them with a trajectory whose advantage is exactly 0."""
    rng = random.Random(0)
    return [group(rng, scores, policy, noise=noise) for scores in ((0.0, 0.5, 1.0), (1.0, 0.0), (0.1, 1.0, 0.0, 0.0))]


def gradient(batch: Sequence[Group], reference: Any = None, /, **settings: Any) -> tuple[list[Any], dict[str, float]]:
    """The gradient of one update, and its metrics."""
    trained = model()
    learner = Learner(trained, LearnerSettings(**{**PLAIN, **settings}), reference=reference)
    seen: dict[int, Any] = {}

    def keep(number: int) -> Any:
        return lambda parameter: seen.__setitem__(number, parameter.grad.clone())

    for number, parameter in enumerate(trained.parameters()):
        parameter.register_post_accumulate_grad_hook(keep(number))
    metrics = learner.update(batch, step=0, total_steps=1, seed=0)
    return [seen[number] for number in sorted(seen)], metrics


def assert_same(found: Sequence[Any], expected: Sequence[Any], bound: float = 1e-5) -> None:
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert float((mine - theirs).abs().max()) <= bound * max(1.0, float(theirs.abs().max()))


def slow_gradient(batch: Sequence[Group], name: str, *, entropy: float = 0.0) -> list[Any]:
    """The gradient with nothing shared, padded or cut up."""
    trained = model()
    rows, old, advantages, entropies = [], [], [], []
    for each, advantages_of in zip(batch, batch_credits(batch, ALGORITHMS[name]), strict=True):
        for played, advantage in zip(each.trajectories, advantages_of, strict=True):
            row, spread = logprobs_of(trained, played)
            rows.append(row)
            entropies.append(spread)
            old.append(torch.tensor([value for value, own in zip(played.logprobs, played.mask, strict=True) if own]))
            advantages.append(advantage)
    objective = slow_objective(name, rows, old, advantages) + entropy * torch.cat(entropies).mean()
    return list(torch.autograd.grad(-objective, list(trained.parameters())))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradients_equal_those_of_the_unshared_computation(name: str) -> None:
    batch = groups(model(), noise=0.3)
    assert_same(gradient(batch, algorithm=name)[0], slow_gradient(batch, name))


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo"])
def test_gradients_do_not_depend_on_the_tokens_of_a_pass(name: str) -> None:
    batch = groups(model(), noise=0.3)
    whole, seen = gradient(batch, algorithm=name)
    for micro_tokens in (1, 25, 60):
        parts, metrics = gradient(batch, algorithm=name, micro_tokens=micro_tokens)
        assert_same(parts, whole)
        assert metrics == pytest.approx(seen, rel=1e-4, abs=1e-5)


def test_what_the_environment_wrote_last_changes_nothing() -> None:
    batch = groups(model())
    ended = [
        replace(
            each,
            trajectories=[
                replace(played, segments=(*played.segments, Segment((3, 4, 5)))) for played in each.trajectories
            ],
        )
        for each in batch
    ]
    assert_same(gradient(ended)[0], gradient(batch)[0], 1e-6)


def test_only_sampled_tokens_are_learned_from() -> None:
    """With one sampled token a trajectory, the gradient of the logits reaches exactly one position of each."""
    rng, policy = random.Random(1), model()
    prompt, reply = (5, 6, 7), (8, 9, 10, 11)
    played = [
        Trajectory(
            "t",
            (Segment(prompt), Segment((rng.randrange(VOCABULARY),), (-1.0,)), Segment(reply)),
            StopReason.MAX_TURNS,
        )
        for _ in range(2)
    ]
    batch = [Group(TASK, played, [RewardResult(1.0, True), RewardResult(0.0, False)])]
    only_turns = [replace(batch[0], trajectories=[replace(each, segments=each.segments[:2]) for each in played])]
    assert_same(gradient(batch, algorithm="rloo")[0], gradient(only_turns, algorithm="rloo")[0], 1e-6)
    assert_same(gradient(batch, algorithm="rloo")[0], slow_gradient(batch, "rloo"))
    assert sum(sum(each.mask) for each in played) == 2
    assert policy.config.vocab_size == VOCABULARY


def test_groups_without_variance_change_no_bit() -> None:
    trained = model()
    before = [parameter.detach().clone() for parameter in trained.parameters()]
    learner = Learner(trained, LearnerSettings(kl_coefficient=0.1, entropy_coefficient=0.1))
    batch = [group(random.Random(0), (1.0, 1.0), trained), group(random.Random(1), (0.0, 0.0, 0.0), trained)]
    metrics = learner.update(batch, step=0, total_steps=1, seed=0)
    assert (metrics["groups/used"], metrics["groups/zero_variance"]) == (0.0, 2.0)
    assert all(torch.equal(old, new) for old, new in zip(before, trained.parameters(), strict=True))
    assert not learner.optimizer.state


def test_a_group_without_variance_does_not_weigh_on_the_others() -> None:
    batch = groups(model())
    silent = group(random.Random(5), (1.0, 1.0, 1.0), model())
    assert_same(gradient([*batch, silent])[0], gradient(batch)[0], 1e-6)


@pytest.mark.parametrize("settings", [{}, {"entropy_coefficient": 0.1}, {"algorithm": "grpo"}])
def test_faults_of_ours_are_left_out(settings: dict[str, Any]) -> None:
    rng, policy = random.Random(3), model()
    sound = group(rng, (0.0, 1.0, 0.4), policy)
    fault = replace(trajectory(rng, sound.trajectories[0].prompt_ids, policy, 0.0), fault="gone")
    unstarted = Trajectory("t", (), StopReason.FAULT, fault="no process")
    mixed = replace(
        sound,
        trajectories=[fault, *sound.trajectories, unstarted],
        rewards=[RewardResult(9.0, True), *sound.rewards, RewardResult(0.0, False)],
    )
    assert_same(gradient([mixed], **settings)[0], gradient([sound], **settings)[0], 1e-6)


def test_an_episode_that_ended_before_its_first_turn_teaches_nothing_and_breaks_nothing() -> None:
    policy = model()
    sound = group(random.Random(3), (0.0, 1.0), policy)
    late = Trajectory("t", sound.trajectories[0].segments[:1], StopReason.TIMEOUT)
    mixed = replace(sound, trajectories=[*sound.trajectories, late], rewards=[*sound.rewards, RewardResult(0.0, False)])
    only_late = Group(TASK, [late, late], [RewardResult(0.0, False), RewardResult(1.0, True)])
    _, metrics = gradient([mixed, only_late], algorithm="grpo")
    assert metrics["groups/used"] == 1.0
    assert metrics["policy/skipped"] == 0.0


def test_the_divergence_from_identical_weights_is_zero() -> None:
    policy = model()
    batch = groups(policy)
    plain, metrics = gradient(batch)
    assert abs(metrics["policy/kl_old"]) < 1e-6
    held, metrics = gradient(batch, kl_coefficient=1.0)
    assert abs(metrics["policy/kl_reference"]) < 1e-6
    assert_same(held, plain)


def test_the_divergence_from_other_weights_is_k3_and_pulls_towards_them() -> None:
    batch, far = groups(model()), model(1)
    _, metrics = gradient(batch, far, kl_coefficient=1.0)
    with torch.no_grad():
        differences = torch.cat(
            [logprobs_of(far, t)[0] - logprobs_of(model(), t)[0] for g in batch for t in g.trajectories]
        )
    assert metrics["policy/kl_reference"] == pytest.approx(
        float((differences.exp() - 1 - differences).mean()), rel=1e-3
    )
    trained = model()
    learner = Learner(trained, LearnerSettings(**{**PLAIN, "kl_coefficient": 1e4}), reference=far)
    first, *_, last = (learner.update(batch, step=0, total_steps=1, seed=0)["policy/kl_reference"] for _ in range(10))
    assert last < first


def test_the_change_since_sampling_is_measured_from_the_sampler() -> None:
    batch = groups(model(), noise=0.3)
    with torch.no_grad():
        changes = torch.cat(
            [
                logprobs_of(model(), t)[0]
                - torch.tensor([value for value, own in zip(t.logprobs, t.mask, strict=True) if own])
                for g in batch
                for t in g.trajectories
            ]
        )
    _, metrics = gradient(batch)
    assert metrics["policy/kl_old"] == pytest.approx(float((changes.exp() - 1 - changes).mean()), abs=1e-5)
    assert metrics["policy/logprob_gap_max"] == pytest.approx(float(changes.abs().max()), abs=1e-5)
    assert metrics["policy/ratio_mean"] == pytest.approx(float(changes.exp().mean()), abs=1e-5)


def test_the_gap_between_engine_and_learner_is_taken_before_the_weights_move() -> None:
    batch = groups(model())
    metrics = Learner(model(), LearnerSettings(minibatches=3, epochs=3, learning_rate=0.1, warmup_steps=0)).update(
        batch, step=0, total_steps=1, seed=0
    )
    assert metrics["policy/logprob_gap_max"] < 1e-4
    assert metrics["policy/kl_old"] > 1e-3


def test_what_the_learner_saw_of_each_token_is_kept_from_its_first_look_where_it_looked() -> None:
    batch = groups(model(), noise=0.3)
    again = [replace(each) for each in batch[0].trajectories]
    flat = Group(batch[0].task, again, [RewardResult(1.0, True)] * len(again))
    learner = Learner(model(), LearnerSettings(minibatches=1, epochs=2, learning_rate=0.1, warmup_steps=0))
    learner.update([*batch, flat], step=0, total_steps=1, seed=0)
    *written, untouched = learner.seen.on([*batch, flat])
    for before, after in zip(batch, written, strict=True):
        for played, shown in zip(before.trajectories, after.trajectories, strict=True):
            with torch.no_grad():
                logprobs, entropies = logprobs_of(model(), played)
            sampled = [segment for segment in shown.segments if segment.sampled]
            found = [value for segment in sampled for value in segment.learner_logprobs or ()]
            assert found == pytest.approx(logprobs.tolist(), abs=1e-4)
            assert [v for s in sampled for v in s.entropies or ()] == pytest.approx(entropies.tolist(), abs=1e-4)
            assert all(segment.entropies is None for segment in shown.segments if not segment.sampled)
    assert len(written) == len(batch) > 0
    learner.update([flat], step=1, total_steps=2, seed=0)
    assert learner.seen.on([flat]) == [untouched] == [flat]


def test_entropy_is_that_of_the_sampled_positions_and_its_bonus_a_gradient() -> None:
    batch = groups(model())
    with torch.no_grad():
        expected = torch.cat([logprobs_of(model(), t)[1] for g in batch for t in g.trajectories]).mean()
    found, metrics = gradient(batch, entropy_coefficient=0.5, algorithm="grpo")
    assert metrics["policy/entropy"] == pytest.approx(float(expected), rel=1e-5)
    assert_same(found, slow_gradient(batch, "grpo", entropy=0.5))


def test_the_temperature_is_that_of_sampling() -> None:
    batch, trained = groups(model()), model()
    learner = Learner(trained, LearnerSettings(**PLAIN), temperature=0.7)
    entropy = learner.update(batch, step=0, total_steps=1, seed=0)["policy/entropy"]
    with torch.no_grad():
        expected = torch.cat([logprobs_of(model(), t, 0.7)[1] for g in batch for t in g.trajectories]).mean()
    assert entropy == pytest.approx(float(expected), rel=1e-5)


def test_a_cap_on_importance_changes_nothing_where_engine_and_learner_agree() -> None:
    batch = groups(model())
    assert_same(gradient(batch, importance_cap=2.0)[0], gradient(batch)[0])


def test_a_cap_on_importance_corrects_for_an_engine_that_is_off() -> None:
    policy = model()
    sound = group(random.Random(2), (0.0, 1.0), policy)

    def off(by: float) -> Group:
        played = [
            replace(t, segments=tuple(
                replace(s, logprobs=tuple(value - by for value in s.logprobs)) if s.logprobs is not None else s
                for s in t.segments
            ))
            for t in sound.trajectories
        ]  # fmt: skip
        return replace(sound, trajectories=played)

    plain, _ = gradient([sound], algorithm="grpo")
    for by, weight in ((0.5, 2.718281828**0.5), (3.0, 2.0)):
        found, _ = gradient([off(by)], algorithm="grpo", importance_cap=2.0)
        assert_same(found, [weight * each for each in plain])


def test_an_update_that_is_not_finite_is_skipped_and_said() -> None:
    trained = model()
    sound = group(random.Random(2), (0.0, 1.0), trained)
    broken = replace(
        sound.trajectories[0].segments[1], logprobs=(-1e4,) * len(sound.trajectories[0].segments[1].token_ids)
    )
    played = replace(sound.trajectories[0], segments=(sound.trajectories[0].segments[0], broken))
    before = [parameter.detach().clone() for parameter in trained.parameters()]
    batch = [replace(sound, trajectories=[played, sound.trajectories[1]])]
    metrics = Learner(trained, LearnerSettings(minibatches=1)).update(batch, step=0, total_steps=1, seed=0)
    assert metrics["policy/skipped"] == 1.0
    assert all(torch.equal(old, new) for old, new in zip(before, trained.parameters(), strict=True))


def test_the_learning_rate_rises_from_the_share_it_starts_with() -> None:
    settings = LearnerSettings(learning_rate=1.0, warmup_steps=3, initial_rate=0.4, final_rate=1.0)
    learner = Learner(model(), settings)
    rates = [learner.update([], step=step, total_steps=8, seed=0)["learner/learning_rate"] for step in range(5)]
    assert rates == pytest.approx([0.55, 0.7, 0.85, 1.0, 1.0])


def test_the_learning_rate_warms_up_and_falls() -> None:
    learner = Learner(model(), LearnerSettings(learning_rate=1.0, warmup_steps=3, initial_rate=0.0, final_rate=0.5))
    rates = [learner.update([], step=step, total_steps=8, seed=0)["learner/learning_rate"] for step in range(8)]
    assert rates[0] == pytest.approx(0.25)
    assert rates[1] == pytest.approx(0.5 * (1 - 0.5 / 8))
    assert rates[7] == pytest.approx(1 - 0.5 * 7 / 8)


@pytest.mark.parametrize("name", ["ppo", "GRPO", ""])
def test_an_unknown_algorithm_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match="accepted are grpo, dr_grpo, dapo, gspo, cispo, rloo"):
        Learner(model(), LearnerSettings(algorithm=name))


def test_greedy_sampling_cannot_be_learned_from() -> None:
    with pytest.raises(ConfigError, match=r"rollout\.temperature"):
        Learner(model(), LearnerSettings(), temperature=0.0)


async def played(policy: TorchPolicy, seed: int) -> Group:
    """Eight turns of one token, rewarded for token 7."""
    trajectories = []
    for sample in range(8):
        done = await policy.sample((3, 4, 5), Sampling(max_tokens=1, seed=seed * 8 + sample), episode_id=f"{sample}")
        segments = (Segment((3, 4, 5)), Segment(done.token_ids, done.logprobs))
        trajectories.append(Trajectory("t", segments, StopReason.MAX_TOKENS))
    scores = [float(each.token_ids[-1] == 7) for each in trajectories]
    return Group(TASK, trajectories, [RewardResult(score, score > 0) for score in scores])


async def test_what_is_rewarded_becomes_likely_and_the_engine_samples_from_the_new_weights() -> None:
    trained = model()
    with torch.no_grad():
        trained.model.embed_tokens.weight.mul_(0.3)  # nearly uniform, so that token 7 comes up at all
    policy = TorchPolicy(trained, stop_token_ids=[1], shards=1)
    learner = Learner(trained, LearnerSettings(learning_rate=0.01, warmup_steps=0, minibatches=1))
    for step in range(60):
        batch = await played(policy, step)
        for each in batch.trajectories:
            with torch.no_grad():
                expected = float(logprobs_of(trained, each)[0])
            assert each.logprobs[-1] == pytest.approx(expected, abs=1e-4)
        learner.update([batch], step=step, total_steps=60, seed=0)
        policy.version += 1
    policy.close()
    assert sum(reward.score for reward in batch.rewards) >= 7


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo"])
def test_the_divergence_is_averaged_as_the_objective_is(name: str) -> None:
    batch, far = groups(model()), model(1)
    found, _ = gradient(batch, far, algorithm=name, kl_coefficient=0.5)
    trained = model()
    rows = [logprobs_of(trained, t)[0] for g in batch for t in g.trajectories]
    with torch.no_grad():
        away = [logprobs_of(far, t)[0] for g in batch for t in g.trajectories]
    tokens = sum(map(len, rows))
    penalty = torch.zeros(())
    for mine, other in zip(rows, away, strict=True):
        share = {"grpo": 1 / len(mine) / len(rows), "dr_grpo": 1 / 7 / len(rows), "dapo": 1 / tokens}[name]
        penalty = penalty + share * ((other - mine).exp() - 1 - (other - mine)).sum()
    plain = slow_gradient(batch, name)
    held = torch.autograd.grad(0.5 * penalty, list(trained.parameters()))
    assert_same(found, [one + two for one, two in zip(plain, held, strict=True)])


def test_grpo_holds_to_the_weights_at_the_start_by_its_own_coefficient_unless_told_another() -> None:
    assert LearnerSettings(algorithm="grpo").kl == 0.001
    assert LearnerSettings(algorithm="grpo", kl_coefficient=0.0).kl == 0.0
    assert LearnerSettings(algorithm="dapo").kl == 0.0
    assert LearnerSettings(algorithm="dapo", kl_coefficient=0.5).kl == 0.5


def test_a_group_varies_by_its_sound_trajectories() -> None:
    assert all(varies(each) for each in groups(model()))
    silent = group(random.Random(0), (1.0, 1.0, 0.0), model())
    assert varies(silent)
    faulty = [*silent.trajectories[:2], replace(silent.trajectories[2], fault="SandboxError: gone")]
    assert not varies(replace(silent, trajectories=faulty))
    assert batch_credits([replace(silent, trajectories=faulty)], ALGORITHMS["reinforce_pp"]) == [[0.0, 0.0, 0.0]]


def test_trajectories_of_an_engine_of_text_are_refused() -> None:
    batch = groups(model())
    first = batch[0].trajectories[0]
    read = replace(first, segments=tuple(replace(segment, from_text=segment.sampled) for segment in first.segments))
    text = replace(batch[0], trajectories=[read, *batch[0].trajectories[1:]])
    with pytest.raises(ConfigError, match="text only"):
        Learner(model(), LearnerSettings(**PLAIN)).update([text], step=0, total_steps=1, seed=0)

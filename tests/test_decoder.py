"""The flat decoder computes what the model computes, and the grouped layout what unshared sequences would."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch.nn.functional as F  # noqa: E402, N812

from recall.errors import ConfigError  # noqa: E402
from recall.policy.torch.decoder import FamilyDecoder, HuggingFaceDecoder, decoder_for  # noqa: E402
from recall.policy.torch.layout import GroupLayout  # noqa: E402

PROMPTS = [[1, 2, 3, 4, 5], [6, 7, 8]]
RESPONSES = [
    [[9, 10], [11, 12, 13, 14], [9, 10, 15], [9, 10]],
    [[20, 21, 22], [20, 23], [24, 25], [20, 21, 26]],
]
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
FAMILY: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE, attention_bias=True, mlp_bias=True)
    ),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True)
    ),
}
GENERIC: dict[str, Callable[[], Any]] = {
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=None)),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(**SIZES, head_dim=32, attn_logit_softcapping=None, sliding_window=64)
    ),
    "gpt_neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**NEOX)),
}


def made(build: Callable[[], Any], dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.15)
    return model.to(dtype)


def backward(loss: Any) -> None:
    loss.backward()


def unshared_logits(model: Any) -> Any:
    """[M, V] from one padless forward pass of the library for each response."""
    return torch.cat(
        [
            model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            for prompt, members in zip(PROMPTS, RESPONSES, strict=True)
            for response in members
        ]
    )


def flat_logits(model: Any) -> Any:
    return logits_of(decoder_for(model), GroupLayout.build(PROMPTS, RESPONSES))


def logits_of(decoder: Any, layout: GroupLayout) -> Any:
    """[M, V] the logits that predict each token of the responses."""
    logits = decoder.forward(layout.token_ids, layout.positions, layout.attend, logits_at=layout.predictors)
    return logits[layout.response_rows]


@pytest.mark.parametrize("name", [*FAMILY, *GENERIC])
def test_flat_logits_equal_those_of_the_library(name: str) -> None:
    model = made((FAMILY | GENERIC)[name])
    expected = unshared_logits(model)
    torch.testing.assert_close(flat_logits(model), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(flat_logits(model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*FAMILY, *GENERIC])
def test_gradients_through_shared_beginnings_equal_those_of_unshared_sequences(name: str) -> None:
    model = made((FAMILY | GENERIC)[name], torch.float64)
    targets = GroupLayout.build(PROMPTS, RESPONSES).response_targets
    backward(F.cross_entropy(flat_logits(model), targets))
    shared = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    backward(F.cross_entropy(unshared_logits(model), targets))
    for key, parameter in model.named_parameters():
        # The library normalises in float32 whatever the model's type, hence the absolute part.
        bound = 1e-5 * float(parameter.grad.abs().max()) + 1e-7
        torch.testing.assert_close(shared[key], parameter.grad, rtol=0.0, atol=bound)


@pytest.mark.parametrize("name", FAMILY)
def test_sharing_what_is_common_changes_no_gradient(name: str) -> None:
    model = made(FAMILY[name], torch.float64)
    decoder, gradients = decoder_for(model), []
    apart = GroupLayout.build(
        [prompt for prompt, members in zip(PROMPTS, RESPONSES, strict=True) for _ in members],
        [[member] for members in RESPONSES for member in members],
    )
    for layout in (GroupLayout.build(PROMPTS, RESPONSES), apart):
        logits = logits_of(decoder, layout)
        model.zero_grad()
        backward(F.cross_entropy(logits, layout.response_targets))
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for together, separate in zip(*gradients, strict=True):
        torch.testing.assert_close(together, separate, rtol=1e-9, atol=1e-12)


def test_known_families_are_read_directly_and_others_through_the_library() -> None:
    assert all(isinstance(decoder_for(made(build)), FamilyDecoder) for build in FAMILY.values())
    assert all(isinstance(decoder_for(made(build)), HuggingFaceDecoder) for build in GENERIC.values())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft reads it
def test_an_adapter_is_part_of_the_model() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        made(FAMILY["qwen3"]), peft.LoraConfig(target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, 0.0, 0.3)
    torch.testing.assert_close(flat_logits(model), unshared_logits(model), rtol=1e-5, atol=1e-5)


def test_a_model_computes_as_before_when_its_attention_is_routed() -> None:
    model = made(GENERIC["mistral"])
    before = unshared_logits(model)
    decoder_for(model)
    torch.testing.assert_close(unshared_logits(model), before)


def test_weights_written_in_place_are_seen() -> None:
    model = made(FAMILY["qwen3"])
    decoder, layout = decoder_for(model), GroupLayout.build(PROMPTS, RESPONSES)
    with torch.no_grad():
        decoder.forward(layout.token_ids, layout.positions, layout.attend)
        model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
        logits = logits_of(decoder, layout)
        torch.testing.assert_close(logits, unshared_logits(model), rtol=1e-5, atol=1e-5)


def test_training_follows_sampling_on_the_same_decoder() -> None:
    decoder, layout = decoder_for(made(FAMILY["qwen3"])), GroupLayout.build(PROMPTS, RESPONSES)
    with torch.inference_mode():
        decoder.forward(layout.token_ids, layout.positions, layout.attend)
    backward(decoder.forward(layout.token_ids, layout.positions, layout.attend).sum())


def test_attention_that_cannot_be_routed_is_refused_by_name() -> None:
    capped = made(
        lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SIZES, attn_logit_softcapping=50.0))
    )
    with pytest.raises(ConfigError, match="softcap"):
        decoder_for(capped)


def test_a_context_beyond_a_sliding_window_is_refused() -> None:
    model = made(lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=4)))
    layout = GroupLayout.build(PROMPTS, RESPONSES)
    with pytest.raises(ConfigError, match="sliding window of 4"):
        decoder_for(model).forward(layout.token_ids, layout.positions, layout.attend)


def test_a_layout_holds_once_what_sequences_begin_with_in_common() -> None:
    layout = GroupLayout.build(PROMPTS, RESPONSES)
    assert len(layout.token_ids) == 5 + 3 + 4 + 3 + 7
    assert layout.response_lengths == (2, 4, 3, 2, 3, 2, 2, 3)
    rows = torch.split(layout.response_rows, layout.response_lengths)
    assert rows[0].tolist() == rows[3].tolist() == rows[2].tolist()[:2]
    for index, target in zip(layout.predictors[layout.response_rows], layout.response_targets, strict=True):
        assert target in layout.token_ids[layout.positions == layout.positions[index] + 1]


def test_groups_do_not_share_a_prompt_that_happens_to_be_the_same() -> None:
    layout = GroupLayout.build([[1, 2], [1, 2]], [[[3]], [[3]]])
    assert layout.token_ids.tolist() == [1, 2, 3] * 2


@pytest.mark.parametrize("seed", range(8))
def test_attention_over_a_tree_is_that_over_each_sequence(seed: int) -> None:
    rng = random.Random(seed)
    draw = partial(rng.choices, range(2))  # of two tokens, so that sequences part anywhere
    prompts = [draw(k=rng.randint(1, 5)) for _ in range(3)]
    responses = [[draw(k=rng.randint(1, 9)) for _ in range(rng.randint(1, 6))] for _ in prompts]
    shared, apart = (
        GroupLayout.build(prompts, responses),
        [GroupLayout.build([p], [[r]]) for p, members in zip(prompts, responses, strict=True) for r in members],
    )
    torch.manual_seed(seed)
    tables = [torch.randn(12, 14, each, 8, dtype=torch.float64, requires_grad=True) for each in (4, 2, 2)]

    def attended(layout: GroupLayout) -> Any:
        # What a token looks like depends on itself and its position, so that all see the same keys.
        rows = layout.token_ids, layout.positions
        out = layout.attend(0, *(table[rows] for table in tables))
        return out[layout.predictors][layout.response_rows]

    together, one_by_one = attended(shared), torch.cat([attended(layout) for layout in apart])
    torch.testing.assert_close(together, one_by_one)
    weights = torch.randn_like(together)
    gradients = (torch.autograd.grad((out * weights).sum(), tables) for out in (together, one_by_one))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(("prompts", "responses"), [([], []), ([[1]], [[]]), ([[]], [[[1]]]), ([[1]], [[[]]])])
def test_a_layout_without_a_token_is_refused(prompts: list[list[int]], responses: list[list[list[int]]]) -> None:
    with pytest.raises(ValueError, match=r"empty"):
        GroupLayout.build(prompts, responses)

"""The flat decoder computes what the model computes, and the grouped layout what unshared sequences would."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch.nn.functional as F  # noqa: E402, N812

from recall.errors import ConfigError  # noqa: E402
from recall.policy.torch.decoder import FamilyDecoder, HuggingFaceDecoder, decoder_for  # noqa: E402
from recall.policy.torch.layout import GroupLayout  # noqa: E402

PROMPTS = [[1, 2, 3, 4, 5], [6, 7, 8]]
RESPONSES = [[[9, 10], [11, 12, 13, 14]], [[20, 21, 22], [23], [24, 25]]]
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
    layout = GroupLayout.build(PROMPTS, RESPONSES)
    decoder = decoder_for(model)
    return decoder.forward(layout.token_ids, layout.positions, layout.attend, logits_at=layout.response_index)


@pytest.mark.parametrize("name", [*FAMILY, *GENERIC])
def test_flat_logits_equal_those_of_the_library(name: str) -> None:
    model = made((FAMILY | GENERIC)[name])
    expected = unshared_logits(model)
    torch.testing.assert_close(flat_logits(model), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(flat_logits(model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*FAMILY, *GENERIC])
def test_gradients_through_shared_prompts_equal_those_of_unshared_sequences(name: str) -> None:
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
def test_sharing_the_prompt_changes_no_gradient(name: str) -> None:
    model = made(FAMILY[name], torch.float64)
    decoder, gradients = decoder_for(model), []
    apart = GroupLayout.build(
        [prompt for prompt, members in zip(PROMPTS, RESPONSES, strict=True) for _ in members],
        [[member] for members in RESPONSES for member in members],
    )
    for layout in (GroupLayout.build(PROMPTS, RESPONSES), apart):
        logits = decoder.forward(layout.token_ids, layout.positions, layout.attend, logits_at=layout.response_index)
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
        logits = decoder.forward(layout.token_ids, layout.positions, layout.attend, logits_at=layout.response_index)
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


def test_a_layout_holds_each_prompt_once() -> None:
    layout = GroupLayout.build(PROMPTS, RESPONSES)
    assert len(layout.token_ids) == 5 + 2 + 4 + 3 + 3 + 1 + 2
    assert layout.response_lengths == (2, 4, 3, 1, 2)
    assert layout.response_index.tolist()[:3] == [4, 5, 4]


SAME_AND_OTHER_LENGTHS = [
    ([[1, 2, 3]] * 2, [[[4, 5], [6]], [[7, 8, 9, 1]]]),
    ([[1], [2, 3, 4]], [[[5]], [[6, 7], [8]]]),
]


@pytest.mark.parametrize(("prompts", "responses"), SAME_AND_OTHER_LENGTHS)
def test_attention_merged_from_two_kernels_is_that_of_one(
    prompts: list[list[int]], responses: list[list[list[int]]]
) -> None:
    layout = GroupLayout.build(prompts, responses)
    torch.manual_seed(0)
    heads = [torch.randn(len(layout.token_ids), each, 8, dtype=torch.float64, requires_grad=True) for each in (4, 2, 2)]
    q, k, v = heads
    merged = layout.attend(0, q, k, v)[layout._own_rows.flatten()[layout._own_unpad]]
    one = layout._attend_responses(q, k, v, *(x[layout._prompt_rows].transpose(1, 2) for x in (k, v)))
    torch.testing.assert_close(merged, one)
    weights = torch.randn_like(one)
    for mine, other in zip(*(torch.autograd.grad((out * weights).sum(), heads) for out in (merged, one)), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(("prompts", "responses"), [([], []), ([[1]], [[]]), ([[]], [[[1]]]), ([[1]], [[[]]])])
def test_a_layout_without_a_token_is_refused(prompts: list[list[int]], responses: list[list[list[int]]]) -> None:
    with pytest.raises(ValueError, match=r"empty"):
        GroupLayout.build(prompts, responses)

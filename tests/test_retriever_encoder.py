import json
from pathlib import Path

import numpy as np
import pytest

from recall.errors import ConfigError
from recall.retriever.encoder import Encoder, EncoderSettings
from recall.retriever.families import FAMILIES, family_of
from retriever_corpora import TEXTS, minilm, tiny_encoder

pytest.importorskip("torch", reason="encoders come with recall[train]")
pytest.importorskip("transformers", reason="encoders come with recall[train]")

QUERY = "Ada wrote the first program"


def encoder(path: Path, **settings: object) -> Encoder:
    return Encoder(EncoderSettings.model_validate({"model": str(path), **settings}))


@pytest.mark.parametrize(
    ("name", "pooling", "query", "passage"),
    [
        ("intfloat/e5-base-v2", "mean", "query: ", "passage: "),
        ("intfloat/multilingual-e5-small", "mean", "query: ", "passage: "),
        ("BAAI/bge-base-en-v1.5", "cls", "Represent this sentence for searching relevant passages: ", ""),
        ("BAAI/bge-m3", "cls", "", ""),
        ("sentence-transformers/all-MiniLM-L6-v2", "mean", "", ""),
        ("facebook/contriever-msmarco", "mean", "", ""),
        ("facebook/dpr-question_encoder-single-nq-base", "pooler", "", ""),
    ],
)
def test_known_families_get_their_prefixes_and_pooling(name: str, pooling: str, query: str, passage: str) -> None:
    family = family_of(name, "bert")
    assert family is not None
    assert (family.pooling, family.query_prefix, family.passage_prefix) == (pooling, query, passage)


def test_an_architecture_is_a_family_and_unknown_names_are_none() -> None:
    t5 = family_of("somebody/retriever", "t5")
    assert t5 is not None
    assert t5.pooling == "first-decoder"
    for name in ("somebody/retriever", "intfloat/e5-mistral-7b-instruct", "intfloat/multilingual-e5-large-instruct"):
        assert family_of(name, "bert") is None
    assert len(FAMILIES) == 6


def test_an_unknown_encoder_is_refused_until_it_is_described(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"no known family, so set --encoder\.pooling and --encoder\.normalize"):
        encoder(path)
    facts = encoder(path, pooling="cls", normalize=False, query_prefix="q: ", query_tokens=1000).facts
    assert (facts.pooling, facts.normalize, facts.query_prefix, facts.passage_prefix) == ("cls", False, "q: ", "")
    assert (facts.query_tokens, facts.passage_tokens, facts.dim) == (64, 64, 32)


def test_what_the_directory_says_goes_before_the_family(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "tiny-e5-base")
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    facts = encoder(path).facts
    assert (facts.pooling, facts.normalize, facts.query_prefix, facts.query_tokens) == ("cls", True, "query: ", 16)
    (path / "modules.json").write_text(json.dumps([*modules, {"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ConfigError, match="its module Dense is not supported"):
        encoder(path)


def test_batches_and_padding_change_nothing(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "tiny-minilm")
    texts = [text for _, text in TEXTS] + ["", "Ada", " ".join(["engine"] * 200)]
    together = encoder(path).encode(texts, "passage")
    narrow = encoder(path, batch_tokens=64).encode(texts, "passage")
    alone = np.concatenate([encoder(path).encode([text], "passage") for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, narrow, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert encoder(path).encode([], "query").shape == (0, 32)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "pooler"])
def test_each_pooling_is_what_it_is_called(tmp_path: Path, pooling: str) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    path = tiny_encoder(tmp_path / "model", layers=2)
    ours = encoder(path, pooling=pooling, normalize=False).encode([QUERY, "Radium"], "query")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    for vector, text in zip(ours, [QUERY, "Radium"], strict=True):
        with torch.inference_mode():
            output = model(**tokenizer(text, return_tensors="pt"))
        states = output.last_hidden_state[0]
        wanted = {"mean": states.mean(0), "cls": states[0], "last": states[-1], "pooler": output.pooler_output[0]}
        np.testing.assert_allclose(vector, wanted[pooling].numpy(), atol=1e-5)


def test_a_t5_gives_the_first_state_of_its_decoder(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    path = tiny_encoder(tmp_path / "model", kind="t5")
    (ours,) = encoder(path).encode([QUERY], "query")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    ids = tokenizer(QUERY, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = model(input_ids=ids, decoder_input_ids=torch.zeros((1, 1), dtype=torch.long)).last_hidden_state
    np.testing.assert_allclose(ours, states[0, 0].numpy(), atol=1e-5)


def test_prefixes_go_before_queries_and_passages(tmp_path: Path) -> None:
    e5 = encoder(tiny_encoder(tmp_path / "tiny-e5-base"))
    bare = encoder(tmp_path / "tiny-e5-base", query_prefix="", passage_prefix="")
    np.testing.assert_allclose(e5.encode([QUERY], "query"), bare.encode([f"query: {QUERY}"], "query"), atol=1e-6)
    np.testing.assert_allclose(e5.encode([QUERY], "passage"), bare.encode([f"passage: {QUERY}"], "passage"), atol=1e-6)
    assert np.abs(e5.encode([QUERY], "query") - e5.encode([QUERY], "passage")).max() > 1e-3


def test_other_weights_and_other_words_are_another_encoder(tmp_path: Path) -> None:
    one = encoder(tiny_encoder(tmp_path / "a" / "tiny-minilm")).facts
    same = encoder(tiny_encoder(tmp_path / "b" / "tiny-minilm")).facts
    other = encoder(tiny_encoder(tmp_path / "c" / "tiny-minilm", seed=1)).facts
    assert one.differences(same) == []
    assert [line.split()[0] for line in one.differences(other)] == ["weights"]
    assert one.differences(encoder(tmp_path / "a" / "tiny-minilm", pooling="cls").facts) == [
        "pooling 'mean' is not 'cls'"
    ]


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        with pytest.raises(ConfigError, match=r"--encoder\.model: .*cannot be loaded") as error:
            encoder(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"--encoder\.model: missing"):
        Encoder(EncoderSettings())
    path = tiny_encoder(tmp_path / "tiny-minilm")
    with pytest.raises(ConfigError, match="'gpu' is not accepted; it takes auto, cpu, cuda or cuda:N"):
        encoder(path, device="gpu")


def test_the_real_minilm_puts_like_with_like() -> None:
    model = encoder(Path(minilm()))
    assert (model.facts.pooling, model.facts.normalize, model.facts.dim) == ("mean", True, 384)
    assert (model.facts.query_tokens, model.facts.query_prefix) == (256, "")
    passages = model.encode([text for _, text in TEXTS], "passage")
    queries = [
        "Who was the first programmer?",
        "a machine that was planned but never completed",
        "a scientist with Nobel prizes",
    ]
    best = (model.encode(queries, "query") @ passages.T).argmax(axis=1)
    assert best.tolist() == [0, 1, 2]
